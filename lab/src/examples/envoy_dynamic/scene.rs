//! What each phase plays on: a stage with an API server, a balancer that watches it, and an Envoy
//! that knows the balancer's address and nothing else.

use std::sync::Arc;

use crate::{
    balancers::Balancers,
    envoy::{self, Envoy, Setup},
    error::LabError,
    examples::proxied::{BACKENDS, Sidecar},
    run::Run,
    stage::Stage,
};

/// The only one: what its loss costs is what is to be seen.
pub(super) const BALANCER: u8 = 1;
/// The balancer's own cluster in Envoy, by which it is asked.
const BALANCER_CLUSTER: &str = "cluster.balancer";
/// What the balancer says of calls in every phase: as in `envoy/sidecar-static.yaml`, but that
/// Envoy asks nobody's health, because the slice says who is ready.
const CALLS: &str = "    \
    retries: { max: 2, on: [unavailable] }
    outlier_detection:
      interval_s: 1
      base_ejection_time_s: 5
      max_ejection_percent: 75
      consecutive_5xx: 3
";

/// See the module's head.
pub(super) struct Scene {
    pub(super) sidecar: Sidecar,
    pub(super) balancers: Balancers,
}

impl Scene {
    /// Starts backends with `settings`, the balancer with `rules` in what it says by xDS (lines of
    /// YAML, four columns in), and Envoy.
    ///
    /// # Errors
    ///
    /// When something can't be started.
    pub(super) async fn open(
        run: Arc<Run>,
        phase: &str,
        settings: &[(&'static str, &str)],
        rules: &str,
    ) -> Result<Self, LabError> {
        let mut stage = Stage::open_with_api(run.clone(), phase, settings).await?;
        stage.scale_up(&BACKENDS).await?;
        let slices = stage.slices.as_ref().expect("the stage was opened with an API server");
        let block = stage.block.clone();
        let mut balancers = Balancers::new(run, phase, block, slices, &xds(&stage, rules))?;
        balancers.start(&[BALANCER]).await?;
        let envoy = start(&stage, &balancers).await?;
        stage.call_through(stage.block.sidecar(1));
        let stats = envoy.stats().await?;
        let others = |owner: &&str| *owner != BALANCER_CLUSTER;
        let cluster = stats.owners("membership_total").find(others).unwrap_or_default().to_owned();
        Ok(Self { sidecar: Sidecar { stage, envoy, cluster }, balancers })
    }

    /// Has the balancer say `rules` instead of those before.
    ///
    /// # Errors
    ///
    /// When its configuration can't be written.
    pub(super) fn say(&self, rules: &str) -> Result<(), LabError> {
        self.balancers.configure(&xds(&self.sidecar.stage, rules))
    }

    /// Fails when something that nobody ended has ended.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with its last log lines.
    pub(super) fn all_alive(&self) -> Result<(), LabError> {
        self.balancers.all_alive()?;
        self.sidecar.all_alive()
    }
}

/// The lines of the Service in the balancer's configuration.
fn xds(stage: &Stage, rules: &str) -> String {
    format!("  xds:\n    listen: {}\n{CALLS}{rules}", stage.block.sidecar(1))
}

async fn start(stage: &Stage, balancers: &Balancers) -> Result<Envoy, LabError> {
    let replacements = [
        envoy::admin(),
        envoy::balancer(balancers.address(BALANCER)),
        envoy::resolver(stage.dns.address()),
    ];
    let config = envoy::substitute(&envoy::SIDECAR_DYNAMIC, &replacements)?;
    let name = format!("{}-sidecar", stage.phase);
    let concurrency = stage.run.envoy_concurrency();
    let setup = Setup { name: &name, config: &config, concurrency };
    Envoy::start(&stage.run, setup).await
}
