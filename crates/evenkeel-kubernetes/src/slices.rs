//! All EndpointSlices of one Service at one moment. A Service has a slice for each address family
//! and each 100 endpoints, more while the control plane moves endpoints between them; only
//! together they mean anything.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crate::{ServiceKey, api};

/// The most EndpointSlices of a Service that are taken; more are an error of the watch.
pub const SLICES_MAX: usize = 10_000;
/// The most endpoints of a Service that are taken, over all its slices.
pub const ENDPOINTS_MAX: usize = 100_000;

/// An immutable set of EndpointSlices. Two sets are equal when their content is, whatever their
/// [`Slices::version`].
#[derive(Clone, Debug)]
pub struct Slices {
    pub(crate) key: ServiceKey,
    pub(crate) version: u64,
    pub(crate) applied_in: Duration,
    /// By name, so that the order of endpoints is the same in every process.
    pub(crate) by_name: BTreeMap<Arc<str>, Arc<Slice>>,
}

impl Slices {
    pub(crate) fn new(key: ServiceKey) -> Self {
        Self { key, version: 0, applied_in: Duration::ZERO, by_name: BTreeMap::new() }
    }

    /// The Service that they belong to.
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// Grows with every change that this process has seen of the Service.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How long it took to make this set from the bytes of the event that brought it.
    pub fn applied_in(&self) -> Duration {
        self.applied_in
    }

    /// How many slices there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True when the Service has no slices: it does not exist, or nothing was selected yet.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Endpoints in all of them, usable or not, a dual-stack pod once for each family.
    pub fn endpoints_count(&self) -> usize {
        self.by_name.values().map(|slice| slice.endpoints.len()).sum()
    }

    /// The zone of each address whose node has one, ready or not: where a pod is does not depend on
    /// what it does.
    pub fn zones(&self) -> HashMap<IpAddr, Arc<str>> {
        let zoned =
            self.endpoints().filter_map(|endpoint| Some((endpoint, endpoint.zone.clone()?)));
        let of_each = zoned.flat_map(|(endpoint, zone)| {
            endpoint.addresses.iter().map(move |address| (*address, zone.clone()))
        });
        of_each.collect()
    }

    /// For which zones each ready address is hinted; those without hints are left out. For who
    /// tells endpoints to others: [`Slices::select`] honours the hints for one zone by itself.
    pub fn hints(&self) -> HashMap<IpAddr, &[Arc<str>]> {
        let hinted = self.endpoints().filter(|of| of.ready && !of.for_zones.is_empty());
        let of_each = hinted.flat_map(|endpoint| {
            endpoint.addresses.iter().map(|address| (*address, &endpoint.for_zones[..]))
        });
        of_each.collect()
    }

    fn endpoints(&self) -> impl Iterator<Item = &SliceEndpoint> {
        self.by_name.values().flat_map(|slice| &slice.endpoints)
    }

    /// Slices and addresses that can't be used: of type FQDN, or not what their type says.
    pub fn ignored_count(&self) -> usize {
        self.by_name.values().map(|slice| slice.ignored).sum()
    }
}

impl PartialEq for Slices {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.by_name == other.by_name
    }
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slice {
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
    pub(crate) ignored: usize,
}

/// A TCP port that all endpoints of a slice have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SlicePort {
    pub(crate) name: String,
    /// `None`: any.
    pub(crate) number: Option<u16>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SliceEndpoint {
    /// Of one family, at least one.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) node: Option<Arc<str>>,
    pub(crate) pod: Option<Arc<str>>,
    pub(crate) for_zones: Vec<Arc<str>>,
}

impl Slice {
    /// Keeps what can be used, counts what can't.
    pub(crate) fn read(slice: api::EndpointSlice) -> Self {
        let ipv6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => return Self { ports: Vec::new(), endpoints: Vec::new(), ignored: 1 },
        };
        let mut ignored = 0;
        let mut endpoints = Vec::with_capacity(slice.endpoints.len());
        for endpoint in slice.endpoints {
            match SliceEndpoint::read(endpoint, ipv6) {
                Some(endpoint) => endpoints.push(endpoint),
                None => ignored += 1,
            }
        }
        let ports = slice.ports.into_iter().filter_map(SlicePort::read).collect();
        Self { ports, endpoints, ignored }
    }
}

impl SlicePort {
    /// Another protocol, and a number that is none, are no port for gRPC.
    fn read(port: api::Port) -> Option<Self> {
        if port.protocol.is_some_and(|protocol| protocol != "TCP") {
            return None;
        }
        let number = match port.port {
            None => None,
            Some(number) => Some(u16::try_from(number).ok().filter(|n| *n != 0)?),
        };
        Some(Self { name: port.name.unwrap_or_default(), number })
    }
}

impl SliceEndpoint {
    fn read(endpoint: api::Endpoint, ipv6: bool) -> Option<Self> {
        let parse = |text: &String| text.parse::<IpAddr>().ok().filter(|a| a.is_ipv6() == ipv6);
        let addresses: Vec<IpAddr> = endpoint.addresses.iter().filter_map(parse).collect();
        if addresses.is_empty() {
            return None;
        }
        let conditions = endpoint.conditions;
        // "nil indicates an unknown state" of which the API says: interpret as ready.
        let ready = conditions.ready.unwrap_or(true);
        let pod = endpoint.target_ref.filter(|target| target.kind == "Pod").map(|t| t.name.into());
        Some(Self {
            addresses,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            zone: endpoint.zone.filter(|zone| !zone.is_empty()).map(Into::into),
            node: endpoint.node_name.filter(|node| !node.is_empty()).map(Into::into),
            pod,
            for_zones: endpoint.hints.for_zones.into_iter().map(|zone| zone.name.into()).collect(),
        })
    }
}
