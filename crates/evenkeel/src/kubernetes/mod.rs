//! The resolver for `kubernetes:///service[.namespace]:port` (feature `kubernetes`): it watches the
//! Service's EndpointSlices instead of its DNS name.
//!
//! DNS tells of a new pod when the TTL of the last answer is over; this hears of it when the API
//! server does. What it needs is the right to `list` and `watch` `endpointslices` in the Service's
//! namespace. It works for any Service with a selector, headless or not.
//!
//! ```no_run
//! # fn example() -> Result<(), evenkeel::BuildError> {
//! use evenkeel::kubernetes::KubernetesOptions;
//!
//! // The endpoints' port by its number (the pods', not the Service's) or by its name.
//! let channel = evenkeel::Channel::builder("kubernetes:///greeter.default:grpc")
//!     .kubernetes(KubernetesOptions { zone: Some("eu-west-1a".into()), ..Default::default() })
//!     .build()?;
//! # Ok(()) }
//! ```
//!
//! The API server is found as `kubectl` finds it: `KUBECONFIG`, `~/.kube/config`, else the pod's
//! ServiceAccount. All channels of a process to one Service share one watch. While it is lost the
//! last set serves on; an empty set is one, and fails calls at once.

mod target;

use std::sync::{Arc, OnceLock};

use evenkeel_core::{
    ResolverError, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate, Status, Target,
    TargetError,
};
pub use evenkeel_kubernetes::{Cluster, ClusterError};
use evenkeel_kubernetes::{Selection, Slices, State, Watch};

use self::target::KubernetesTarget;
use crate::ChannelBuilder;

/// Settings of the Kubernetes resolver.
#[derive(Clone, Debug, Default)]
pub struct KubernetesOptions {
    /// Where the Service is; `None`: found as `kubectl` finds it, when the channel is built.
    pub cluster: Option<Cluster>,
    /// The zone that this client runs in, for Services whose slices have hints
    /// (`trafficDistribution`, topology-aware routing): `topology.kubernetes.io/zone` of its node.
    /// `None`: endpoints of all zones.
    pub zone: Option<String>,
}

impl ChannelBuilder {
    /// Settings of the resolver for `kubernetes:` targets (feature `kubernetes`).
    #[must_use]
    pub fn kubernetes(mut self, options: KubernetesOptions) -> Self {
        self.kubernetes = options;
        self
    }
}

/// Serves the scheme `kubernetes`.
pub(crate) struct KubernetesResolverFactory {
    options: KubernetesOptions,
    inferred: OnceLock<Result<Cluster, ClusterError>>,
}

impl KubernetesResolverFactory {
    pub(crate) fn new(options: KubernetesOptions) -> Self {
        Self { options, inferred: OnceLock::new() }
    }

    fn cluster(&self, target: &Target) -> Result<&Cluster, TargetError> {
        if let Some(cluster) = &self.options.cluster {
            return Ok(cluster);
        }
        let inferred = self.inferred.get_or_init(Cluster::infer);
        inferred.as_ref().map_err(|e| TargetError::new(&target.to_string(), e.to_string()))
    }
}

impl ResolverFactory for KubernetesResolverFactory {
    fn schemes(&self) -> &[&str] {
        &["kubernetes"]
    }

    fn default_authority(&self, target: &Target) -> Result<String, TargetError> {
        let read = KubernetesTarget::read(target)?;
        // A channel that will never know its cluster is refused by `build()`, not by its calls.
        let cluster = self.cluster(target)?;
        read.key(target, cluster.namespace())?;
        Ok(read.authority)
    }

    fn start(
        &self,
        target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        let read = KubernetesTarget::read(target)?;
        let cluster = self.cluster(target)?;
        let watch = cluster.watch(read.key(target, cluster.namespace())?);
        let mut selection = Selection::new(read.port);
        if let Some(zone) = self.options.zone.as_deref().filter(|zone| !zone.is_empty()) {
            selection = selection.zone(zone);
        }
        Ok(Box::pin(run(watch, selection, sink)))
    }
}

/// Reports to one channel until it drops this. The channel's requests for a fresh look need no
/// answer: what there is to know comes by itself.
async fn run(mut watch: Watch, selection: Selection, sink: Arc<dyn ResolverSink>) {
    let (mut told, mut fails) = (None, false);
    loop {
        let state = watch.changed().await;
        let error = match &state {
            State::Good { error, .. } => error.as_ref(),
            State::Failed(error) => Some(error),
            _ => None,
        };
        if error.is_some() != fails {
            fails = error.is_some();
            sink.renewal(error.map(|error| not_now(&error.message).status).as_ref());
        }
        // That the watch is lost, or is back, changes no endpoint.
        if let State::Good { slices, .. } = &state
            && told.as_ref().is_none_or(|told| !Arc::ptr_eq(told, slices))
        {
            tell(slices, &selection, &*sink);
            told = Some(slices.clone());
        }
        if let Some(error) = error {
            sink.error(not_now(&error.message));
        }
    }
}

fn tell(slices: &Slices, selection: &Selection, sink: &dyn ResolverSink) {
    match slices.select(selection) {
        Ok(endpoints) => sink.update(ResolverUpdate::new(endpoints)),
        // The endpoints of before are gone, whatever their ports were.
        Err(mismatch) => sink.error(ResolverError {
            status: Status::unavailable(mismatch.to_string()),
            expired: true,
        }),
    }
}

/// The last list, if there is one, stays in use for as long as it takes.
fn not_now(message: &str) -> ResolverError {
    ResolverError { status: Status::unavailable(message), expired: false }
}
