//! What is served: services, where their endpoints come from, and how they are balanced. Flags make
//! one of these, the YAML file another (`yaml`), and [`Config::with_flags`] makes one of both.

mod lb_policy;
mod outlier;
mod xds;
mod yaml;

pub use lb_policy::{LbPolicy, LeastRequest, OutOfBand, RingHash, WeightedRoundRobin};
pub use outlier::{FailurePercentage, OutlierDetection, SuccessRate};
pub use xds::{
    Abort, Delay, Fault, IDENTITIES_MAX, Identity, Ingress, LocalityRule, Mtls, RULES_MAX, Retries,
    RetryStatus, Secrets, Split, Tracing, Xds,
};
pub(crate) use yaml::address as endpoint_address;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    key::ServiceKey,
    snapshot::{Endpoint, Policy},
    weights::LoadAware,
};

/// The most services.
pub const SERVICES_MAX: usize = 1_000;
/// The most aliases of a service, and weights by address or pod.
pub const ALIASES_MAX: usize = 100;
/// The most categories of drops of a service.
pub const DROPS_MAX: usize = 20;
/// The longest category of drops, so that its token is short enough for the protocol.
pub const CATEGORY_BYTES_MAX: usize = 40;
/// The largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a configuration can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// In a file, at a place.
    #[error("{file}:{line}:{column}: {message}")]
    At {
        /// Its name.
        file: String,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What was expected and what came.
        message: String,
    },
    /// Somewhere else.
    #[error("{0}")]
    Other(String),
}

/// Everything that is served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// By key.
    pub services: BTreeMap<ServiceKey, ServiceConfig>,
    /// Limits of clients, where they are set.
    pub limits: Limits,
    /// Certificates for TLS between Envoys, by name.
    pub identities: BTreeMap<String, Identity>,
    /// Who gets them.
    pub secrets: Secrets,
    /// How weights follow the load of services that say nothing of it; not at all when it is not
    /// set. Only that of the flags counts.
    pub load_aware: Option<LoadAware>,
    /// Services whose EndpointSlices say in which zone clients are.
    pub clients: BTreeSet<ServiceKey>,
}

/// What a configuration may say of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Clients' streams in this process.
    pub streams_max: Option<usize>,
    /// Clients' streams from one IP address.
    pub streams_per_peer_max: Option<usize>,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    /// Further names under which it can be asked for, in lower case.
    pub aliases: BTreeSet<String>,
    /// Its endpoints; without them they come from Kubernetes.
    pub endpoints: Option<Vec<Endpoint>>,
    /// Weights of endpoints from Kubernetes.
    pub weights: BTreeMap<Selected, u32>,
    /// How it is balanced.
    pub policy: Arc<Policy>,
    /// What clients of xDS are told of it.
    pub xds: Arc<Xds>,
}

/// Which endpoint a weight is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selected {
    /// By address and port.
    Address(SocketAddr),
    /// By address, any port.
    Ip(std::net::IpAddr),
    /// By pod.
    Pod(String),
}

impl Config {
    /// Reads YAML. `file` is the name that errors show; services without a namespace are in
    /// `default_namespace`.
    ///
    /// # Errors
    ///
    /// The first thing that can't be used: place, what was expected, what came.
    pub fn from_yaml(text: &str, file: &str, default_namespace: &str) -> Result<Self, ConfigError> {
        yaml::read(text, file, default_namespace)
    }

    /// This with what flags say beside it: their services where there is none of the same key, and
    /// their endpoints where there is.
    #[must_use]
    pub fn with_flags(&self, flags: &Self) -> Self {
        let mut config = self.clone();
        config.clients.extend(flags.clients.iter().cloned());
        for (key, flagged) in &flags.services {
            let service = config.services.entry(key.clone()).or_insert_with(|| flagged.clone());
            if flagged.endpoints.is_some() {
                service.endpoints.clone_from(&flagged.endpoints);
            }
        }
        config
    }
}

impl Config {
    /// Puts this where a service says nothing of it.
    pub(crate) fn fill_load_aware(&mut self, load_aware: Option<LoadAware>) {
        let Some(load_aware) = load_aware else { return };
        for service in self.services.values_mut() {
            if service.policy.load_aware.is_none() {
                Arc::make_mut(&mut service.policy).load_aware = Some(load_aware);
            }
        }
    }
}

impl ServiceConfig {
    /// The weight that the configuration gives an endpoint.
    #[must_use]
    pub fn weight_of(&self, endpoint: &Endpoint) -> Option<u32> {
        if self.weights.is_empty() {
            return None;
        }
        let pod = endpoint.pod.as_deref().map(|pod| Selected::Pod(pod.to_owned()));
        let by = |selected: Selected| self.weights.get(&selected).copied();
        by(Selected::Address(endpoint.address))
            .or_else(|| by(Selected::Ip(endpoint.address.ip())))
            .or_else(|| pod.and_then(by))
    }
}

#[cfg(test)]
mod tests;
