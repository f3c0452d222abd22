//! What is true of a service at one moment: immutable, shared by all that read it, and numbered, so
//! that a reader who was slow sees that it has missed some and takes the newest.

use std::{net::SocketAddr, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{access::Allowed, key::ServiceKey, weights::LoadAware};

/// The most endpoints of one service; more are left out, and counted.
pub const ENDPOINTS_MAX: usize = 20_000;
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
}

impl Endpoint {
    /// An endpoint of which no more is known than its address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let state = EndpointState::Serving;
        Self { address, weight: WEIGHT_DEFAULT, state, region: None, zone: None, pod: None }
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
}

impl Snapshot {
    /// The endpoints that get calls, in the order of their addresses.
    pub fn serving(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Serving)
    }
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
