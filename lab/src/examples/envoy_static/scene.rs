//! What each phase plays on: a stage with backends in DNS, and one Envoy that its client calls.

use std::sync::Arc;

use crate::{
    blocks::BACKEND_PORT,
    dns,
    envoy::{self, Envoy, Setup},
    error::LabError,
    examples::proxied::Sidecar,
    run::Run,
    spans::EGRESS,
    stage::Stage,
};

/// The cluster in the file, as Envoy's statistics name it.
const CLUSTER: &str = "cluster.greeter";
/// What the lab puts into the file to try the other policy.
pub(super) const LEAST_REQUEST: (&str, &str) =
    ("lb_policy: ROUND_ROBIN", "lb_policy: LEAST_REQUEST");

/// Starts the backends `hosts` with `settings`, and then Envoy, which knows them from its start.
///
/// # Errors
///
/// When something can't be started.
pub(in crate::examples) async fn open(
    run: Arc<Run>,
    phase: &str,
    settings: &[(&'static str, &str)],
    hosts: &[u8],
) -> Result<Sidecar, LabError> {
    let mut stage = Stage::open(run, phase, settings).await?;
    stage.scale_up(hosts).await?;
    let envoy = start(&stage, "sidecar", 1, None).await?;
    Ok(call_through(stage, envoy, 1))
}

/// The stage whose client calls sidecar `number`, which is `envoy`.
pub(super) fn call_through(mut stage: Stage, envoy: Envoy, number: u8) -> Sidecar {
    stage.call_through(stage.block.sidecar(number));
    Sidecar { stage, envoy, cluster: CLUSTER.to_owned(), is_ours: true }
}

/// Starts Envoy number `number` of a stage with the file of this example, and `change` in it.
///
/// # Errors
///
/// When it can't be started.
pub(crate) async fn start(
    stage: &Stage,
    name: &str,
    number: u8,
    change: Option<(&'static str, &str)>,
) -> Result<Envoy, LabError> {
    start_with(stage, name, number, change, stage.run.envoy_concurrency()).await
}

/// The same with so many worker threads.
///
/// # Errors
///
/// When it can't be started.
pub(super) async fn start_with(
    stage: &Stage,
    name: &str,
    number: u8,
    change: Option<(&'static str, &str)>,
    workers: u16,
) -> Result<Envoy, LabError> {
    let mut replacements = vec![
        envoy::admin(),
        envoy::listener(stage.block.sidecar(number)),
        envoy::backends(dns::SERVICE, BACKEND_PORT),
        envoy::resolver(stage.dns.address()),
    ];
    if let Some(spans) = &stage.spans {
        replacements.extend(envoy::traced(spans.address()));
        replacements.push(envoy::tracer());
        spans.expect_envoy(EGRESS);
    }
    replacements.extend(change.map(|(piece, by)| (piece, by.to_owned())));
    let config = envoy::substitute(&envoy::SIDECAR_STATIC, &replacements)?;
    let name = format!("{}-{name}", stage.phase);
    let setup = Setup { name: &name, config: &config, concurrency: workers };
    Envoy::start(&stage.run, setup).await
}
