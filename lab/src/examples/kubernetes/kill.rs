//! A pod crashes and its container restarts on the same address. Its slice calls it ready all the
//! time, as it does in a cluster until the readiness probe has failed.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::phase;
use crate::{
    checks::{
        Dead, back_within, failures_within_open_streams, none_after_eof, only_unavailable_from,
    },
    client::{Finished, What, first},
    error::LabError,
    report::{Distribution, PhaseReport, timeline::outage},
    run::Run,
    stage::Stage,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const VICTIM: u8 = 2;
const OUTAGE: Duration = Duration::from_millis(1500);
const BACK_LIMIT_S: f64 = 2.2;
const SLOT_S: f64 = 0.05;
const ENV: [(&str, &str); 1] = [("GREETER_DELAY", "20ms")];
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "500", "--slots", "50ms"];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open_with_api(run, &name, &ENV).await?;
    stage.scale_up(&BACKENDS).await?;
    let client = stage.connected_client(&BACKENDS, &FLAGS).await?;
    sleep(Duration::from_secs(2)).await;

    let back = Instant::now() + OUTAGE;
    let killed = stage.kill_9(VICTIM).await?;
    stage.say("killed one of three with SIGKILL");
    sleep_until(back).await;
    stage.fleet.start(&[VICTIM]).await?;
    let returned = stage.fleet.ready_unix_s(VICTIM);
    sleep(Duration::from_secs_f64(BACK_LIMIT_S + 1.0)).await;

    let finished = client.stop().await?;
    stage.fleet.all_alive()?;
    Ok(report(&stage, &finished, killed, returned))
}

fn report(stage: &Stage, finished: &Finished, killed: f64, returned: f64) -> PhaseReport {
    let (phase, report, events) = (phase("kill"), &finished.report, &finished.events);
    let address = stage.fleet.address(VICTIM).to_string();
    let ended =
        |what: &What| matches!(what, What::Disconnected { address: at, .. } if *at == address);
    let eof_unix_s = first(events, killed, ended);
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &ENV);
    found.distributions = vec![Distribution::whole("all calls", report)];
    found.timelines.push(outage(&address, killed, returned, events));
    found.figures.insert("outage_s", returned - killed);
    let dead = Dead { address, eof_unix_s };
    found.checks = vec![
        only_unavailable_from(
            "kubernetes.kill.only_unavailable",
            report,
            &dead,
            "--timeout 10ms: shorter than GREETER_DELAY, DEADLINE_EXCEEDED instead",
        ),
        failures_within_open_streams(
            "kubernetes.kill.failures_within_open_streams",
            report,
            &dead,
            "--timeout 10ms: calls fail that no connection lost",
        ),
        none_after_eof(
            "kubernetes.kill.none_after_eof",
            report,
            &dead,
            "a node that loses power: no EOF comes (keepalive is for that)",
        ),
        back_within(
            "kubernetes.kill.back_in_time",
            report,
            &stage.fleet.names(&[VICTIM]).concat(),
            returned,
            SLOT_S,
            BACK_LIMIT_S,
            "an outage of 10 s: the backoff has grown to 6.6 s (--backoff-max 1s repairs it)",
        ),
    ];
    found
}
