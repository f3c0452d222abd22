//! What examples have in common in which a control plane tells Envoy everything: a stage, a
//! balancer that watches its API server, and an Envoy that knows the balancer's address and nothing
//! else. Example 3 is that; example 4 has an Envoy before each backend, too.

use std::sync::Arc;

use super::proxied::Sidecar;
use crate::{
    balancers::Balancers,
    envoy::{self, Envoy, File, Replacement, Setup},
    error::LabError,
    faults::CallFault,
    fronts::Fronts,
    stage::Stage,
};

pub(super) mod away;
pub(super) mod fault;

/// The only one: what its loss costs is what is to be seen.
const BALANCER: u8 = 1;
/// In the name of the backends' cluster, whoever names it, and in no other cluster's.
const SERVICE: &str = "greeter";
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
pub(crate) struct Told {
    pub(crate) sidecar: Sidecar,
    balancers: Balancers,
    words: Words,
}

/// What the balancer's configuration says beside example 3's.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// Lines of the Service beside its `xds:`, two columns in.
    pub(super) service: String,
    /// Lines of the Service's `xds:`, four columns in.
    pub(super) xds: String,
    /// Lines of the file, after the services.
    pub(super) file: String,
    /// Replacements in the text of the client's Envoy, beside the lab's own.
    pub(super) bootstrap: Vec<Replacement>,
}

impl Told {
    /// Starts the balancer, which says `words` and `fault`, the backends `hosts`, and then Envoy
    /// with `file`. What stands before the backends, if something does, is `fronts`' business.
    ///
    /// # Errors
    ///
    /// When something can't be started.
    pub(super) async fn open(
        mut stage: Stage,
        file: &File,
        words: Words,
        fault: CallFault,
        (hosts, fronts): (&[u8], Option<MakeFronts>),
    ) -> Result<Self, LabError> {
        let slices = stage.slices.as_ref().expect("the stage was opened with an API server");
        let (run, block) = (Arc::clone(&stage.run), Arc::clone(&stage.block));
        let config = configuration(&stage, &words, fault);
        let mut balancers = Balancers::new(run, &stage.phase, block, slices, &config)?;
        balancers.start(&[BALANCER]).await?;
        if let Some(fronts) = fronts {
            let fronts = fronts(&stage, replacements(&stage, &balancers));
            stage.fleet.put_behind(fronts);
        }
        stage.scale_up(hosts).await?;
        let mut all = replacements(&stage, &balancers);
        all.extend(words.bootstrap.clone());
        let config = envoy::substitute(file, &all)?;
        let name = format!("{}-sidecar", stage.phase);
        let concurrency = stage.run.envoy_concurrency();
        let setup = Setup { name: &name, config: &config, concurrency };
        let envoy = Envoy::start(&stage.run, setup).await?;
        stage.call_through(stage.block.sidecar(1));
        let stats = envoy.stats().await?;
        let cluster = stats.owners("membership_total").find(|owner| owner.contains(SERVICE));
        let cluster = cluster.unwrap_or_default().to_owned();
        Ok(Self { sidecar: Sidecar { stage, envoy, cluster }, balancers, words })
    }

    /// Has the control plane say `fault` instead of the one before.
    ///
    /// # Errors
    ///
    /// When its configuration can't be written.
    pub(super) fn say(&self, fault: CallFault) -> Result<(), LabError> {
        let stage = &self.sidecar.stage;
        self.balancers.configure(&configuration(stage, &self.words, fault))
    }

    /// Has the control plane say something else of the Service.
    ///
    /// # Errors
    ///
    /// When its configuration can't be written.
    pub(super) fn reword(&mut self, change: impl FnOnce(&mut Words)) -> Result<(), LabError> {
        change(&mut self.words);
        self.say(CallFault::None)
    }

    /// Kills the control plane without warning. Returns when.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub(super) async fn kill_plane(&mut self) -> Result<f64, LabError> {
        self.balancers.kill_9(BALANCER).await
    }

    /// Starts the control plane again.
    ///
    /// # Errors
    ///
    /// When it is not ready in time.
    pub(super) async fn start_plane(&mut self) -> Result<(), LabError> {
        self.balancers.start(&[BALANCER]).await
    }

    /// The process ids of the control plane.
    pub(crate) fn plane_pids(&self) -> Vec<u32> {
        self.balancers.pids()
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

/// Makes what stands before backends, given what each Envoy's file has replaced.
pub(super) type MakeFronts = Box<dyn FnOnce(&Stage, Vec<Replacement>) -> Fronts + Send>;

/// The lines of the Service in the balancer's configuration, and those after it.
fn configuration(stage: &Stage, words: &Words, fault: CallFault) -> String {
    let Words { service, xds, file, .. } = words;
    let fault = match fault {
        CallFault::None => "",
        // Not UNAVAILABLE, which real faults give too.
        CallFault::Abort => "    fault: { abort: { percent: 50, grpc_status: 10 } }\n",
        CallFault::Delay => "    fault: { delay: { percent: 100, time_s: 0.1 } }\n",
    };
    let listen = stage.block.sidecar(1);
    format!("{service}  xds:\n    listen: {listen}\n{CALLS}{xds}{fault}{file}")
}

fn replacements(stage: &Stage, balancers: &Balancers) -> Vec<Replacement> {
    let balancer = balancers.address(BALANCER);
    vec![envoy::admin(), envoy::balancer(balancer), envoy::resolver(stage.dns.address())]
}
