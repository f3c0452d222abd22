//! Balancers die: one, then both, and then they are back. Calls do not notice.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    phase,
    scale::first_call,
    scene::{BALANCERS, Scene, with_policy},
};
use crate::{
    checks::{all_served_within, last_list_serves, moved_within, none_failed},
    client::{Client, Event, Finished, What, first},
    clock::unix_s,
    error::LabError,
    report::{Distribution, PhaseReport, timeline::scale_up_by_list},
    run::Run,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const LATE: u8 = 4;
const CALLS_MIN: u64 = 2_000;
/// Of 3 s without balancers at 300 calls/s, on a busy machine.
const ALONE_CALLS_MIN: u64 = 600;
const ALONE: Duration = Duration::from_secs(3);
const MOVED_LIMIT_S: f64 = 2.0;
const SERVED_LIMIT_S: f64 = 1.0;
/// The client's backoff has grown to 2.6 s +- 20 % by then, and to 4.1 s in the worst case.
const BACK_LIMIT: Duration = Duration::from_secs(10);
const SLOT_S: f64 = 0.1;
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "300", "--slots", "100ms"];

/// The moments between which the parts of this phase lie.
struct Moments {
    first_killed: f64,
    /// Both.
    killed: f64,
    started: f64,
    /// The slice with the late pod.
    published: f64,
}

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut scene = Scene::open(run, &name, &[], "").await?;
    scene.scale_up(&BACKENDS).await?;
    let client = scene.client(&BACKENDS, &FLAGS).await?;
    sleep(Duration::from_secs(2)).await;

    let victim = scene.balancers.with_client().await?.unwrap_or(BALANCERS[0]);
    let first_killed = scene.balancers.kill_9(victim).await?;
    scene.stage.say(&format!("killed balancer {victim}, which had the client"));
    connected(&client, first_killed, Duration::from_secs_f64(MOVED_LIMIT_S + 1.0)).await?;
    sleep(Duration::from_secs(1)).await;

    let other = BALANCERS.into_iter().find(|number| *number != victim).unwrap_or(victim);
    let killed = scene.balancers.kill_9(other).await?;
    scene.stage.say(&format!("killed balancer {other} too: there is none"));
    sleep(ALONE).await;

    let started = unix_s();
    scene.balancers.start(&BALANCERS).await?;
    let back = connected(&client, started, BACK_LIMIT).await?;
    scene.stage.say(if back { "both are back, and asked" } else { "nobody asks them" });
    let published = scene.scale_up(&[LATE]).await?;
    let late = scene.stage.fleet.names(&[LATE]).concat();
    let limit = Duration::from_secs_f64(SERVED_LIMIT_S + 4.0);
    client.until(limit, |events| first_call(events, &late).is_some()).await?;
    sleep(Duration::from_secs(1)).await;

    let finished = client.stop().await?;
    scene.all_alive()?;
    let moments = Moments { first_killed, killed, started, published };
    Ok(report(&scene, &finished, &moments))
}

/// Waits until the client has a stream to a balancer that began after `since`.
async fn connected(client: &Client, since: f64, limit: Duration) -> Result<bool, LabError> {
    let connected = |what: &What| matches!(what, What::Balancer { connected: Some(_), .. });
    client.until(limit, |events: &[Event]| first(events, since, connected).is_some()).await
}

fn report(scene: &Scene, finished: &Finished, at: &Moments) -> PhaseReport {
    let (phase, report, events) = (phase("balancers"), &finished.report, &finished.events);
    let fleet = &scene.stage.fleet;
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&with_policy(&FLAGS), &[]);
    let slots = &report.slots;
    found.distributions = vec![
        Distribution::between("one balancer left", slots, SLOT_S, at.first_killed, at.killed),
        Distribution::between("no balancer", slots, SLOT_S, at.killed, at.started),
        Distribution::whole("all calls", report),
    ];
    let (late, address) = (fleet.names(&[LATE]).concat(), fleet.addresses(&[LATE]).concat());
    let ready = fleet.ready_unix_s(LATE);
    found.timelines.push(scale_up_by_list(&address, ready, at.published, 4, events));
    found.checks = vec![
        none_failed(
            "lookaside.balancers.none_failed",
            report,
            CALLS_MIN,
            "kill -9 of a greeter at the same time",
        ),
        moved_within(
            "lookaside.balancers.other_takes_over",
            events,
            at.first_killed,
            MOVED_LIMIT_S,
            "one SRV record: nobody else to ask before the first is back",
        ),
        last_list_serves(
            "lookaside.balancers.last_list_serves",
            report,
            events,
            (at.killed, at.started),
            ALONE_CALLS_MIN,
            "all backends of the list die too: that is fallback",
        ),
        all_served_within(
            "lookaside.balancers.back_and_heard",
            &[(late.clone(), first_call(events, &late))],
            at.published,
            SERVED_LIMIT_S,
            "balancers that stay away: their lists are all that knows of the new pod",
        ),
    ];
    found
}
