//! Which endpoints of a Service serve: pure functions from slices, port and zone to endpoints. They
//! follow kube-proxy (`pkg/proxy/topology.go`), so that a client-side balancer sends to the pods
//! that the Service's own address would reach.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use evenkeel_core::{Attributes, Endpoint};

use crate::{
    Port, ServiceKey, Slices,
    slices::{Slice, SliceEndpoint},
};

/// What a client wants of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    port: Port,
    zone: Option<Arc<str>>,
}

impl Selection {
    /// The endpoints with this port, of all zones.
    pub fn new(port: Port) -> Self {
        Self { port, zone: None }
    }

    /// For a client in this zone: the slices' hints are honoured, where a Service has them
    /// (`trafficDistribution: PreferClose`, or topology-aware routing).
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }
}

/// No slice that has endpoints has the wanted port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct PortMismatch {
    /// The Service.
    pub service: ServiceKey,
    /// What was wanted.
    pub wanted: Port,
    /// The ports that its slices have, as `name=number`, `number` or `name=any`.
    pub offered: Vec<String>,
}

impl PortMismatch {
    fn text(&self) -> String {
        let Self { service, wanted, offered } = self;
        let (what, hint) = match wanted {
            Port::Named(_) => ("named", ""),
            Port::Number(_) => (
                "with the number",
                " (a number is the port of the pods, not of the Service; a name works too)",
            ),
        };
        let offered =
            if offered.is_empty() { "no TCP ports".to_owned() } else { offered.join(", ") };
        format!(
            "expected a port {what} {wanted} in the EndpointSlices of {service}; they have \
             {offered}; name one of those{hint}"
        )
    }
}

/// One that may serve, with the port of its slice.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    endpoint: &'a SliceEndpoint,
    port: u16,
}

impl Slices {
    /// The endpoints that serve `selection`, in a stable order, each once:
    ///
    /// * the ready ones; when there is none, those that still serve while they terminate;
    /// * of one family, as with DNS: IPv4 if there is any, else IPv6;
    /// * of the client's zone, when every ready endpoint has hints and at least one is for it.
    ///
    /// # Errors
    ///
    /// There are endpoints, and none has such a port.
    pub fn select(&self, selection: &Selection) -> Result<Vec<Endpoint>, PortMismatch> {
        let (mut ready, mut draining) = (Vec::new(), Vec::new());
        let (mut matching, mut others) = (0, 0);
        for slice in self.by_name.values().filter(|slice| !slice.endpoints.is_empty()) {
            let Some(port) = slice.port(&selection.port) else {
                others += 1;
                continue;
            };
            matching += 1;
            for endpoint in &slice.endpoints {
                let candidate = Candidate { endpoint, port };
                if endpoint.ready {
                    ready.push(candidate);
                } else if endpoint.serving && endpoint.terminating {
                    draining.push(candidate);
                }
            }
        }
        if matching == 0 && others > 0 {
            let (service, wanted) = (self.key.clone(), selection.port.clone());
            return Err(PortMismatch { service, wanted, offered: self.offered() });
        }
        let mut chosen = if ready.is_empty() { one_family(draining) } else { one_family(ready) };
        if let Some(zone) = selection.zone.as_deref() {
            honour_hints(&mut chosen, zone);
        }
        Ok(distinct(&chosen))
    }

    /// For messages.
    fn offered(&self) -> Vec<String> {
        let mut offered = Vec::new();
        for port in self.by_name.values().flat_map(|slice| &slice.ports) {
            let text = match (port.name.as_str(), port.number) {
                ("", Some(number)) => number.to_string(),
                ("", None) => "any".to_owned(),
                (name, Some(number)) => format!("{name}={number}"),
                (name, None) => format!("{name}=any"),
            };
            if !offered.contains(&text) {
                offered.push(text);
            }
        }
        offered
    }
}

impl Slice {
    fn port(&self, wanted: &Port) -> Option<u16> {
        match wanted {
            Port::Named(name) => self.ports.iter().find(|p| p.name == *name)?.number,
            // A headless Service need not have ports, and a port without a number is any.
            Port::Number(number) => {
                let has = |p: &crate::slices::SlicePort| p.number.is_none_or(|n| n == *number);
                (self.ports.is_empty() || self.ports.iter().any(has)).then_some(*number)
            }
        }
    }
}

fn one_family(mut candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    let is_ipv4 = |c: &Candidate<'_>| c.endpoint.addresses.iter().any(|a| a.is_ipv4());
    if candidates.iter().any(is_ipv4) {
        candidates.retain(is_ipv4);
    }
    candidates
}

/// Terminating endpoints have no say: their hints are about to go.
fn honour_hints(chosen: &mut Vec<Candidate<'_>>, zone: &str) {
    let all_have_hints =
        chosen.iter().all(|c| c.endpoint.ready && !c.endpoint.for_zones.is_empty());
    let is_for_zone = |c: &Candidate<'_>| c.endpoint.for_zones.iter().any(|z| **z == *zone);
    if all_have_hints && chosen.iter().any(is_for_zone) {
        chosen.retain(is_for_zone);
    }
}

/// While the control plane moves an endpoint from one slice to another, it is in both.
fn distinct(chosen: &[Candidate<'_>]) -> Vec<Endpoint> {
    let mut seen = HashSet::with_capacity(chosen.len());
    let mut endpoints = Vec::with_capacity(chosen.len());
    for Candidate { endpoint, port } in chosen {
        if !seen.insert((endpoint.addresses[0], *port)) {
            continue;
        }
        let addresses = endpoint.addresses.iter().map(|ip| SocketAddr::new(*ip, *port).into());
        let mut attributes = Attributes::default();
        attributes.zone.clone_from(&endpoint.zone);
        attributes.node.clone_from(&endpoint.node);
        attributes.pod.clone_from(&endpoint.pod);
        let made = Endpoint::with_addresses(addresses.collect());
        endpoints.extend(made.map(|made| made.with_attributes(attributes)));
    }
    endpoints
}

#[cfg(test)]
#[path = "tests/select.rs"]
mod tests;
