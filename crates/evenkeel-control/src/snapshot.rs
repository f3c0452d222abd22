//! What is true of a service at one moment: immutable, shared by all that read it, and numbered, so
//! that a reader who was slow sees that it has missed some and takes the newest.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{access::Allowed, key::ServiceKey, weights::LoadAware};

/// The most endpoints of one service; more are left out, and counted.
pub const ENDPOINTS_MAX: usize = 20_000;
/// The most zones whose clients get a part of a service; those of further zones get all of it.
pub const ZONES_MAX: usize = 100;
/// The weight of an endpoint that was given none.
pub const WEIGHT_DEFAULT: u32 = 1;
/// The greatest weight.
pub const WEIGHT_MAX: u32 = 1_000;

/// One place that answers calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the calls, compared with the others' weights: 1 to [`WEIGHT_MAX`], and times a
    /// factor where weights follow the load ([`crate::weights`]).
    pub weight: u32,
    /// Whether it gets calls.
    pub state: EndpointState,
    /// Its region, where that is known; zones of the same name in two regions are two zones.
    #[serde(serialize_with = "shared")]
    pub region: Option<Arc<str>>,
    /// Its zone, where that is known.
    #[serde(serialize_with = "shared")]
    pub zone: Option<Arc<str>>,
    /// The pod's name, where that is known.
    #[serde(serialize_with = "shared")]
    pub pod: Option<Arc<str>>,
    /// For clients in which zones it is meant, as EndpointSlices hint; empty: for no zone more than
    /// for another.
    #[serde(serialize_with = "shared_list")]
    pub for_zones: Arc<[Arc<str>]>,
}

impl Endpoint {
    /// An endpoint of which no more is known than its address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let state = EndpointState::Serving;
        let (region, zone, pod, for_zones) = (None, None, None, Arc::default());
        Self { address, weight: WEIGHT_DEFAULT, state, region, zone, pod, for_zones }
    }
}

/// Whether an endpoint gets calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It does.
    #[default]
    Serving,
    /// It ends what it has and gets nothing new.
    Draining,
    /// It can't answer.
    Unhealthy,
}

/// Calls that clients are told to drop.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drop {
    /// Why; it is the token under which clients report these calls.
    pub category: String,
    /// How many of all calls, in per cent.
    pub percent: f64,
}

/// What the configuration says of a service beside its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Policy {
    /// Which calls to drop.
    pub drops: Vec<Drop>,
    /// How many endpoints a client gets; all of them when it is not set.
    pub subset: Option<usize>,
    /// Who may ask; anybody when it is not set.
    pub allow: Option<Allowed>,
    /// How weights follow the endpoints' own reports of their load; not at all when it is not set.
    pub load_aware: Option<LoadAware>,
}

/// A service at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Which service.
    pub service: ServiceKey,
    /// Grows by one with each snapshot of the service in this process, from 1.
    pub version: u64,
    /// By address, each address once.
    pub endpoints: Arc<[Endpoint]>,
    /// What the configuration says.
    pub policy: Arc<Policy>,
    /// The zones whose clients get the endpoints that are hinted for them, and no others.
    pub zones: Arc<BTreeSet<Arc<str>>>,
}

impl Snapshot {
    /// The endpoints that get calls, in the order of their addresses.
    pub fn serving(&self) -> impl Iterator<Item = &Endpoint> {
        serving(&self.endpoints)
    }

    /// Of a client's zone, whether it makes a difference: `None` where its clients get everything.
    #[must_use]
    pub fn part<'a>(&self, zone: Option<&'a Arc<str>>) -> Option<&'a Arc<str>> {
        zone.filter(|zone| self.zones.contains(*zone))
    }

    /// The endpoints that get calls of clients in this part, in the order of their addresses.
    pub fn serving_for(&self, part: Option<&str>) -> impl Iterator<Item = &Endpoint> {
        let is_for =
            |of: &Endpoint, zone: &str| of.for_zones.iter().any(|hinted| **hinted == *zone);
        self.serving().filter(move |endpoint| part.is_none_or(|zone| is_for(endpoint, zone)))
    }
}

fn serving(endpoints: &[Endpoint]) -> impl Iterator<Item = &Endpoint> {
    endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Serving)
}

/// The zones that these endpoints are hinted for. One without hints makes all hints void, as in
/// kube-proxy: it may be the only one that is new, and would get nothing.
pub(crate) fn hinted_zones(endpoints: &[Endpoint]) -> BTreeSet<Arc<str>> {
    if serving(endpoints).any(|endpoint| endpoint.for_zones.is_empty()) {
        return BTreeSet::new();
    }
    let mut zones = BTreeSet::new();
    for zone in serving(endpoints).flat_map(|endpoint| endpoint.for_zones.iter()) {
        if zones.len() < ZONES_MAX {
            zones.insert(zone.clone());
        }
    }
    zones
}

/// What a service's readers find.
#[derive(Clone, Debug)]
pub enum Published {
    /// Nothing is known yet: no source has delivered.
    Pending,
    /// This is so.
    Current(Arc<Snapshot>),
    /// The service is not served any more.
    Gone,
}

impl Published {
    /// The snapshot, if there is one.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        match self {
            Self::Current(snapshot) => Some(snapshot),
            Self::Pending | Self::Gone => None,
        }
    }
}

/// Without serde's feature `rc`, which everything here would be compiled with.
fn shared<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

fn shared_list<S: Serializer>(texts: &Arc<[Arc<str>]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(texts.iter().map(|text| &**text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(hints: &[&[&str]]) -> Snapshot {
        let endpoint = |(n, zones): (usize, &&[&str])| {
            let for_zones = zones.iter().map(|zone| Arc::from(*zone)).collect();
            Endpoint { for_zones, ..Endpoint::new(([10, 0, 0, 1], n as u16 + 1).into()) }
        };
        let endpoints: Vec<Endpoint> = hints.iter().enumerate().map(endpoint).collect();
        Snapshot {
            service: ServiceKey::parse("greeter", "default").expect("a key"),
            version: 1,
            zones: Arc::new(hinted_zones(&endpoints)),
            endpoints: endpoints.into(),
            policy: Arc::default(),
        }
    }

    fn ports(snapshot: &Snapshot, zone: &str) -> Vec<u16> {
        let zone = Arc::from(zone);
        let part = snapshot.part(Some(&zone)).map(|zone| &**zone);
        snapshot.serving_for(part).map(|endpoint| endpoint.address.port()).collect()
    }

    #[test]
    fn clients_get_what_is_hinted_for_their_zone() {
        let snapshot = snapshot(&[&["a"], &["b"], &["a", "b"]]);
        assert_eq!(ports(&snapshot, "a"), [1, 3]);
        assert_eq!(ports(&snapshot, "b"), [2, 3]);
        assert_eq!(ports(&snapshot, "c"), [1, 2, 3], "nothing is hinted for it");
        assert_eq!(snapshot.serving_for(None).count(), 3);
    }

    #[test]
    fn one_endpoint_without_hints_makes_them_void_unless_it_gets_no_calls() {
        let mut one = snapshot(&[&["a"], &["b"], &[]]);
        assert_eq!(ports(&one, "a"), [1, 2, 3]);
        let mut endpoints = one.endpoints.to_vec();
        endpoints[2].state = EndpointState::Draining;
        one.zones = Arc::new(hinted_zones(&endpoints));
        one.endpoints = endpoints.into();
        assert_eq!(ports(&one, "a"), [1]);
    }

    #[test]
    fn zones_have_a_limit() {
        let names: Vec<String> = (0..ZONES_MAX + 5).map(|n| format!("z{n:03}")).collect();
        let hints: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
        let hints: Vec<&[&str]> = hints.iter().map(|one| &one[..]).collect();
        let snapshot = snapshot(&hints);
        assert_eq!(snapshot.zones.len(), ZONES_MAX);
        assert_eq!(ports(&snapshot, "z000"), [1]);
        assert_eq!(ports(&snapshot, "z104").len(), names.len());
    }
}
