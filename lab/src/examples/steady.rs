//! Nothing happens, to clients that know all backends by themselves: the shares are exact. Examples
//! that differ only in how the client learns of the backends play it on their own stages.

use std::time::Duration;

use super::Phase;
use crate::{
    checks::{even_shares, none_failed},
    error::LabError,
    report::{Distribution, PhaseReport},
    stage::Stage,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const CALLS_MIN: u64 = 3_000;
const FLAGS: [&str; 6] = ["--count", "3500", "--rate", "700", "--warmup", "5s"];

/// What the checks of one example are called.
pub(super) struct Ids {
    pub(super) even_shares: &'static str,
    pub(super) none_failed: &'static str,
    /// What breaks the first.
    pub(super) uneven: &'static str,
}

pub(super) async fn play(
    mut stage: Stage,
    phase: &Phase,
    ids: Ids,
) -> Result<PhaseReport, LabError> {
    stage.scale_up(&BACKENDS).await?;
    let lines = stage.original_lines(&["--count", "6", "--rate", "100", "--warmup", "5s"]).await?;
    let client = stage.client(&FLAGS).await?;
    let report = client.wait(Duration::from_secs(30)).await?.report;
    stage.fleet.all_alive()?;
    let mut found = PhaseReport::new(phase.name, phase.what, &report);
    found = found.set(&stage.with_policy(&FLAGS), &[]);
    found.lines = lines;
    found.distributions.push(Distribution::whole("all calls", &report));
    let backends = stage.fleet.names(&BACKENDS);
    found.checks = vec![
        even_shares(ids.even_shares, &report, &backends, CALLS_MIN, ids.uneven),
        none_failed(ids.none_failed, &report, CALLS_MIN, "--timeout 100us: shorter than a call"),
    ];
    Ok(found)
}
