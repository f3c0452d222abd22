//! One of ten backends has half its speed, and three quarters of what the fleet can serve come as
//! calls. With equal weights that backend is overloaded and its line grows; with weights that
//! follow the load it gets half a share. Both are played, one after the other.

use std::{sync::Arc, time::Duration};

use super::{
    phase,
    scene::{Scene, with_policy},
};
use crate::{
    checks::{calm_shares, none_failed, tail_better},
    client::Report,
    error::LabError,
    report::{Distribution, PhaseReport},
    run::Run,
};

const BACKENDS: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const SLOW: u8 = 4;
/// 2 calls at once of 100 ms: 20 calls a second, the slow one 10. The whole fleet: 190.
const ENV: [(&str, &str); 4] = [
    ("GREETER_CAPACITY", "2"),
    ("GREETER_DELAY", "100ms"),
    ("GREETER_ORCA", "true"),
    ("GREETER_ORCA_OOB_MIN", "200ms"),
];
const SLOW_DELAY: &str = "200ms";
const RULES: &str = "  load_aware: {report_interval_s: 0.5, update_interval_s: 1, smoothing_s: 3, \
                     blackout_s: 2}\n";
/// 75 % of 190; the line of an overloaded backend grows, and no call is given up for that.
const FLAGS: [&str; 6] = ["--rate", "142", "--slots", "1s", "--timeout", "30s"];
/// 20 s: longer, and equal weights would be worse yet.
const EQUAL_CALLS: &str = "2840";
/// 30 s: answers of the line that grew before the weights were known are over in the last half.
const AWARE_CALLS: &str = "4260";
const CALLS_MIN: u64 = 4_200;
const TAIL_BETTER_MIN: f64 = 1.5;
const SWING_MAX: f64 = 0.1;

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let (_, equal) = half(run.clone(), &format!("{name}-equal"), "", EQUAL_CALLS).await?;
    let (parts, aware) = half(run, &name, RULES, AWARE_CALLS).await?;
    Ok(report(&equal, &parts, &aware))
}

/// One of the two runs, on a scene of its own; and what part each backend can serve.
async fn half(
    run: Arc<Run>,
    name: &str,
    rules: &str,
    calls: &str,
) -> Result<(Vec<(String, f64)>, Report), LabError> {
    let mut scene = Scene::open(run, name, &ENV, rules).await?;
    scene.stage.fleet.set(SLOW, "GREETER_DELAY", SLOW_DELAY);
    scene.scale_up(&BACKENDS).await?;
    let flags = [&FLAGS[..], &["--count", calls]].concat();
    let client = scene.client(&BACKENDS, &flags).await?;
    let finished = client.wait(Duration::from_secs(60)).await?;
    scene.all_alive()?;
    let part = |host: u8| if host == SLOW { 0.5 / 9.5 } else { 1.0 / 9.5 };
    let parts = BACKENDS.map(|host| (scene.stage.fleet.names(&[host]).concat(), part(host)));
    Ok((parts.to_vec(), finished.report))
}

fn report(equal: &Report, parts: &[(String, f64)], aware: &Report) -> PhaseReport {
    let phase = phase("load");
    let mut found = PhaseReport::new(phase.name, phase.what, aware).set(&with_policy(&FLAGS), &ENV);
    found.distributions = vec![
        Distribution::whole("equal weights", equal),
        Distribution::whole("weights that follow the load", aware),
    ];
    if let (Some(equal), Some(aware)) = (equal.latency_ms.p99, aware.latency_ms.p99) {
        found.figures.insert("p99_equal_ms", equal);
        found.figures.insert("p99_aware_ms", aware);
    }
    found.checks = vec![
        none_failed("lookaside.load.none_failed", aware, CALLS_MIN, "--timeout 100ms"),
        tail_better(
            "lookaside.load.tail",
            equal,
            aware,
            TAIL_BETTER_MIN,
            "a fleet of equals: there is nothing to be gained",
        ),
        calm_shares(
            "lookaside.load.no_swings",
            aware,
            parts,
            SWING_MAX,
            "smoothing_s: 0.01 and reports of 100 ms: weights follow the noise",
        ),
    ];
    found
}
