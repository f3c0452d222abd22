//! What each phase plays on: a stage with backends in DNS, and one Envoy that its client calls.

use std::sync::Arc;

use crate::{
    blocks::BACKEND_PORT,
    checks::{Check, nothing_deprecated},
    dns,
    envoy::{self, Envoy, Setup},
    error::LabError,
    run::Run,
    stage::Stage,
};

/// The cluster's name in the file.
pub(super) const CLUSTER: &str = "cluster.greeter";
/// What the lab puts into the file to try the other policy.
pub(super) const LEAST_REQUEST: (&str, &str) =
    ("lb_policy: ROUND_ROBIN", "lb_policy: LEAST_REQUEST");

/// See the module's head.
pub(super) struct Scene {
    pub(super) stage: Stage,
    pub(super) envoy: Envoy,
}

impl Scene {
    /// Starts the backends `hosts` with `settings`, and then Envoy, which knows them from its
    /// start.
    ///
    /// # Errors
    ///
    /// When something can't be started.
    pub(super) async fn open(
        run: Arc<Run>,
        phase: &str,
        settings: &[(&'static str, &str)],
        hosts: &[u8],
    ) -> Result<Self, LabError> {
        let mut stage = Stage::open(run, phase, settings).await?;
        stage.scale_up(hosts).await?;
        let envoy = start(&stage, "sidecar", 1, None).await?;
        stage.call_through(stage.block.sidecar(1));
        Ok(Self { stage, envoy })
    }

    /// Fails when something that nobody ended has ended.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with its last log lines.
    pub(super) fn all_alive(&self) -> Result<(), LabError> {
        self.envoy.alive()?;
        self.stage.fleet.all_alive()
    }

    /// That nothing in the file is deprecated.
    pub(super) fn nothing_deprecated(&self, id: &'static str) -> Check {
        let breaks = "`type: STRICT_DNS` instead of the extension envoy.clusters.dns";
        nothing_deprecated(id, self.envoy.deprecation().as_deref(), breaks)
    }

    /// A counter of the cluster.
    ///
    /// # Errors
    ///
    /// When Envoy does not answer.
    pub(super) async fn count(&self, name: &str) -> Result<f64, LabError> {
        let stats = self.envoy.stats().await?;
        Ok(stats.get(&format!("{CLUSTER}.{name}")).unwrap_or_default() as f64)
    }
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
    let mut replacements = vec![
        envoy::admin(),
        envoy::listener(stage.block.sidecar(number)),
        envoy::backends(dns::SERVICE, BACKEND_PORT),
        envoy::resolver(stage.dns.address()),
    ];
    replacements.extend(change.map(|(piece, by)| (piece, by.to_owned())));
    let config = envoy::substitute(&envoy::SIDECAR_STATIC, &replacements)?;
    let name = format!("{}-{name}", stage.phase);
    let concurrency = stage.run.envoy_concurrency();
    let setup = Setup { name: &name, config: &config, concurrency };
    Envoy::start(&stage.run, setup).await
}
