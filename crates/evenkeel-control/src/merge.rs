//! From what sources say to snapshots, without I/O: one of these per service takes configurations
//! and endpoint sets in any order and says when there is something new to publish. A source that
//! repeats itself publishes nothing, so that no client gets a list that it has.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use crate::{
    config::ServiceConfig,
    key::ServiceKey,
    snapshot::{ENDPOINTS_MAX, Endpoint, Snapshot, hinted_zones},
    weights::{FACTOR_MEAN, Factors},
};

/// What a source says of a service's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// These are all there are.
    Replace(Vec<Endpoint>),
    /// Some came or changed, some went; all others are as before.
    Patch {
        /// New, or in place of the one at the same address.
        put: Vec<Endpoint>,
        /// No longer there.
        remove: Vec<SocketAddr>,
    },
}

/// See the module's head.
#[derive(Debug)]
pub struct Merge {
    key: ServiceKey,
    config: ServiceConfig,
    /// What the watch delivered; `None` before it did. Kept while the configuration has endpoints
    /// of its own, which win.
    watched: Option<BTreeMap<SocketAddr, Endpoint>>,
    /// What weights follow the load with; counts while the configuration wants that.
    factors: Factors,
    current: Option<Arc<Snapshot>>,
    left_out: usize,
}

impl Merge {
    /// A service about which nothing is known but its configuration.
    #[must_use]
    pub fn new(key: ServiceKey) -> Self {
        let (config, factors) = (ServiceConfig::default(), Factors::new());
        Self { key, config, watched: None, factors, current: None, left_out: 0 }
    }

    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Option<&Arc<Snapshot>> {
        self.current.as_ref()
    }

    /// Whether endpoints come from a watch.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.config.endpoints.is_none()
    }

    /// How many endpoints were left out of the newest snapshot, above [`ENDPOINTS_MAX`].
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Takes what weights are multiplied by; returns a snapshot if there is a new one.
    pub fn weigh(&mut self, factors: Factors) -> Option<Arc<Snapshot>> {
        self.factors = factors;
        self.publish()
    }

    /// Takes a configuration; returns a snapshot if there is a new one.
    pub fn configure(&mut self, config: ServiceConfig) -> Option<Arc<Snapshot>> {
        if config.policy.load_aware.is_none() {
            self.factors.clear();
        }
        self.config = config;
        self.publish()
    }

    /// Takes what the watch says; returns a snapshot if there is a new one.
    pub fn watched(&mut self, change: Change) -> Option<Arc<Snapshot>> {
        let by_address = |list: Vec<Endpoint>| list.into_iter().map(|one| (one.address, one));
        match change {
            Change::Replace(all) => self.watched = Some(by_address(all).collect()),
            Change::Patch { put, remove } => {
                let watched = self.watched.get_or_insert_default();
                for address in remove {
                    watched.remove(&address);
                }
                watched.extend(by_address(put));
            }
        }
        self.publish()
    }

    fn publish(&mut self) -> Option<Arc<Snapshot>> {
        let (endpoints, left_out) = self.endpoints()?;
        self.left_out = left_out;
        let policy = &self.config.policy;
        let version = match &self.current {
            Some(now) if *now.endpoints == *endpoints && now.policy == *policy => return None,
            Some(now) => now.version + 1,
            None => 1,
        };
        let (service, policy) = (self.key.clone(), policy.clone());
        let (zones, endpoints) = (Arc::new(hinted_zones(&endpoints)), endpoints.into());
        let snapshot = Arc::new(Snapshot { service, version, endpoints, policy, zones });
        self.current = Some(snapshot.clone());
        Some(snapshot)
    }

    /// By address and weighted, and how many were too many; `None` when nothing is known.
    fn endpoints(&self) -> Option<(Vec<Endpoint>, usize)> {
        let mut endpoints = match (&self.config.endpoints, &self.watched) {
            (Some(own), _) => {
                let mut own = own.clone();
                own.sort_by_key(|endpoint| endpoint.address);
                own.dedup_by_key(|endpoint| endpoint.address);
                own
            }
            (None, Some(watched)) => watched.values().cloned().collect(),
            (None, None) => return None,
        };
        let left_out = endpoints.len().saturating_sub(ENDPOINTS_MAX);
        endpoints.truncate(ENDPOINTS_MAX);
        for endpoint in &mut endpoints {
            if let Some(weight) = self.config.weight_of(endpoint) {
                endpoint.weight = weight;
            }
            if !self.factors.is_empty() {
                let factor = self.factors.get(&endpoint.address).copied().unwrap_or(FACTOR_MEAN);
                endpoint.weight = endpoint.weight.saturating_mul(factor);
            }
        }
        Some((endpoints, left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Selected,
        snapshot::{Drop, Policy},
        weights::LoadAware,
    };

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(([10, 0, 0, 1], port).into())
    }

    fn merge() -> Merge {
        Merge::new(ServiceKey::parse("a", "b").expect("a key"))
    }

    fn ports(snapshot: &Snapshot) -> Vec<u16> {
        snapshot.endpoints.iter().map(|endpoint| endpoint.address.port()).collect()
    }

    #[test]
    fn nothing_is_published_before_a_source_has_spoken() {
        let mut merge = merge();
        assert_eq!(merge.configure(ServiceConfig::default()), None);
        let empty = merge.watched(Change::Replace(Vec::new())).expect("an empty set is news");
        assert_eq!((empty.version, empty.endpoints.len()), (1, 0));
    }

    #[test]
    fn versions_grow_with_news_and_only_with_news() {
        let mut merge = merge();
        let two = merge.watched(Change::Replace(vec![endpoint(2), endpoint(1)])).expect("news");
        assert_eq!((two.version, ports(&two)), (1, vec![1, 2]));
        assert_eq!(merge.watched(Change::Replace(vec![endpoint(1), endpoint(2)])), None);
        let patch = Change::Patch { put: vec![endpoint(3)], remove: vec![endpoint(1).address] };
        let patched = merge.watched(patch.clone()).expect("news");
        assert_eq!((patched.version, ports(&patched)), (2, vec![2, 3]));
        assert_eq!(merge.watched(patch), None);
    }

    #[test]
    fn endpoints_of_the_configuration_win_and_those_watched_come_back() {
        let mut merge = merge();
        merge.watched(Change::Replace(vec![endpoint(1)])).expect("news");
        let own = ServiceConfig { endpoints: Some(vec![endpoint(9)]), ..ServiceConfig::default() };
        assert_eq!(ports(&merge.configure(own).expect("news")), [9]);
        assert_eq!(merge.watched(Change::Replace(vec![endpoint(2)])), None);
        assert_eq!(ports(&merge.configure(ServiceConfig::default()).expect("news")), [2]);
    }

    #[test]
    fn weights_and_policy_are_news() {
        let mut merge = merge();
        merge.watched(Change::Replace(vec![endpoint(1), endpoint(2)])).expect("news");
        let weights = [(Selected::Address(endpoint(2).address), 7)].into();
        let mut config = ServiceConfig { weights, ..ServiceConfig::default() };
        let weighted = merge.configure(config.clone()).expect("news");
        assert_eq!(weighted.endpoints.iter().map(|e| e.weight).collect::<Vec<_>>(), [1, 7]);
        let drops = vec![Drop { category: "all".into(), percent: 100.0 }];
        config.policy = Arc::new(Policy { drops, ..Policy::default() });
        let dropping = merge.configure(config.clone()).expect("news");
        assert_eq!((dropping.version, dropping.policy.drops.len()), (3, 1));
        assert_eq!(merge.configure(config), None);
    }

    #[test]
    fn weights_follow_the_load_where_the_configuration_says_so() {
        let mut merge = merge();
        merge.watched(Change::Replace(vec![endpoint(1), endpoint(2)])).expect("news");
        let policy = Policy { load_aware: Some(LoadAware::default()), ..Policy::default() };
        let weights = [(Selected::Address(endpoint(2).address), 7)].into();
        let config =
            ServiceConfig { policy: Arc::new(policy), weights, ..ServiceConfig::default() };
        merge.configure(config.clone()).expect("news");
        let weights = |snapshot: Arc<Snapshot>| -> Vec<u32> {
            snapshot.endpoints.iter().map(|endpoint| endpoint.weight).collect()
        };
        let factors = Factors::from([(endpoint(1).address, 10)]);
        let weighed = merge.weigh(factors.clone()).expect("news");
        assert_eq!(weights(weighed), [10, 7 * FACTOR_MEAN], "one has no factor");
        assert_eq!(merge.weigh(factors), None);
        assert_eq!(weights(merge.configure(ServiceConfig::default()).expect("news")), [1, 1]);
        assert_eq!(merge.configure(config).map(weights), Some(vec![1, 7]), "they are forgotten");
    }

    #[test]
    fn what_is_over_the_limit_is_left_out_and_counted() {
        let mut merge = merge();
        let many = (0..=ENDPOINTS_MAX as u32).map(|n| {
            let [_, a, b, c] = n.to_be_bytes();
            Endpoint::new(([10, a, b, c], 1).into())
        });
        let snapshot = merge.watched(Change::Replace(many.collect())).expect("news");
        assert_eq!((snapshot.endpoints.len(), merge.left_out()), (ENDPOINTS_MAX, 1));
    }
}
