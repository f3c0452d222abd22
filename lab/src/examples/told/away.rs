//! The control plane dies and stays away for half a minute. Calls go on by the last configuration;
//! when it is back it says the same again, and Envoy has nothing to rebuild.

use std::time::Duration;

use tokio::time::sleep;

use super::Told;
use crate::{
    checks::{Check, all_served_within, none_failed, nothing_rebuilt},
    client::{Event, Finished, What, first},
    clock::unix_s,
    envoy::Stats,
    error::LabError,
    examples::{
        Phase,
        proxied::{BACKENDS, EnvoyIds},
    },
    report::{Distribution, PhaseReport},
};

const LATE: u8 = 4;
const AWAY: Duration = Duration::from_secs(30);
/// Of more than 30 s at 100 calls a second, on a busy machine.
const CALLS_MIN: u64 = 3_000;
/// Envoy's wait between two tries is 5 s at most, with the jitter that it adds.
const BACK_LIMIT: Duration = Duration::from_secs(15);
/// In which something that was rebuilt by the balancer's return would have been.
const QUIET: Duration = Duration::from_secs(2);
const SLOT_S: f64 = 0.1;
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "100", "--slots", "100ms"];
/// Envoy's gauge: 1 while it has a stream to the control plane.
const CONNECTED: &str = "control_plane.connected_state";
/// Envoy's counters of what it builds.
pub(super) const BUILT: [&str; 8] = [
    "listener_manager.listener_added",
    "listener_manager.listener_create_success",
    "listener_manager.listener_modified",
    "listener_manager.listener_removed",
    "cluster_manager.cluster_added",
    "cluster_manager.cluster_modified",
    "cluster_manager.cluster_removed",
    "cluster_manager.cluster_updated",
];

/// The moments between which the parts of this phase lie.
struct Moments {
    killed: f64,
    started: f64,
    /// Envoy has a stream again.
    asked: Option<f64>,
    published: f64,
}

/// What the checks of one example are called.
pub(in crate::examples) struct Ids {
    pub(in crate::examples) none_failed: &'static str,
    pub(in crate::examples) nothing_rebuilt: &'static str,
    pub(in crate::examples) back_and_heard: &'static str,
    pub(in crate::examples) envoy: EnvoyIds,
}

/// Plays it on a scene with [`BACKENDS`].
pub(in crate::examples) async fn play(
    scene: &mut Told,
    phase: &Phase,
    ids: Ids,
) -> Result<PhaseReport, LabError> {
    let client = scene.sidecar.stage.connected_client(&BACKENDS, &FLAGS).await?;
    sleep(Duration::from_secs(1)).await;
    let before = scene.sidecar.envoy.stats().await?;

    let killed = scene.kill_plane().await?;
    scene.sidecar.stage.say("killed the control plane: there is none");
    sleep(AWAY).await;
    let started = unix_s();
    scene.start_plane().await?;
    let connected = |stats: &Stats| stats.get(CONNECTED) == Some(1);
    let asked = scene.sidecar.envoy.until("control_plane", connected, BACK_LIMIT).await?;
    let back = if asked.is_some() { "it is back, and asked" } else { "nobody asks it" };
    scene.sidecar.stage.say(back);
    sleep(QUIET).await;
    let after = scene.sidecar.envoy.stats().await?;

    let published = scene.sidecar.stage.scale_up(&[LATE]).await?;
    let late = scene.sidecar.stage.fleet.names(&[LATE]).concat();
    let limit = Duration::from_secs_f64(scene.limit_s() + 4.0);
    client.until(limit, |events| first_call(events, &late).is_some()).await?;
    sleep(Duration::from_millis(500)).await;

    let finished = client.stop().await?;
    scene.all_alive()?;
    let at = Moments { killed, started, asked, published };
    let built = counters(&before, &after, "config_reload");
    let mut found = report(scene, phase, &finished, &at);
    found.checks = judge(scene, &finished, &at, &built, &ids);
    found.checks.extend(scene.sidecar.envoy_checks(ids.envoy).await?);
    Ok(found)
}

/// [`BUILT`] and the sum of `routes` at two moments.
fn counters(before: &Stats, after: &Stats, routes: &'static str) -> Vec<(&'static str, u64, u64)> {
    let value = |stats: &Stats, name| stats.get(name).unwrap_or_default();
    let built = BUILT.map(|name| (name, value(before, name), value(after, name)));
    let routes = (routes, before.sum(routes), after.sum(routes));
    built.into_iter().chain([routes]).collect()
}

/// When `backend` answered for the first time.
fn first_call(events: &[Event], backend: &str) -> Option<f64> {
    first(events, 0.0, |what| matches!(what, What::FirstCall { backend: name } if name == backend))
}

fn report(scene: &Told, phase: &Phase, finished: &Finished, at: &Moments) -> PhaseReport {
    let report = &finished.report;
    let mut found = PhaseReport::new(phase.name, phase.what, report);
    found = found.set(&scene.sidecar.stage.with_policy(&FLAGS), &[]);
    found.distributions = vec![
        Distribution::between("no control plane", &report.slots, SLOT_S, at.killed, at.started),
        Distribution::whole("all calls", report),
    ];
    found.figures.insert("away_s", at.started - at.killed);
    if let Some(asked) = at.asked {
        found.figures.insert("asked_again_s", asked - at.started);
    }
    found
}

fn judge(
    scene: &Told,
    finished: &Finished,
    at: &Moments,
    built: &[(&'static str, u64, u64)],
    ids: &Ids,
) -> Vec<Check> {
    let late = scene.sidecar.stage.fleet.names(&[LATE]).concat();
    let heard = first_call(&finished.events, &late);
    vec![
        none_failed(
            ids.none_failed,
            &finished.report,
            CALLS_MIN,
            "kill -9 of a greeter at the same time",
        ),
        nothing_rebuilt(
            ids.nothing_rebuilt,
            built,
            "versions that count instead of naming the content: every start sends all anew",
        ),
        all_served_within(
            ids.back_and_heard,
            &[(late, heard)],
            at.published,
            scene.limit_s(),
            "a control plane that stays away: only it knows of the new pod",
        ),
    ]
}
