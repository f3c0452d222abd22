//! Nothing happens: the shares are exact.

use std::{sync::Arc, time::Duration};

use super::phase;
use crate::{
    checks::{even_shares, none_failed},
    error::LabError,
    report::{Distribution, PhaseReport},
    run::Run,
    stage::Stage,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const CALLS_MIN: u64 = 3_000;
const FLAGS: [&str; 6] = ["--count", "3500", "--rate", "700", "--warmup", "5s"];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let phase = phase("steady");
    let mut stage = Stage::open_with_api(run, &name, &[]).await?;
    stage.scale_up(&BACKENDS).await?;
    let lines = stage.original_lines(&["--count", "6", "--rate", "100", "--warmup", "5s"]).await?;
    let client = stage.client(&FLAGS).await?;
    let report = client.wait(Duration::from_secs(30)).await?.report;
    stage.fleet.all_alive()?;
    let mut found = PhaseReport::new(phase.name, phase.what, &report).set(&FLAGS, &[]);
    found.lines = lines;
    found.distributions.push(Distribution::whole("all calls", &report));
    let backends = stage.fleet.names(&BACKENDS);
    found.checks = vec![
        even_shares(
            "kubernetes.steady.even_shares",
            &report,
            &backends,
            CALLS_MIN,
            "--lb-policy pick_first: one backend gets all",
        ),
        none_failed(
            "kubernetes.steady.none_failed",
            &report,
            CALLS_MIN,
            "--timeout 100us: shorter than a call",
        ),
    ];
    Ok(found)
}
