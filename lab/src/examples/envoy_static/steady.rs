//! Nothing happens: Envoy's turns are exact.

use std::{sync::Arc, time::Duration};

use super::{phase, scene::Scene};
use crate::{
    checks::{exact_turns, none_failed},
    error::LabError,
    report::{Distribution, PhaseReport},
    run::Run,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const CALLS_MIN: u64 = 3_000;
const FLAGS: [&str; 6] = ["--count", "3500", "--rate", "700", "--warmup", "5s"];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let scene = Scene::open(run, &name, &[], &BACKENDS).await?;
    let stage = &scene.stage;
    let lines = stage.original_lines(&["--count", "6", "--rate", "100", "--warmup", "5s"]).await?;
    let client = stage.client(&FLAGS).await?;
    let report = client.wait(Duration::from_secs(30)).await?.report;
    scene.all_alive()?;
    let phase = phase("steady");
    let mut found = PhaseReport::new(phase.name, phase.what, &report);
    found = found.set(&stage.with_policy(&FLAGS), &[]);
    found.lines = lines;
    found.distributions.push(Distribution::whole("all calls", &report));
    found.figures.insert("envoy_calls", scene.count("upstream_rq_total").await?);
    found.checks = vec![
        exact_turns(
            "envoy-static.steady.exact_turns",
            &report,
            &stage.fleet.names(&BACKENDS),
            CALLS_MIN,
            "lb_policy LEAST_REQUEST, or --envoy-concurrency 4 and many clients",
        ),
        none_failed(
            "envoy-static.steady.none_failed",
            &report,
            CALLS_MIN,
            "--timeout 100us: shorter than a call",
        ),
        scene.nothing_deprecated("envoy-static.steady.nothing_deprecated"),
    ];
    Ok(found)
}
