//! Nothing happens: Envoy's turns are exact.

use std::time::Duration;

use super::{BACKENDS, EnvoyIds, Sidecar};
use crate::{
    checks::{exact_turns, none_failed},
    error::LabError,
    examples::Phase,
    report::{Distribution, PhaseReport},
};

const CALLS_MIN: u64 = 3_000;
const FLAGS: [&str; 6] = ["--count", "3500", "--rate", "700", "--warmup", "5s"];

/// What the checks of one example are called.
pub(in crate::examples) struct Ids {
    pub(in crate::examples) exact_turns: &'static str,
    pub(in crate::examples) none_failed: &'static str,
    pub(in crate::examples) envoy: EnvoyIds,
    /// What breaks the first.
    pub(in crate::examples) inexact: &'static str,
}

/// Plays it on a sidecar with [`BACKENDS`].
pub(in crate::examples) async fn play(
    sidecar: &Sidecar,
    phase: &Phase,
    ids: Ids,
) -> Result<PhaseReport, LabError> {
    let stage = &sidecar.stage;
    let lines = stage.original_lines(&["--count", "6", "--rate", "100", "--warmup", "5s"]).await?;
    let client = stage.client(&FLAGS).await?;
    let report = client.wait(Duration::from_secs(30)).await?.report;
    sidecar.all_alive()?;
    let calls = sidecar.value(&sidecar.envoy.stats().await?, "upstream_rq_total");
    let mut found = PhaseReport::new(phase.name, phase.what, &report);
    found = found.set(&stage.with_policy(&FLAGS), &[]);
    found.lines = lines;
    found.distributions.push(Distribution::whole("all calls", &report));
    found.figures.insert("envoy_calls", calls as f64);
    let backends = stage.fleet.names(&BACKENDS);
    found.checks = vec![
        exact_turns(ids.exact_turns, &report, &backends, CALLS_MIN, ids.inexact),
        none_failed(ids.none_failed, &report, CALLS_MIN, "--timeout 100us: shorter than a call"),
    ];
    found.checks.extend(sidecar.envoy_checks(ids.envoy).await?);
    Ok(found)
}
