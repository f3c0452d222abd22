//! Pods come and go. The client hears of each from the API server: there is no TTL to wait for, and
//! no moment that is worse than another.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::phase;
use crate::{
    checks::{all_served_within, none_failed, only_left_serves},
    client::{Event, Finished, What, first},
    clock::unix_s,
    error::LabError,
    report::{Distribution, PhaseReport, timeline::sliced},
    run::Run,
    stage::Stage,
};

const OLD: [u8; 3] = [1, 2, 3];
const LEFT: u8 = 1;
const REMOVED: [u8; 2] = [2, 3];
// New pods have new addresses.
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
}

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open_with_api(run, &name, &[]).await?;
    stage.scale_up(&OLD).await?;
    let client = stage.connected_client(&OLD, &FLAGS).await?;
    let began = unix_s();
    sleep(Duration::from_secs(2)).await;

    stage.say("scaling to 1");
    let deleted = unix_s();
    stage.delete(&REMOVED).await?;
    let gone = unix_s();
    sleep(Duration::from_secs(2)).await;

    stage.say("scaling to 4");
    let published = stage.scale_up(&NEW).await?;
    sleep(Duration::from_secs_f64(LIMIT_S + 2.0)).await;

    let finished = client.stop().await?;
    stage.fleet.all_alive()?;
    Ok(report(&stage, &finished, &Moments { began, deleted, gone, published }))
}

/// When each backend gave its first answer.
pub(super) fn first_answers(names: Vec<String>, events: &[Event]) -> Vec<(String, Option<f64>)> {
    let of = |name: String| {
        let is_first =
            |what: &What| matches!(what, What::FirstCall { backend } if *backend == name);
        let at = first(events, 0.0, is_first);
        (name, at)
    };
    names.into_iter().map(of).collect()
}

fn report(stage: &Stage, finished: &Finished, at: &Moments) -> PhaseReport {
    let (phase, report, events) = (phase("scale"), &finished.report, &finished.events);
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &[]);
    let (slots, end) = (&report.slots, report.started_unix_s + report.wall_s);
    found.distributions = vec![
        Distribution::between("3 backends", slots, SLOT_S, at.began, at.deleted),
        Distribution::between("scaled to 1", slots, SLOT_S, at.gone + 0.25, at.published),
        Distribution::between("scaled to 4", slots, SLOT_S, at.published + LIMIT_S, end),
    ];
    for (host, address) in NEW.iter().zip(stage.fleet.addresses(&NEW)) {
        let ready = stage.fleet.ready_unix_s(*host);
        let (published, why) = ((at.published, "EndpointSlice written"), "the watch's next event");
        found.timelines.push(sliced(&address, ready, published, why, events));
    }
    let four = stage.fleet.names(&[LEFT, NEW[0], NEW[1], NEW[2]]);
    found.checks = vec![
        none_failed(
            "kubernetes.scale.none_failed",
            report,
            CALLS_MIN,
            "kill -9 instead of SIGTERM, with GREETER_DELAY=20ms: calls in flight are lost",
        ),
        only_left_serves(
            "kubernetes.scale.to_1_all_on_the_left",
            report,
            &stage.fleet.names(&[LEFT]).concat(),
            &stage.fleet.names(&REMOVED),
            at.deleted,
            at.published,
            "--target ipv4:… and GREETER_DRAIN_DELAY=3s: nobody says that they are about to go",
        ),
        all_served_within(
            "kubernetes.scale.to_4_within_1_s",
            &first_answers(four, events),
            at.published,
            LIMIT_S,
            "--target dns:///greeter.default:8000: the TTL comes first",
        ),
    ];
    found
}
