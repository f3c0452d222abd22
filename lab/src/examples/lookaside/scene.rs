//! What each phase plays on: a stage with an API server, two balancers that watch it, and their SRV
//! records. Pods enter and leave DNS and the EndpointSlice at the same moments; the client uses DNS
//! for the balancers, and for backends only when no balancer has ever answered.

use std::sync::Arc;

use crate::{
    balancers::Balancers, client::Client, error::LabError, faults::Deleted, run::Run,
    slices::Slices, stage::Stage,
};

/// Both replicas.
pub(in crate::examples) const BALANCERS: [u8; 2] = [1, 2];
/// What makes the client ask a balancer.
const POLICY: [&str; 2] = ["--lb-policy", "grpclb"];

/// See the module's head.
pub(crate) struct Scene {
    pub(in crate::examples) stage: Stage,
    pub(in crate::examples) slices: Slices,
    pub(in crate::examples) balancers: Balancers,
    published: Vec<u8>,
}

impl Scene {
    /// Starts both balancers. `settings` go to every greeter, `rules` into the balancers'
    /// configuration of the Service.
    ///
    /// # Errors
    ///
    /// When something can't be started.
    pub(in crate::examples) async fn open(
        run: Arc<Run>,
        phase: &str,
        settings: &[(&'static str, &str)],
        rules: &str,
    ) -> Result<Self, LabError> {
        let stage = Stage::open(run.clone(), phase, settings).await?;
        let slices = Slices::start(&run, phase, &stage.block).await?;
        let mut balancers = Balancers::new(run, phase, stage.block.clone(), &slices, rules)?;
        balancers.trace_to(stage.spans.clone());
        balancers.start(&BALANCERS).await?;
        let addresses = BALANCERS.map(|number| balancers.address(number));
        stage.dns.publish_balancers(&addresses).await;
        Ok(Self { stage, slices, balancers, published: Vec::new() })
    }

    /// Starts pods and publishes them. Returns when the slice was written.
    ///
    /// # Errors
    ///
    /// When one is not ready in time.
    pub(in crate::examples) async fn scale_up(&mut self, hosts: &[u8]) -> Result<f64, LabError> {
        self.stage.scale_up(hosts).await?;
        self.published.extend(hosts);
        Ok(self.slices.publish(&self.stage.fleet.ips(&self.published), &[]))
    }

    /// Deletes pods at once: the slice says that they terminate, SIGTERM; out of the slice when
    /// they are gone.
    ///
    /// # Errors
    ///
    /// When one does not run or does not end.
    pub(in crate::examples) async fn delete(
        &mut self,
        hosts: &[u8],
    ) -> Result<Vec<Deleted>, LabError> {
        self.published.retain(|host| !hosts.contains(host));
        let left = self.stage.fleet.ips(&self.published);
        self.slices.publish(&left, &self.stage.fleet.ips(hosts));
        let deleted = self.stage.delete(hosts).await?;
        self.slices.publish(&left, &[]);
        Ok(deleted)
    }

    /// The client of the phase, READY to each of `hosts`.
    ///
    /// # Errors
    ///
    /// When it can't be started, or ends.
    pub(in crate::examples) async fn client(
        &self,
        hosts: &[u8],
        flags: &[&str],
    ) -> Result<Client, LabError> {
        self.stage.connected_client(hosts, &with_policy(flags)).await
    }

    /// A client that makes its calls and ends.
    ///
    /// # Errors
    ///
    /// When it can't be started.
    pub(in crate::examples) async fn counting_client(
        &self,
        flags: &[&str],
    ) -> Result<Client, LabError> {
        self.stage.client(&with_policy(flags)).await
    }

    /// Fails when something that nobody ended has ended.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with its last log lines.
    pub(in crate::examples) fn all_alive(&self) -> Result<(), LabError> {
        self.balancers.all_alive()?;
        self.stage.fleet.all_alive()
    }
}

/// `flags` with the policy before them.
pub(in crate::examples) fn with_policy<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    POLICY.iter().chain(flags).copied().collect()
}
