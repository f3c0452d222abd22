//! Configurations that are good, and the table of those that are not, with the place that is named.

use super::*;
use crate::snapshot::{ENDPOINTS_MAX, EndpointState};

fn read(text: &str) -> Result<Config, String> {
    Config::from_yaml(text, "grpclb.yaml", "default").map_err(|error| error.to_string())
}

const FULL: &str = "
services:
- name: greeter
  port: grpc
  aliases: [greeter.test]
  weights: {10.0.0.1: 3, \"10.0.0.2:8000\": 4, greeter-abc: 5}
  drops:
  - {category: overload, percent: 30}
  - {category: test, percent: 0.5}
  subset: {size: 20}
  allow: [\"spiffe://cluster.local/ns/default/sa/client\", \"spiffe://other/*\", client.test]
- name: fixed
  namespace: other
  endpoints:
  - {address: \"10.0.0.1:8000\", weight: 2, zone: a}
  - {address: \"[fd00::1]:8000\", state: draining}
limits: {streams_max: 100, streams_per_peer_max: 10}
clients: [shops, carts.other]
";

#[test]
fn everything_that_can_be_said_is_read() {
    let config = read(FULL).expect("good");
    let greeter = ServiceKey::parse("greeter.default:grpc", "").expect("a key");
    let service = &config.services[&greeter];
    assert_eq!((service.endpoints.is_none(), service.policy.subset), (true, Some(20)));
    let drops: Vec<_> = service.policy.drops.iter().map(|d| (&d.category[..], d.percent)).collect();
    assert_eq!(drops, [("overload", 30.0), ("test", 0.5)]);
    let mut endpoint = Endpoint::new("10.0.0.1:1".parse().expect("an address"));
    assert_eq!(service.weight_of(&endpoint), Some(3));
    endpoint.address = "10.0.0.2:8000".parse().expect("an address");
    assert_eq!(service.weight_of(&endpoint), Some(4));
    endpoint.address = "10.0.0.2:8001".parse().expect("an address");
    assert_eq!(service.weight_of(&endpoint), None);
    endpoint.pod = Some("greeter-abc".into());
    assert_eq!(service.weight_of(&endpoint), Some(5));
    let fixed = ServiceKey::parse("fixed.other", "").expect("a key");
    let endpoints = config.services[&fixed].endpoints.as_ref().expect("two");
    assert_eq!((endpoints[0].weight, endpoints[0].zone.as_deref()), (2, Some("a")));
    assert_eq!(endpoints[1].state, EndpointState::Draining);
    assert_eq!(config.limits.streams_per_peer_max, Some(10));
    let clients: Vec<String> = config.clients.iter().map(ToString::to_string).collect();
    assert_eq!(clients, ["shops.default", "carts.other"]);
}

#[test]
fn nothing_is_served_by_those_who_say_so_and_not_by_an_empty_file() {
    for text in ["services: []", "{}"] {
        assert_eq!(read(text), Ok(Config::default()), "{text:?}");
    }
    for text in ["", "\n", "# nothing yet\n"] {
        let error = read(text).expect_err(text);
        assert!(error.contains("write `services: []`"), "{error}");
    }
}

#[test]
fn a_service_has_a_limit_of_endpoints() {
    let endpoint = |n: usize| {
        let [_, a, b, c] = (n as u32).to_be_bytes();
        format!("  - {{address: \"10.{a}.{b}.{c}:8000\"}}\n")
    };
    let endpoints: String = (0..=ENDPOINTS_MAX).map(endpoint).collect();
    let error = read(&format!("services:\n- name: one\n  endpoints:\n{endpoints}"));
    let error = error.expect_err("too many");
    assert!(error.starts_with("grpclb.yaml:2:"), "{error}");
    assert!(error.contains("at most 20000 endpoints, got 20001"), "{error}");
}

#[test]
fn bad_input_is_refused_with_its_place_and_what_was_expected() {
    let service = |rest: &str| format!("services:\n- name: a\n  {rest}\n");
    let endpoint = |rest: &str| service(&format!("endpoints:\n  - {{{rest}}}"));
    let drop = |rest: &str| service(&format!("drops:\n  - {{{rest}}}"));
    let twice = "endpoints:\n  - address: 1.1.1.1:1\n  - address: 1.1.1.1:1";
    for (text, place, reason) in [
        (endpoint("address: \"1.1.1.1:0\""), "4:", "a port from 1 to 65535"),
        (endpoint("address: \"1.1.1.1:70000\""), "4:", "got \"1.1.1.1:70000\""),
        (endpoint("address: greeter:80"), "4:", "expected an IP address"),
        (endpoint("address: \"1.1.1.1:1\", weight: 0"), "4:", "expected 1 to 1000, got 0"),
        (endpoint("address: \"1.1.1.1:1\", weight: -1"), "4:", "got -1"),
        (endpoint("address: \"1.1.1.1:1\", weight: 1001"), "4:", "got 1001"),
        (endpoint("address: \"1.1.1.1:1\", state: gone"), "4:", "gone"),
        (endpoint("weight: 1"), "4:", "address"),
        (service(twice), "5:", "the address 1.1.1.1:1 is there twice"),
        (service("port: 70000"), "3:", "expected a port from 1 to 65535, got 70000"),
        (service("port: 0"), "3:", "got 0"),
        (service("weights: {b: 0}"), "3:", "expected 1 to 1000, got 0"),
        (drop("category: a, percent: 101"), "4:", "at most 100, got 101"),
        (drop("category: a, percent: 0"), "4:", "more than 0"),
        (drop("category: a, percent: .nan"), "4:", "percent"),
        (drop("category: \"a b\", percent: 1"), "4:", "category: expected"),
        (service("drops: [{category: a, percent: 60}, {category: b, percent: 60}]"), "3:", "120"),
        (service("drops: [{category: a, percent: 1}, {category: a, percent: 1}]"), "3:", "twice"),
        (service("subset: {size: 0}"), "3:", "at least 1, got 0"),
        (service("allow: []"), "3:", "at least one name"),
        (service("allow: [\"http://a\"]"), "3:", "expected spiffe://"),
        (service("aliases: [b, b]"), "3:", "alias b is there twice"),
        (service("aliases: [\"\"]"), "3:", "empty name"),
        (service("droops: []"), "3:", "droops"),
        ("services:\n- name: a\n- name: a\n".into(), "3:", "service a.default is there twice"),
        ("services:\n- name: A\n".into(), "2:", "lower-case"),
        ("services:\n- {}\n".into(), "2:", "name"),
        ("services: 5\n".into(), "1:", "sequence"),
        ("services: [\n".into(), "", ""),
        ("limits: {streams_max: 0}\n".into(), "1:", "at least 1"),
        ("limits: {streams_max: many}\n".into(), "1:", "invalid i64"),
        ("clients: [a, \"a:grpc\"]\n".into(), "1:", "name.namespace, got \"a:grpc\""),
        ("clients: [A]\n".into(), "1:", "lower-case"),
        (format!("clients: [{}]\n", vec!["a"; 101].join(", ")), "1:", "at most 100 `clients`"),
    ] {
        let error = read(&text).expect_err(&text);
        assert!(error.starts_with(&format!("grpclb.yaml:{place}")), "{text}\n{error}");
        assert!(error.contains(reason), "{text}\n{error}");
        assert!(!error.contains('\n'), "{error:?}");
    }
}

const XDS: &str = "
services:
- name: greeter
  endpoints: [{address: \"10.0.0.1:8000\", region: r, zone: a, state: unhealthy}]
  xds:
    listen: 127.0.0.1:10000
    policy: {ring_hash: {minimum_ring_size: 2048, header: X-User}}
    connect_timeout_s: 0.25
    max_requests: 10
    outlier_detection:
      {interval_s: 1, max_ejection_percent: 50, consecutive_5xx: 3,
       failure_percentage: {threshold: 50}}
    timeout_s: 1.5
    retries: {max: 2, on: [unavailable, resource_exhausted]}
    localities: [{region: r, zone: a, weight: 3}, {priority: 1}]
    priority_by_zone: true
    overprovisioning_factor: 140
    fault: {abort: {percent: 50, grpc_status: 14}, delay: {percent: 10, time_s: 0.1}}
    split: [{service: greeter, weight: 80}, {service: canary.other, weight: 20}]
    mtls: {identity: client, servers: [\"spiffe://a.test/server\"]}
    ingress: {listen: \"0.0.0.0:8443\", application: \"0.0.0.0:8000\", identity: client}
    load_reports: true
    tracing: {cluster: collector, percent: 1}
- {name: canary, namespace: other, xds: {policy: least_request}}
identities:
  client:
    {certificate: tls.crt, key: tls.key, roots: ca.crt, belongs_to: [\"spiffe://a.test/client\"]}
secrets: {local_peers: true}
";

#[test]
fn everything_that_clients_of_xds_can_be_told_is_read() {
    let config = read(XDS).expect("good");
    let key = |text| ServiceKey::parse(text, "default").expect("a key");
    let greeter = &config.services[&key("greeter")];
    let endpoint = &greeter.endpoints.as_ref().expect("one")[0];
    assert_eq!((endpoint.region.as_deref(), endpoint.state), (Some("r"), EndpointState::Unhealthy));
    let xds = &greeter.xds;
    let ring = RingHash { minimum_ring_size: 2_048, header: Some("x-user".into()) };
    assert_eq!(xds.policy, LbPolicy::RingHash(ring));
    let outliers = xds.outlier_detection.as_ref().expect("set");
    assert_eq!((outliers.consecutive_5xx, outliers.success_rate.is_none()), (Some(3), true));
    let failures = outliers.failure_percentage.as_ref().expect("set");
    assert_eq!((failures.threshold, failures.enforcing), (50, 100));
    assert_eq!((xds.localities[0].weight, xds.localities[1].priority), (Some(3), 1));
    assert_eq!(xds.split[1].key(&key("greeter")), key("canary.other"));
    let tracing = xds.tracing.as_ref().expect("set");
    assert_eq!((tracing.cluster.as_str(), tracing.percent), ("collector", 1.0));
    assert_eq!(xds.timeout, Some(std::time::Duration::from_millis(1_500)));
    let least = LbPolicy::LeastRequest(LeastRequest { choice_count: 2 });
    assert_eq!(config.services[&key("canary.other")].xds.policy, least);
    assert!(config.identities["client"].belongs_to.is_some() && config.secrets.local_peers);
}

#[test]
fn what_clients_of_xds_can_not_be_told_is_refused_with_its_place() {
    let xds = |rest: &str| format!("services:\n- name: a\n  xds:\n    {rest}\n");
    for (rest, place, reason) in [
        ("policy: fastest", "4:", "fastest"),
        ("policy: {round_robin: {}}", "4:", "has no settings"),
        ("policy: {ring_hash: {size: 1}}", "4:", "size"),
        ("policy: {ring_hash: {header: \"a b\"}}", "4:", "expected a header's name"),
        ("policy: {ring_hash: {}, least_request: {}}", "4:", "expected one policy"),
        ("policy: {least_request: {choice_count: 1}}", "4:", "from 2 to 100, got 1"),
        ("policy: 5", "4:", "a policy, one of round_robin"),
        ("listen: \"127.0.0.1:0\"", "4:", "a port from 1 to 65535"),
        ("timeout_s: 0", "4:", "0.001 to 86400 seconds, got 0"),
        ("max_requests: 0", "4:", "got 0"),
        ("retries: {max: 11}", "4:", "from 1 to 10, got 11"),
        ("retries: {max: 1, on: [not_found]}", "4:", "not_found"),
        ("localities: [{zone: a, priority: 128}]", "4:", "from 0 to 127, got 128"),
        ("overprovisioning_factor: 99", "4:", "from 100"),
        ("fault: {abort: {percent: 50, grpc_status: 17}}", "4:", "from 1 to 16, got 17"),
        ("fault: {delay: {percent: 101, time_s: 1}}", "4:", "at most 100, got 101"),
        ("split: [{service: a, weight: 0}]", "4:", "weight above 0"),
        ("split: [{service: b, weight: 1}]", "2:", "between services of this file, got b.default"),
        ("split: [{service: A, weight: 1}]", "4:", "lower-case"),
        ("mtls: {identity: b, servers: [c.test]}", "2:", "one of `identities`, got \"b\""),
        ("mtls: {identity: b, servers: []}", "4:", "at least one name"),
        ("ingress: {listen: \"0.0.0.0:1\"}", "4:", "application"),
        ("tracing: {cluster: \"a b\"}", "4:", "visible ASCII characters, got \"a b\""),
        ("tracing: {cluster: a, percent: 101}", "4:", "at most 100, got 101"),
        ("tracing: {percent: 1}", "4:", "cluster"),
        ("listen_on: here", "4:", "listen_on"),
    ] {
        let error = read(&xds(rest)).expect_err(rest);
        assert!(error.starts_with(&format!("grpclb.yaml:{place}")), "{rest}\n{error}");
        assert!(error.contains(reason), "{rest}\n{error}");
    }
    let error = read("services: []\nidentities: {A: {certificate: a, key: b, roots: c}}");
    assert!(error.expect_err("no label").contains("lower-case"));
}

#[test]
fn a_file_that_is_too_large_is_not_parsed() {
    let error = read(&" ".repeat(CONFIG_BYTES_MAX + 1)).expect_err("too large");
    assert!(error.contains("at most 4194304 bytes"), "{error}");
}

#[test]
fn an_alias_bomb_ends_in_an_error() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let below = format!("*a{}, ", n - 1).repeat(10);
        text += &format!("a{n}: &a{n} [{below}]\n");
    }
    read(&text).expect_err("no such field, or too much of it");
}

#[test]
fn endpoints_of_flags_win_and_the_rest_of_the_file_stays() {
    let file = read("services:\n- name: a\n  aliases: [c]\n- name: b\n");
    let flags = read("services:\n- name: a\n  endpoints: [{address: \"1.1.1.1:1\"}]\n- name: d\n");
    let both = file.expect("good").with_flags(&flags.expect("good"));
    let keys: Vec<String> = both.services.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["a.default", "b.default", "d.default"]);
    let a = &both.services[&ServiceKey::parse("a", "default").expect("a key")];
    assert_eq!((a.endpoints.as_ref().map(Vec::len), a.aliases.contains("c")), (Some(1), true));
}
