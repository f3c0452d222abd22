//! Assignments as tables: endpoints in, localities out.

use super::*;
use crate::{config::Config, key::ServiceKey, merge::Merge};

/// The one service of a configuration.
fn assignment_of(
    yaml: &str,
    dialect: Dialect,
    zone: Option<(&str, &str)>,
) -> ClusterLoadAssignment {
    let yaml = format!("services:\n- name: a\n{yaml}\n");
    let config = Config::from_yaml(&yaml, "test", "default").expect("good");
    let (key, service) = config.services.first_key_value().expect("one");
    let mut merge = Merge::new(key.clone());
    let snapshot = merge.configure(service.clone()).expect("it has endpoints");
    let place = zone.map(|(region, zone)| Place { region: region.into(), zone: zone.into() });
    assignment("a", &snapshot, &service.xds, dialect, place.as_ref())
}

/// `priority region/zone*weight: port*weight…`, a locality each.
fn shown(assignment: &ClusterLoadAssignment) -> Vec<String> {
    let endpoint = |one: &LbEndpoint| {
        let Some(HostIdentifier::Endpoint(endpoint)) = &one.host_identifier else {
            panic!("no endpoint")
        };
        let address = endpoint.address.clone().expect("set").address.expect("set");
        let text = format!("{address:?}");
        let port = text.split("PortValue(").nth(1).and_then(|rest| rest.split(')').next());
        let health = match one.health_status() {
            HealthStatus::Healthy => "",
            HealthStatus::Draining => " draining",
            _ => " unhealthy",
        };
        format!("{}*{}{health}", port.expect("a port"), one.load_balancing_weight.unwrap_or(0))
    };
    let locality = |one: &LocalityLbEndpoints| {
        let place = one.locality.clone().expect("always");
        let endpoints: Vec<String> = one.lb_endpoints.iter().map(endpoint).collect();
        let (weight, endpoints) = (one.load_balancing_weight.unwrap_or(0), endpoints.join(", "));
        format!("{} {}/{}*{weight}: {endpoints}", one.priority, place.region, place.zone)
    };
    assignment.endpoints.iter().map(locality).collect()
}

const ZONES: &str = "  endpoints:
  - {address: \"10.0.0.1:1\", region: r, zone: a, weight: 2}
  - {address: \"10.0.0.1:2\", region: r, zone: b}
  - {address: \"10.0.0.1:3\", region: s, zone: a}
  - {address: \"10.0.0.1:4\", region: r, zone: a}
  xds: ";

#[test]
fn a_locality_weighs_what_its_endpoints_weigh_unless_a_rule_says_otherwise() {
    let plain = assignment_of(&format!("{ZONES}{{}}"), Dialect::Grpc, None);
    assert_eq!(shown(&plain), ["0 r/a*3: 1*2, 4*1", "0 r/b*1: 2*1", "0 s/a*1: 3*1"]);
    let rules = "{localities: [{region: r, zone: a, weight: 7}, {region: r, priority: 2}]}";
    let ruled = assignment_of(&format!("{ZONES}{rules}"), Dialect::Grpc, None);
    assert_eq!(
        shown(&ruled),
        ["0 r/a*7: 1*2, 4*1", "0 s/a*1: 3*1", "1 r/b*1: 2*1"],
        "priorities have no gap"
    );
}

#[test]
fn what_is_near_comes_first_where_the_service_wants_that() {
    let yaml = format!("{ZONES}{{priority_by_zone: true}}");
    let near = assignment_of(&yaml, Dialect::Envoy, Some(("r", "a")));
    assert_eq!(shown(&near), ["0 r/a*3: 1*2, 4*1", "1 r/b*1: 2*1", "2 s/a*1: 3*1"]);
    let elsewhere = assignment_of(&yaml, Dialect::Envoy, Some(("t", "a")));
    assert!(shown(&elsewhere).iter().all(|locality| locality.starts_with("0 ")));
    let nowhere = assignment_of(&yaml, Dialect::Envoy, None);
    assert!(shown(&nowhere).iter().all(|locality| locality.starts_with("0 ")));
    let only_zones = yaml.replace("region: r, ", "").replace("region: s, ", "");
    let near = assignment_of(&only_zones, Dialect::Grpc, Some(("", "b")));
    assert_eq!(shown(&near)[0], "0 /b*1: 2*1", "slices know no regions");
}

#[test]
fn configured_priorities_come_before_what_is_near() {
    let rules = "{priority_by_zone: true, localities: [{region: s}, {priority: 1}]}";
    let both = assignment_of(&format!("{ZONES}{rules}"), Dialect::Grpc, Some(("r", "b")));
    assert_eq!(shown(&both), ["0 s/a*1: 3*1", "1 r/b*1: 2*1", "2 r/a*3: 1*2, 4*1"]);
}

#[test]
fn envoy_hears_of_endpoints_that_do_not_serve_and_grpc_does_not() {
    let yaml = "  endpoints:
  - {address: \"10.0.0.1:1\", zone: a}
  - {address: \"10.0.0.1:2\", zone: a, state: draining}
  - {address: \"10.0.0.1:3\", zone: b, state: unhealthy}";
    let envoy = assignment_of(yaml, Dialect::Envoy, None);
    assert_eq!(shown(&envoy), ["0 /a*2: 1*1, 2*1 draining", "0 /b*1: 3*1 unhealthy"]);
    assert_eq!(shown(&assignment_of(yaml, Dialect::Grpc, None)), ["0 /a*1: 1*1"]);
}

#[test]
fn calls_to_drop_are_told_and_overprovisioning_only_to_envoy() {
    let yaml = "  endpoints: []
  drops: [{category: throttle, percent: 12.5}]
  xds: {overprovisioning_factor: 200}";
    let told = assignment_of(yaml, Dialect::Envoy, None).policy.expect("drops");
    let percentage = told.drop_overloads[0].drop_percentage.expect("set");
    assert_eq!(told.drop_overloads[0].category, "throttle");
    assert_eq!((percentage.numerator, percentage.denominator), (125_000, 2));
    assert_eq!(told.overprovisioning_factor, Some(200));
    let grpc = assignment_of(yaml, Dialect::Grpc, None).policy.expect("drops");
    assert_eq!(grpc.overprovisioning_factor, None);
    assert_eq!(assignment_of("  endpoints: []", Dialect::Envoy, None).policy, None);
}

#[test]
fn weights_are_made_smaller_when_their_sum_would_overflow() {
    assert_eq!(summable(vec![1, 2, 3]), [1, 2, 3]);
    let max = u64::from(u32::MAX);
    let large = summable(vec![max, max, 1, max * 2]);
    assert!(large.iter().map(|weight| u64::from(*weight)).sum::<u64>() <= max, "{large:?}");
    assert_eq!((large[2], large[3] / large[0]), (1, 2));
    assert!(summable(Vec::new()).is_empty());
    assert_eq!(summable(vec![u64::MAX, u64::MAX]).len(), 2);
}

#[test]
fn an_endpoint_that_follows_the_load_has_the_weight_of_the_moment() {
    let key = ServiceKey::parse("a", "default").expect("a key");
    let yaml = "services: [{name: a, load_aware: {}, endpoints: [{address: \"10.0.0.1:1\"}]}]";
    let config = Config::from_yaml(yaml, "test", "default").expect("good");
    let service = config.services[&key].clone();
    let mut merge = Merge::new(key);
    merge.configure(service.clone()).expect("news");
    let factors = [("10.0.0.1:1".parse().expect("an address"), 40)].into();
    let snapshot = merge.weigh(factors).expect("news");
    let made = assignment("a", &snapshot, &service.xds, Dialect::Envoy, None);
    assert_eq!(shown(&made), ["0 /*40: 1*40"]);
}
