//! A new version rolls out: each pod is deleted and replaced by one with another address.
//!
//! There is no surge pod and `minReadySeconds` is 3, so the client sees two of three most of the
//! time; it must find each new pod by itself before the last old one goes.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::phase;
use crate::{
    checks::{drained_cleanly, none_failed, replaced},
    client::Finished,
    error::LabError,
    faults::Deleted,
    report::{Distribution, PhaseReport, timeline::scale_up},
    run::Run,
    stage::Stage,
};

const OLD: [u8; 3] = [1, 2, 3];
const NEW: [u8; 3] = [4, 5, 6];
const CALLS_MIN: u64 = 20_000;
const SLOT_S: f64 = 0.1;
const MIN_READY: Duration = Duration::from_secs(3);
const ENV: [(&str, &str); 1] = [("GREETER_DRAIN_DELAY", "500ms")];
const FLAGS: [&str; 6] = ["--count", "20500", "--rate", "1000", "--slots", "100ms"];

/// One replacement.
struct Replaced {
    old: Deleted,
    new: u8,
    published: f64,
}

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open(run, &name, &ENV).await?;
    stage.scale_up(&OLD).await?;
    let client = stage.connected_client(&OLD, &FLAGS).await?;
    sleep(Duration::from_secs(1)).await;
    let mut done = Vec::new();
    for (old, new) in OLD.into_iter().zip(NEW) {
        stage.say(&format!("replacing {old} by {new}"));
        let deleted = stage.delete(&[old]).await?;
        let published = stage.scale_up(&[new]).await?;
        done.extend(deleted.into_iter().map(|old| Replaced { old, new, published }));
        sleep(MIN_READY).await;
    }
    let finished = client.wait(Duration::from_secs(60)).await?;
    stage.fleet.all_alive()?;
    Ok(report(&stage, &finished, &done))
}

fn report(stage: &Stage, finished: &Finished, done: &[Replaced]) -> PhaseReport {
    let (phase, report) = (phase("rolling"), &finished.report);
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &ENV);
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::whole("all calls", report),
        Distribution::between("last second", &report.slots, SLOT_S, end - 1.0, end),
    ];
    for step in done {
        let address = stage.fleet.address(step.new).to_string();
        let ready = stage.fleet.ready_unix_s(step.new);
        let timeline = scale_up(
            &address,
            ready,
            step.published,
            "as soon as it is ready",
            &stage.dns,
            &finished.events,
        );
        found.timelines.push(timeline);
    }
    let old: Vec<(String, Deleted)> =
        stage.fleet.names(&OLD).into_iter().zip(done.iter().map(|step| step.old)).collect();
    let new = stage.fleet.names(&NEW);
    found.checks = vec![
        none_failed(
            "round-robin.rolling.none_failed",
            report,
            CALLS_MIN,
            "GREETER_DRAIN_GRACE=1ms with GREETER_DELAY=50ms, or kill -9 instead of SIGTERM",
        ),
        drained_cleanly(
            "round-robin.rolling.drained",
            &old,
            "terminationGracePeriodSeconds below drain delay + grace: SIGKILL ends the drain",
        ),
        replaced(
            "round-robin.rolling.replaced",
            report,
            &old,
            &new,
            "--lb-policy pick_first: one new pod serves, not three",
        ),
    ];
    found
}
