//! EDS: a snapshot's endpoints in localities and priorities. Clients refuse an assignment whose
//! priorities have a gap or whose weights overflow when summed, so both are made whole here and not
//! asked of whoever writes the configuration.

use std::{collections::BTreeMap, sync::Arc};

use evenkeel_proto::envoy::config::{
    core::v3::{HealthStatus, Locality},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as EndpointMessage, LbEndpoint, LocalityLbEndpoints,
        cluster_load_assignment::{Policy, policy::DropOverload},
        lb_endpoint::HostIdentifier,
    },
};

use super::{
    Dialect,
    encode::{address, percent},
};
use crate::{
    config::{LocalityRule, Xds},
    snapshot::{Drop, Endpoint, EndpointState, Snapshot},
    xds::view::Place,
};

/// Region and zone of endpoints.
type LocalityKey = (Option<Arc<str>>, Option<Arc<str>>);

/// The endpoints of one service for one kind of client. `client` is where the client is, for those
/// services that prefer what is near.
pub(crate) fn assignment(
    cluster: &str,
    snapshot: &Snapshot,
    xds: &Xds,
    dialect: Dialect,
    client: Option<&Place>,
) -> ClusterLoadAssignment {
    let mut localities: BTreeMap<LocalityKey, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in snapshot.endpoints.iter().filter(|endpoint| dialect.lists(endpoint.state)) {
        let locality = (endpoint.region.clone(), endpoint.zone.clone());
        localities.entry(locality).or_default().push(endpoint);
    }
    let ranked: Vec<Ranked<'_>> = localities
        .into_iter()
        .map(|(locality, endpoints)| {
            let rule = xds.localities.iter().find(|rule| fits(rule, &locality));
            let near = if xds.priority_by_zone { distance(client, &locality) } else { 0 };
            let priority = (rule.map_or(0, |rule| rule.priority), near);
            let weight = rule.and_then(|rule| rule.weight).map(u64::from);
            Ranked { locality, endpoints, priority, weight }
        })
        .collect();
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: in_order(ranked),
        policy: policy(&snapshot.policy.drops, xds.overprovisioning_factor, dialect),
    }
}

/// A locality before its priority has become a number.
struct Ranked<'a> {
    locality: LocalityKey,
    endpoints: Vec<&'a Endpoint>,
    priority: (u32, u32),
    weight: Option<u64>,
}

impl Dialect {
    /// gRPC uses no others, and would not show them either. Envoy keeps what is begun with an
    /// endpoint that drains, and shows all of them.
    fn lists(self, state: EndpointState) -> bool {
        self == Self::Envoy || state == EndpointState::Serving
    }
}

fn fits(rule: &LocalityRule, (region, zone): &LocalityKey) -> bool {
    let is = |wanted: &Option<String>, got: &Option<Arc<str>>| {
        wanted.as_deref().is_none_or(|wanted| got.as_deref() == Some(wanted))
    };
    is(&rule.region, region) && is(&rule.zone, zone)
}

/// How far away: 0 is the same zone, 1 the same region. EndpointSlices tell zones and no regions,
/// so a region that is not known does not make the same zone another.
fn distance(client: Option<&Place>, (region, zone): &LocalityKey) -> u32 {
    let Some(client) = client else { return 0 };
    let same_region = region.as_deref().is_none_or(|region| region == client.region);
    let same_zone = zone.as_deref().is_some_and(|zone| zone == client.zone);
    match (same_region, same_zone) {
        (true, true) => 0,
        (true, false) if region.is_some() => 1,
        _ => 2,
    }
}

/// Priorities without gaps, in order.
fn in_order(ranked: Vec<Ranked<'_>>) -> Vec<LocalityLbEndpoints> {
    let mut by_priority: BTreeMap<(u32, u32), Vec<Ranked<'_>>> = BTreeMap::new();
    for one in ranked {
        by_priority.entry(one.priority).or_default().push(one);
    }
    let mut messages = Vec::new();
    for (priority, localities) in by_priority.into_values().enumerate() {
        let sum = |one: &Ranked<'_>| one.endpoints.iter().map(|e| u64::from(e.weight)).sum();
        let weight = |one: &Ranked<'_>| one.weight.unwrap_or_else(|| sum(one));
        let weights = summable(localities.iter().map(weight).collect());
        for (one, weight) in localities.into_iter().zip(weights) {
            let (region, zone) = one.locality;
            let text = |text: Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
            let locality =
                Locality { region: text(region), zone: text(zone), ..Locality::default() };
            messages.push(LocalityLbEndpoints {
                locality: Some(locality),
                lb_endpoints: endpoints(&one.endpoints),
                load_balancing_weight: Some(weight),
                // At most one for each endpoint.
                priority: priority as u32,
            });
        }
    }
    messages
}

fn endpoints(endpoints: &[&Endpoint]) -> Vec<LbEndpoint> {
    let weights = summable(endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).collect());
    let message = |(endpoint, weight): (&&Endpoint, u32)| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(EndpointMessage {
            address: Some(address(endpoint.address)),
            ..EndpointMessage::default()
        })),
        health_status: health(endpoint.state).into(),
        load_balancing_weight: Some(weight),
        metadata: None,
    };
    endpoints.iter().zip(weights).map(message).collect()
}

fn health(state: EndpointState) -> HealthStatus {
    match state {
        EndpointState::Serving => HealthStatus::Healthy,
        EndpointState::Draining => HealthStatus::Draining,
        EndpointState::Unhealthy => HealthStatus::Unhealthy,
    }
}

/// Weights whose sum fits into 32 bits, in the same proportions, none of them 0.
fn summable(weights: Vec<u64>) -> Vec<u32> {
    let sum = weights.iter().copied().fold(0, u64::saturating_add);
    // Each may be rounded up to 1.
    let room = u64::from(u32::MAX).saturating_sub(weights.len() as u64).max(1);
    let divisor = sum.div_ceil(room).max(1);
    let smaller = |weight: u64| u32::try_from(weight / divisor).unwrap_or(u32::MAX).max(1);
    weights.into_iter().map(smaller).collect()
}

fn policy(drops: &[Drop], overprovisioning: Option<u32>, dialect: Dialect) -> Option<Policy> {
    // gRPC says in its client features that it does not do it.
    let factor = overprovisioning.filter(|_| dialect == Dialect::Envoy);
    if drops.is_empty() && factor.is_none() {
        return None;
    }
    let drop = |drop: &Drop| DropOverload {
        category: drop.category.clone(),
        drop_percentage: Some(percent(drop.percent)),
    };
    Some(Policy {
        drop_overloads: drops.iter().map(drop).collect(),
        overprovisioning_factor: factor,
        ..Policy::default()
    })
}

#[cfg(test)]
mod tests;
