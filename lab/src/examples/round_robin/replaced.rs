//! Everything is replaced at once, as a change of the Service's selector does it (blue to green):
//! no address of the old list is in the new one. The old pods drain for longer than the TTL, so
//! that clients learn of the new ones while the old ones still serve.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::phase;
use crate::{
    checks::{drained_cleanly, none_failed, replaced},
    client::Finished,
    error::LabError,
    faults::Deleted,
    report::{Distribution, PhaseReport},
    run::Run,
    stage::Stage,
};

const OLD: [u8; 3] = [1, 2, 3];
const NEW: [u8; 3] = [4, 5, 6];
const CALLS_MIN: u64 = 10_000;
const SLOT_S: f64 = 0.1;
/// The TTL of 5 s, its jitter, and the time to connect.
const ENV: [(&str, &str); 1] = [("GREETER_DRAIN_DELAY", "7s")];
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "1000", "--slots", "100ms"];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open(run, &name, &ENV).await?;
    stage.scale_up(&OLD).await?;
    let client = stage.connected_client(&OLD, &FLAGS).await?;
    sleep(Duration::from_secs(1)).await;
    stage.say("replacing all three at once");
    stage.fleet.start(&NEW).await?;
    let deleted = stage.replace(&OLD, &NEW).await?;
    sleep(Duration::from_secs(3)).await;
    let finished = client.stop().await?;
    stage.fleet.all_alive()?;
    Ok(report(&stage, &finished, deleted))
}

fn report(stage: &Stage, finished: &Finished, deleted: Vec<Deleted>) -> PhaseReport {
    let (phase, report) = (phase("replaced"), &finished.report);
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &ENV);
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::whole("all calls", report),
        Distribution::between("last second", &report.slots, SLOT_S, end - 1.0, end),
    ];
    let old: Vec<(String, Deleted)> = stage.fleet.names(&OLD).into_iter().zip(deleted).collect();
    let new = stage.fleet.names(&NEW);
    found.checks = vec![
        none_failed(
            "round-robin.replaced.none_failed",
            report,
            CALLS_MIN,
            "GREETER_DRAIN_DELAY=0s: the old pods are gone before anybody looked at DNS",
        ),
        drained_cleanly(
            "round-robin.replaced.drained",
            &old,
            "terminationGracePeriodSeconds below drain delay + grace: SIGKILL ends the drain",
        ),
        replaced(
            "round-robin.replaced.new_serve",
            report,
            &old,
            &new,
            "--lb-policy pick_first: one new pod serves, not three",
        ),
    ];
    found
}
