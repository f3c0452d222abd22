//! A pod hangs: its process is stopped, its kernel still acknowledges every packet. Nothing but a
//! keepalive ping that is not answered tells the client.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::phase;
use crate::{
    checks::{Hung, back_within, failures_within_sent, out_of_rotation},
    client::{Finished, What},
    error::LabError,
    report::{Distribution, PhaseReport},
    run::Run,
    stage::Stage,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const VICTIM: u8 = 2;
const HANG: Duration = Duration::from_secs(5);
const OUT_LIMIT_S: f64 = 3.0;
const BACK_LIMIT_S: f64 = 3.0;
const SLOT_S: f64 = 0.05;
const RATE: f64 = 500.0;
const FLAGS: [&str; 13] = [
    "--count",
    "0",
    "--rate",
    "500",
    "--timeout",
    "1s",
    "--keepalive-time",
    "1s",
    "--keepalive-timeout",
    "1s",
    "--allow-aggressive-keepalive",
    "--slots",
    "50ms",
];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open(run, &name, &[]).await?;
    stage.scale_up(&BACKENDS).await?;
    let client = stage.connected_client(&BACKENDS, &FLAGS).await?;
    sleep(Duration::from_secs(2)).await;

    let stopped = stage.hang(VICTIM)?;
    stage.say("stopped one of three with SIGSTOP");
    sleep(HANG).await;
    let resumed = stage.resume(VICTIM)?;
    stage.say("SIGCONT");
    sleep(Duration::from_secs_f64(BACK_LIMIT_S)).await;

    let finished = client.stop().await?;
    stage.fleet.all_alive()?;
    Ok(report(&stage, &finished, stopped, resumed))
}

fn report(stage: &Stage, finished: &Finished, stopped: f64, resumed: f64) -> PhaseReport {
    let (phase, report) = (phase("hang"), &finished.report);
    let address = stage.fleet.address(VICTIM).to_string();
    let dropped = finished.events.iter().filter(|event| event.unix_s >= stopped).find_map(
        |event| match &event.what {
            What::Disconnected { address: at, reason } if *at == address => {
                Some((event.unix_s, reason.clone()))
            }
            _ => None,
        },
    );
    let hung = Hung { stopped_unix_s: stopped, dropped, rate: RATE, backends: BACKENDS.len() };
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &[]);
    let end = report.started_unix_s + report.wall_s;
    let out = stopped + OUT_LIMIT_S;
    found.distributions = vec![
        Distribution::whole("all calls", report),
        Distribution::between(
            "from 3 s after SIGSTOP to SIGCONT",
            &report.slots,
            SLOT_S,
            out,
            resumed,
        ),
        Distribution::between("last second", &report.slots, SLOT_S, end - 1.0, end),
    ];
    found.figures.insert("hang_s", resumed - stopped);
    let no_keepalive = "no --keepalive-time: the kernel answers for the hung process, for minutes";
    found.checks = vec![
        out_of_rotation(
            "round-robin.hang.out_of_rotation",
            report,
            &hung,
            OUT_LIMIT_S,
            no_keepalive,
        ),
        failures_within_sent(
            "round-robin.hang.failures_within_sent",
            report,
            &hung,
            OUT_LIMIT_S,
            "--timeout 100us: calls to the healthy backends fail as well",
        ),
        back_within(
            "round-robin.hang.back_in_time",
            report,
            &stage.fleet.names(&[VICTIM]).concat(),
            resumed,
            SLOT_S,
            BACK_LIMIT_S,
            "SIGKILL instead of SIGCONT: it does not come back",
        ),
    ];
    found
}
