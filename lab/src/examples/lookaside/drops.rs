//! The balancer's configuration sheds load: clients drop calls before they cost a backend anything.

use std::{sync::Arc, time::Duration};

use super::{
    phase,
    scene::{Scene, with_policy},
};
use crate::{
    checks::{dropped, reports_add_up},
    error::LabError,
    report::{Distribution, PhaseReport},
    run::Run,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const RULES: &str = "  drops:\n  - {category: lab, percent: 30}\n";
const TOKEN: &str = "drop-lab";
const PERCENT: f64 = 30.0;
const CALLS_MIN: u64 = 10_000;
const FLAGS: [&str; 6] = ["--count", "10500", "--rate", "1000", "--warmup", "5s"];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let phase = phase("drops");
    let mut scene = Scene::open(run, &name, &[], RULES).await?;
    scene.scale_up(&BACKENDS).await?;
    let client = scene.counting_client(&FLAGS).await?;
    let report = client.wait(Duration::from_secs(40)).await?.report;
    let started = report.attempts.as_ref().map_or(0, |attempts| attempts.started);
    let totals = scene.balancers.totals(started).await?;
    scene.all_alive()?;
    let flags = with_policy(&FLAGS);
    let mut found = PhaseReport::new(phase.name, phase.what, &report).set(&flags, &[]);
    found.distributions.push(Distribution::whole("what was not dropped", &report));
    found.figures.insert("client_stats_reports", totals.reports as f64);
    found.checks = vec![
        dropped(
            "lookaside.drops.share_and_token",
            &report,
            TOKEN,
            PERCENT,
            CALLS_MIN,
            "`percent: 35` in the balancers' configuration",
        ),
        reports_add_up(
            "lookaside.drops.reports_add_up",
            &report,
            &totals,
            CALLS_MIN,
            "GRPCLB_CLIENT_STATS_INTERVAL=0s: nobody is asked to report",
        ),
    ];
    Ok(found)
}
