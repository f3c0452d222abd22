//! Pods come and go, and no TTL lies between: the balancer's watch and its stream bring the news.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    phase,
    scene::{Scene, with_policy},
};
use crate::{
    checks::{all_served_within, none_failed, only_left_serves},
    client::{Client, Event, Finished, What, first},
    clock::unix_s,
    error::LabError,
    report::{Distribution, PhaseReport, timeline::scale_up_by_list},
    run::Run,
};

const OLD: [u8; 3] = [1, 2, 3];
const LEFT: u8 = 1;
const REMOVED: [u8; 2] = [2, 3];
const NEW: [u8; 3] = [4, 5, 6];
const CALLS_MIN: u64 = 1_000;
const SLOT_S: f64 = 0.1;
const LIMIT_S: f64 = 1.0;
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "200", "--slots", "100ms"];

/// The moments between which the parts of this phase lie.
struct Moments {
    began: f64,
    deleted: f64,
    gone: f64,
    published: f64,
    all_serve: f64,
}

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut scene = Scene::open(run, &name, &[], "").await?;
    scene.scale_up(&OLD).await?;
    let client = scene.client(&OLD, &FLAGS).await?;
    let began = unix_s();
    sleep(Duration::from_secs(2)).await;

    scene.stage.say("scaling to 1");
    let deleted = unix_s();
    scene.delete(&REMOVED).await?;
    let gone = unix_s();
    sleep(Duration::from_secs(2)).await;

    scene.stage.say("scaling to 4");
    let published = scene.scale_up(&NEW).await?;
    wait_for_first_calls(&scene, &client).await?;
    let all_serve = unix_s();
    sleep(Duration::from_secs(2)).await;

    let finished = client.stop().await?;
    scene.all_alive()?;
    let moments = Moments { began, deleted, gone, published, all_serve };
    let lists = scene.balancers.lists_sent().await?;
    let mut found = report(&scene, &finished, &moments);
    found.figures.insert("lists_sent", lists as f64);
    Ok(found)
}

/// When `backend` answered for the first time.
pub(super) fn first_call(events: &[Event], backend: &str) -> Option<f64> {
    first(events, 0.0, |what| matches!(what, What::FirstCall { backend: name } if name == backend))
}

async fn wait_for_first_calls(scene: &Scene, client: &Client) -> Result<(), LabError> {
    let names = scene.stage.fleet.names(&NEW);
    let limit = Duration::from_secs_f64(LIMIT_S + 4.0);
    let called = |events: &[Event]| names.iter().all(|name| first_call(events, name).is_some());
    let all = client.until(limit, called).await?;
    scene.stage.say(if all { "all four serve" } else { "not all four serve after 5 s" });
    Ok(())
}

fn report(scene: &Scene, finished: &Finished, at: &Moments) -> PhaseReport {
    let (phase, report, events) = (phase("scale"), &finished.report, &finished.events);
    let fleet = &scene.stage.fleet;
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&with_policy(&FLAGS), &[]);
    let slots = &report.slots;
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::between("3 backends", slots, SLOT_S, at.began, at.deleted),
        Distribution::between("scaled to 1", slots, SLOT_S, at.gone + 0.25, at.published),
        Distribution::between("scaled to 4", slots, SLOT_S, at.all_serve, end),
    ];
    for (host, address) in NEW.iter().zip(fleet.addresses(&NEW)) {
        let ready = fleet.ready_unix_s(*host);
        found.timelines.push(scale_up_by_list(&address, ready, at.published, 4, events));
    }
    let new = fleet.names(&NEW).into_iter();
    let first_answers: Vec<_> = new.map(|name| (name.clone(), first_call(events, &name))).collect();
    let (removed, left) = (fleet.names(&REMOVED), fleet.names(&[LEFT]).concat());
    found.checks = vec![
        none_failed(
            "lookaside.scale.none_failed",
            report,
            CALLS_MIN,
            "kill -9 instead of SIGTERM, with GREETER_DELAY=20ms: calls in flight are lost",
        ),
        only_left_serves(
            "lookaside.scale.to_1_all_on_the_left",
            report,
            &left,
            &removed,
            at.deleted,
            at.published,
            "GREETER_DRAIN_DELAY=3s in a slice that does not say `terminating`",
        ),
        all_served_within(
            "lookaside.scale.to_4_within_1s",
            &first_answers,
            at.published,
            LIMIT_S,
            "--lb-policy round_robin: the DNS TTL of 5 s lies between",
        ),
    ];
    found
}
