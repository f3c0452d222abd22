//! New versions roll out, one pod after the other, each on an address of its own. Their slice says
//! in turn `ready`, `terminating`, and nothing.

use std::{collections::VecDeque, sync::Arc, time::Duration};

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

const PODS: [u8; 3] = [1, 2, 3];
const FREE: [u8; 3] = [4, 5, 6];
const CALLS_MIN_EACH: u64 = 900;
const SLOT_S: f64 = 0.1;
/// From a pod's readiness to the next deletion.
const MIN_READY: Duration = Duration::from_millis(500);
const ENV: [(&str, &str); 1] = [("GREETER_DRAIN_DELAY", "500ms")];
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "1000", "--slots", "100ms"];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let restarts = run.restarts();
    let mut stage = Stage::open_with_api(run, &name, &ENV).await?;
    stage.scale_up(&PODS).await?;
    let client = stage.connected_client(&PODS, &FLAGS).await?;
    sleep(Duration::from_secs(1)).await;
    let (mut running, mut free) = (VecDeque::from(PODS), VecDeque::from(FREE));
    let mut gone: Vec<(u8, Deleted)> = Vec::new();
    for number in 1..=restarts {
        let old = running.pop_front().expect("three run");
        let new = free.pop_front().expect("three are free, and each that goes is put back");
        free.push_back(old);
        stage.say(&format!("restart {number} of {restarts}: replacing {old} by {new}"));
        let deleted = stage.delete(&[old]).await?[0];
        stage.scale_up(&[new]).await?;
        gone.retain(|(host, _)| *host != old && *host != new);
        gone.push((old, deleted));
        running.push_back(new);
        sleep(MIN_READY).await;
    }
    sleep(Duration::from_secs(1)).await;
    let finished = client.stop().await?;
    stage.fleet.all_alive()?;
    Ok(report(&stage, &finished, &gone, running.make_contiguous(), restarts))
}

fn report(
    stage: &Stage,
    finished: &Finished,
    gone: &[(u8, Deleted)],
    running: &[u8],
    restarts: u16,
) -> PhaseReport {
    let (phase, report) = (phase("rolling"), &finished.report);
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &ENV);
    let end = report.started_unix_s + report.wall_s;
    found.figures.insert("restarts", f64::from(restarts));
    found.distributions = vec![
        Distribution::whole("all calls", report),
        Distribution::between("last second", &report.slots, SLOT_S, end - 1.0, end),
    ];
    let name = |host: &u8| stage.fleet.names(&[*host]).concat();
    let gone: Vec<_> = gone.iter().map(|(host, deleted)| (name(host), *deleted)).collect();
    found.checks = vec![
        none_failed(
            "kubernetes.rolling.none_failed",
            report,
            CALLS_MIN_EACH * u64::from(restarts),
            "GREETER_DRAIN_GRACE=1ms with GREETER_DELAY=50ms, or kill -9 instead of SIGTERM",
        ),
        drained_cleanly(
            "kubernetes.rolling.drained",
            &gone,
            "terminationGracePeriodSeconds below drain delay + grace: SIGKILL ends the drain",
        ),
        replaced(
            "kubernetes.rolling.replaced",
            report,
            &gone,
            &stage.fleet.names(running),
            "--lb-policy pick_first: one new pod serves, not three",
        ),
    ];
    found
}
