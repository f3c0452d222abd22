//! Nothing happens: the shares are exact, and the balancers know of every call.

use std::{sync::Arc, time::Duration};

use super::{
    phase,
    scene::{Scene, with_policy},
};
use crate::{
    checks::{even_shares, none_failed, reports_add_up},
    error::LabError,
    report::{Distribution, PhaseReport},
    run::Run,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const CALLS_MIN: u64 = 3_000;
const FLAGS: [&str; 6] = ["--count", "3500", "--rate", "700", "--warmup", "5s"];
const LINES: [&str; 6] = ["--count", "6", "--rate", "100", "--warmup", "5s"];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let phase = phase("steady");
    let mut scene = Scene::open(run, &name, &[], "").await?;
    scene.scale_up(&BACKENDS).await?;
    let client = scene.counting_client(&FLAGS).await?;
    let report = client.wait(Duration::from_secs(30)).await?.report;
    let started = report.attempts.as_ref().map_or(0, |attempts| attempts.started);
    let totals = scene.balancers.totals(started).await?;
    // After the counts: these calls are the balancers' too.
    let lines = scene.stage.original_lines(&with_policy(&LINES)).await?;
    scene.all_alive()?;
    let flags = with_policy(&FLAGS);
    let mut found = PhaseReport::new(phase.name, phase.what, &report).set(&flags, &[]);
    found.lines = lines;
    found.distributions.push(Distribution::whole("all calls", &report));
    found.figures.insert("client_stats_reports", totals.reports as f64);
    let backends = scene.stage.fleet.names(&BACKENDS);
    found.checks = vec![
        even_shares(
            "lookaside.steady.even_shares",
            &report,
            &backends,
            CALLS_MIN,
            "`weights: {127.x.y.1: 2}` of the service in the balancers' configuration",
        ),
        none_failed(
            "lookaside.steady.none_failed",
            &report,
            CALLS_MIN,
            "--timeout 100us: shorter than a call",
        ),
        reports_add_up(
            "lookaside.steady.reports_add_up",
            &report,
            &totals,
            CALLS_MIN,
            "GRPCLB_CLIENT_STATS_INTERVAL=0s: nobody is asked to report",
        ),
    ];
    Ok(found)
}
