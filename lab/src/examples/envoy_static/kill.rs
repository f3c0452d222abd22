//! A pod crashes and its container restarts on the same address. It stays in DNS; Envoy sees that
//! connections fail, sends the calls elsewhere, and ejects it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{phase, scene::Scene};
use crate::{
    checks::{back_within, lost_in_flight},
    client::Finished,
    error::LabError,
    report::{Distribution, PhaseReport},
    run::Run,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const VICTIM: u8 = 2;
const OUTAGE: Duration = Duration::from_millis(1500);
/// The ejection lasts 5 s from the third failed connection and is looked at each second; a health
/// check that passes ends it earlier.
const BACK_LIMIT_S: f64 = 6.0;
const SLOT_S: f64 = 0.05;
/// Its turn of 500 calls a second, for 100 ms: those that it had not answered when it died, of
/// which each takes 20 ms and what a busy machine adds.
const LOST_MAX: u64 = 17;
const ENV: [(&str, &str); 1] = [("GREETER_DELAY", "20ms")];
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "500", "--slots", "50ms"];

/// What Envoy counted.
struct Counts {
    retries: f64,
    ejections: f64,
}

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut scene = Scene::open(run, &name, &ENV, &BACKENDS).await?;
    let client = scene.stage.connected_client(&BACKENDS, &FLAGS).await?;
    sleep(Duration::from_secs(2)).await;

    let back = Instant::now() + OUTAGE;
    let killed = scene.stage.kill_9(VICTIM).await?;
    scene.stage.say("killed one of three with SIGKILL");
    sleep_until(back).await;
    scene.stage.fleet.start(&[VICTIM]).await?;
    let returned = scene.stage.fleet.ready_unix_s(VICTIM);
    scene.stage.say(&format!("it is back after {:.2} s", returned - killed));
    sleep(Duration::from_secs_f64(BACK_LIMIT_S + 1.0)).await;

    let finished = client.stop().await?;
    scene.all_alive()?;
    let counts = Counts {
        retries: scene.count("upstream_rq_retry").await?,
        ejections: scene.count("outlier_detection.ejections_enforced_total").await?,
    };
    Ok(report(&scene, &finished, killed, returned, &counts))
}

fn report(
    scene: &Scene,
    finished: &Finished,
    killed: f64,
    returned: f64,
    counts: &Counts,
) -> PhaseReport {
    let (phase, report) = (phase("kill"), &finished.report);
    let mut found = PhaseReport::new(phase.name, phase.what, report);
    found = found.set(&scene.stage.with_policy(&FLAGS), &ENV);
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::whole("all calls", report),
        Distribution::between("while it was away", &report.slots, SLOT_S, killed + 0.1, returned),
        Distribution::between("last second", &report.slots, SLOT_S, end - 1.0, end),
    ];
    found.figures.insert("outage_s", returned - killed);
    found.figures.insert("envoy_retries", counts.retries);
    found.figures.insert("envoy_ejections", counts.ejections);
    found.checks = vec![
        lost_in_flight(
            "envoy-static.kill.lost_in_flight",
            report,
            killed,
            LOST_MAX,
            "no retry_policy: each call that finds no connection fails, until the ejection",
        ),
        back_within(
            "envoy-static.kill.back_in_time",
            report,
            &scene.stage.fleet.names(&[VICTIM]).concat(),
            returned,
            SLOT_S,
            BACK_LIMIT_S,
            "base_ejection_time 30s and no health checks: Envoy's defaults",
        ),
        scene.nothing_deprecated("envoy-static.kill.nothing_deprecated"),
    ];
    found
}
