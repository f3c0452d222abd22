//! Faults by configuration, as a mesh has them: the control plane's file says it, the route carries
//! it, Envoy's fault filter does it. Nothing is restarted and no listener is rebuilt.

use std::time::Duration;

use super::{Told, away::BUILT};
use crate::{
    checks::{Check, aborted_share, delayed, none_failed, nothing_rebuilt},
    client::Report,
    envoy::Stats,
    error::LabError,
    examples::{Phase, proxied::EnvoyIds},
    faults::CallFault,
    report::{Distribution, PhaseReport},
};

const ABORTED: &str = "ABORTED";
/// Of 8,000 calls half are aborted to within 0.56 percentage points in two of three runs; two
/// points are missed in one of 3,000.
const SHARE: (f64, f64) = (0.5, 0.02);
const CALLS_MIN: u64 = 8_000;
const DELAY_MS: f64 = 100.0;
/// Beyond the control plane's own bound: our balancer looks at its file each second.
const HEARD_MARGIN: Duration = Duration::from_secs(4);
const MANY: [&str; 6] = ["--count", "8000", "--rate", "1000", "--warmup", "5s"];
const FEW: [&str; 6] = ["--count", "300", "--rate", "200", "--warmup", "5s"];
const FEW_MIN: u64 = 300;

/// What the checks of one example are called.
pub(in crate::examples) struct Ids {
    pub(in crate::examples) half_aborted: &'static str,
    pub(in crate::examples) delayed: &'static str,
    pub(in crate::examples) none_failed_without: &'static str,
    pub(in crate::examples) nothing_rebuilt: &'static str,
    pub(in crate::examples) envoy: EnvoyIds,
}

/// Plays it on a scene whose control plane says [`CallFault::Abort`].
pub(in crate::examples) async fn play(
    scene: &Told,
    phase: &Phase,
    ids: Ids,
) -> Result<PhaseReport, LabError> {
    let before = scene.sidecar.envoy.stats().await?;
    let aborted = calls(scene, &MANY).await?;

    change(scene, CallFault::Delay, "delaying all calls by 100 ms").await?;
    let slow = calls(scene, &FEW).await?;

    change(scene, CallFault::None, "no fault any more").await?;
    let healthy = calls(scene, &FEW).await?;

    scene.all_alive()?;
    let after = scene.sidecar.envoy.stats().await?;
    let value = |stats: &Stats, name| stats.get(name).unwrap_or_default();
    let built = BUILT.map(|name| (name, value(&before, name), value(&after, name)));
    let mut found = PhaseReport::new(phase.name, phase.what, &aborted);
    found = found.set(&scene.sidecar.stage.with_policy(&MANY), &[]);
    found.distributions = vec![
        Distribution::whole("50 % aborted", &aborted),
        Distribution::whole("all delayed by 100 ms", &slow),
        Distribution::whole("neither", &healthy),
    ];
    found.checks = judge([&aborted, &slow, &healthy], &built, &ids);
    found.checks.extend(scene.sidecar.envoy_checks(ids.envoy).await?);
    Ok(found)
}

async fn calls(scene: &Told, flags: &[&str]) -> Result<Report, LabError> {
    let client = scene.sidecar.stage.client(flags).await?;
    Ok(client.wait(Duration::from_secs(60)).await?.report)
}

/// Has `fault` said and waits until Envoy has a new route. If none comes, the checks will say so.
async fn change(scene: &Told, fault: CallFault, what: &str) -> Result<(), LabError> {
    let reloads = scene.sidecar.envoy.stats().await?.sum("config_reload");
    scene.sidecar.stage.say(what);
    scene.say(fault)?;
    let reloaded = |stats: &Stats| stats.sum("config_reload") > reloads;
    let limit = Duration::from_secs_f64(scene.limit_s()) + HEARD_MARGIN;
    let heard = scene.sidecar.envoy.until("config_reload", reloaded, limit).await?;
    if heard.is_none() {
        scene
            .sidecar
            .stage
            .say(&format!("Envoy heard nothing for {} s; going on", limit.as_secs()));
    }
    Ok(())
}

fn judge(
    [aborted, slow, healthy]: [&Report; 3],
    built: &[(&'static str, u64, u64)],
    ids: &Ids,
) -> Vec<Check> {
    vec![
        aborted_share(
            ids.half_aborted,
            aborted,
            SHARE,
            ABORTED,
            CALLS_MIN,
            "`percent: 60` in the control plane's file",
        ),
        delayed(
            ids.delayed,
            healthy,
            slow,
            DELAY_MS,
            "`percent: 10` in the control plane's file: the median call does not wait",
        ),
        none_failed(
            ids.none_failed_without,
            healthy,
            FEW_MIN,
            "an `abort` that is left in the control plane's file",
        ),
        nothing_rebuilt(
            ids.nothing_rebuilt,
            built,
            "the fault in the listener's filter instead of the route: each change rebuilds it",
        ),
    ]
}
