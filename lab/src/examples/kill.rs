//! A pod crashes and its container restarts on the same address. Whoever knows the endpoints lists
//! it all the time, as in a cluster until the readiness probe has failed: the client has to see by
//! itself that it is gone. Examples in which the client picks play it on their own stages.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Phase;
use crate::{
    checks::{
        Dead, back_within, failures_within_open_streams, none_after_eof, only_unavailable_from,
    },
    client::{Client, Finished, What, first},
    error::LabError,
    report::{Distribution, PhaseReport, timeline::outage},
    stage::Stage,
};

pub(super) const BACKENDS: [u8; 3] = [1, 2, 3];
const VICTIM: u8 = 2;
const OUTAGE: Duration = Duration::from_millis(1500);
const BACK_LIMIT_S: f64 = 2.2;
const SLOT_S: f64 = 0.05;
pub(super) const ENV: [(&str, &str); 1] = [("GREETER_DELAY", "20ms")];
pub(super) const FLAGS: [&str; 6] = ["--count", "0", "--rate", "500", "--slots", "50ms"];

/// What the checks of one example are called.
pub(super) struct Ids {
    pub(super) only_unavailable: &'static str,
    pub(super) failures_within_open_streams: &'static str,
    pub(super) none_after_eof: &'static str,
    pub(super) back_in_time: &'static str,
}

/// Plays it on a stage with [`BACKENDS`] that run with [`ENV`]. `client` has a READY subchannel to
/// each and runs with [`FLAGS`]; `flags` are all of its flags.
pub(super) async fn play(
    stage: &mut Stage,
    client: Client,
    phase: &Phase,
    flags: &[&str],
    ids: Ids,
) -> Result<PhaseReport, LabError> {
    sleep(Duration::from_secs(2)).await;

    let back = Instant::now() + OUTAGE;
    let killed = stage.kill_9(VICTIM).await?;
    stage.say("killed one of three with SIGKILL");
    sleep_until(back).await;
    stage.fleet.start(&[VICTIM]).await?;
    let returned = stage.fleet.ready_unix_s(VICTIM);
    stage.say(&format!("it is back after {:.2} s", returned - killed));
    sleep(Duration::from_secs_f64(BACK_LIMIT_S + 1.0)).await;

    let finished = client.stop().await?;
    stage.fleet.all_alive()?;
    let mut found = PhaseReport::new(phase.name, phase.what, &finished.report).set(flags, &ENV);
    judge(&mut found, stage, &finished, (killed, returned), ids);
    Ok(found)
}

fn judge(
    found: &mut PhaseReport,
    stage: &Stage,
    finished: &Finished,
    (killed, returned): (f64, f64),
    ids: Ids,
) {
    let (report, events) = (&finished.report, &finished.events);
    let address = stage.fleet.address(VICTIM).to_string();
    let ended =
        |what: &What| matches!(what, What::Disconnected { address: at, .. } if *at == address);
    let eof_unix_s = first(events, killed, ended);
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::whole("all calls", report),
        Distribution::between("while it was away", &report.slots, SLOT_S, killed + 0.1, returned),
        Distribution::between("last second", &report.slots, SLOT_S, end - 1.0, end),
    ];
    found.timelines.push(outage(&address, killed, returned, events));
    found.figures.insert("outage_s", returned - killed);
    found.figures.insert("dead_left_s", report.failed_until_s(killed));
    if let Some(eof) = eof_unix_s {
        found.figures.insert("kill_to_eof_s", eof - killed);
    }
    let dead = Dead { address, eof_unix_s };
    let longer = "an outage of 10 s: the backoff has grown to 6.6 s (--backoff-max 1s repairs it)";
    found.checks = vec![
        only_unavailable_from(
            ids.only_unavailable,
            report,
            &dead,
            "--timeout 10ms: shorter than GREETER_DELAY, DEADLINE_EXCEEDED instead",
        ),
        failures_within_open_streams(
            ids.failures_within_open_streams,
            report,
            &dead,
            "--timeout 10ms: calls fail that no connection lost",
        ),
        none_after_eof(
            ids.none_after_eof,
            report,
            &dead,
            "a node that loses power: no EOF comes (keepalive is for that)",
        ),
        back_within(
            ids.back_in_time,
            report,
            &stage.fleet.names(&[VICTIM]).concat(),
            returned,
            SLOT_S,
            BACK_LIMIT_S,
            longer,
        ),
    ];
}
