//! A pod crashes and its container restarts on the same address. Whoever tells Envoy of it does not
//! take it away meanwhile: Envoy sees that connections fail, sends the calls elsewhere, and ejects
//! it.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{BACKENDS, EnvoyIds, Sidecar};
use crate::{
    checks::{back_within, lost_in_flight},
    error::LabError,
    examples::Phase,
    report::{Distribution, PhaseReport},
};

const VICTIM: u8 = 2;
const OUTAGE: Duration = Duration::from_millis(1500);
/// The ejection lasts 5 s from the last of a few failed connections and is looked at each second; a
/// health check that passes ends it earlier.
const BACK_LIMIT_S: f64 = 6.0;
const SLOT_S: f64 = 0.05;
/// Its turn of 500 calls a second, for 100 ms: those that it had not answered when it died, of
/// which each takes 20 ms and what a busy machine adds.
const LOST_MAX: u64 = 17;
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "500", "--slots", "50ms"];
/// What the greeters of this phase run with.
pub(in crate::examples) const ENV: [(&str, &str); 1] = [("GREETER_DELAY", "20ms")];

/// What the checks of one example are called.
pub(in crate::examples) struct Ids {
    pub(in crate::examples) lost_in_flight: &'static str,
    pub(in crate::examples) back_in_time: &'static str,
    pub(in crate::examples) envoy: EnvoyIds,
    /// What breaks the second.
    pub(in crate::examples) away_for_longer: &'static str,
}

/// Plays it on a sidecar with [`BACKENDS`] that run with [`ENV`].
pub(in crate::examples) async fn play(
    sidecar: &mut Sidecar,
    phase: &Phase,
    ids: Ids,
) -> Result<PhaseReport, LabError> {
    let client = sidecar.stage.connected_client(&BACKENDS, &FLAGS).await?;
    sleep(Duration::from_secs(2)).await;

    let stage = &mut sidecar.stage;
    let back = Instant::now() + OUTAGE;
    let killed = stage.kill_9(VICTIM).await?;
    stage.say("killed one of three with SIGKILL");
    sleep_until(back).await;
    stage.fleet.start(&[VICTIM]).await?;
    let returned = stage.fleet.ready_unix_s(VICTIM);
    stage.say(&format!("it is back after {:.2} s", returned - killed));
    sleep(Duration::from_secs_f64(BACK_LIMIT_S + 1.0)).await;

    let report = client.stop().await?.report;
    sidecar.all_alive()?;
    let stats = sidecar.envoy.stats().await?;
    let count = |name| sidecar.value(&stats, name) as f64;
    let mut found = PhaseReport::new(phase.name, phase.what, &report);
    found = found.set(&sidecar.stage.with_policy(&FLAGS), &ENV);
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::whole("all calls", &report),
        Distribution::between("while it was away", &report.slots, SLOT_S, killed + 0.1, returned),
        Distribution::between("last second", &report.slots, SLOT_S, end - 1.0, end),
    ];
    found.figures.insert("outage_s", returned - killed);
    found.figures.insert("dead_left_s", report.failed_until_s(killed));
    found.figures.insert("envoy_retries", count("upstream_rq_retry"));
    found.figures.insert("envoy_ejections", count("outlier_detection.ejections_enforced_total"));
    found.checks = vec![
        lost_in_flight(
            ids.lost_in_flight,
            &report,
            killed,
            LOST_MAX,
            "no retries: each call that finds no connection fails, until the ejection",
        ),
        back_within(
            ids.back_in_time,
            &report,
            &sidecar.stage.fleet.names(&[VICTIM]).concat(),
            returned,
            SLOT_S,
            BACK_LIMIT_S,
            ids.away_for_longer,
        ),
    ];
    found.checks.extend(sidecar.envoy_checks(ids.envoy).await?);
    Ok(found)
}
