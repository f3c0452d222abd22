//! Selections as tables: slices in, addresses out.

use evenkeel_core::Address;
use serde_json::{Value, json};

use super::*;
use crate::api;

/// `address flags…`: `r` ready, `s` serving, `t` terminating, `-` none of them, `?` not said;
/// `>zone` a hint.
fn endpoint(text: &str) -> Value {
    let mut words = text.split(' ');
    let address = words.next().unwrap();
    let mut conditions = json!({"ready": false, "serving": false, "terminating": false});
    let mut hints = Vec::new();
    for word in words {
        match word {
            "r" => conditions["ready"] = true.into(),
            "s" => conditions["serving"] = true.into(),
            "t" => conditions["terminating"] = true.into(),
            "?" => conditions = json!({}),
            "-" => {}
            hint => hints.push(json!({"name": hint.strip_prefix('>').unwrap()})),
        }
    }
    json!({"addresses": [address], "conditions": conditions, "hints": {"forZones": hints}})
}

fn slice(family: &str, ports: &Value, endpoints: &[&str]) -> Value {
    let endpoints: Vec<Value> = endpoints.iter().map(|text| endpoint(text)).collect();
    json!({"metadata": {}, "addressType": family, "ports": ports, "endpoints": endpoints})
}

fn slices(list: impl IntoIterator<Item = Value>) -> Slices {
    let mut slices = Slices::new(ServiceKey::new("default", "greeter").unwrap());
    for (number, value) in list.into_iter().enumerate() {
        let read: api::EndpointSlice = serde_json::from_value(value).unwrap();
        slices.by_name.insert(format!("greeter-{number}").into(), Arc::new(Slice::read(read)));
    }
    slices
}

fn grpc() -> Value {
    json!([{"name": "grpc", "port": 8000, "protocol": "TCP"}])
}

fn number() -> Selection {
    Selection::new(Port::Number(8000))
}

fn selected(slices: &Slices, selection: &Selection) -> Vec<String> {
    let endpoints = slices.select(selection).unwrap();
    let show =
        |e: &Endpoint| e.addresses().iter().map(Address::to_string).collect::<Vec<_>>().join("|");
    endpoints.iter().map(show).collect()
}

fn ipv4(endpoints: &[&str]) -> Slices {
    slices([slice("IPv4", &grpc(), endpoints)])
}

#[test]
fn ready_endpoints_serve_and_terminating_ones_only_when_nothing_else_does() {
    for (endpoints, want) in [
        (&["10.0.0.1 r s", "10.0.0.2 s", "10.0.0.3 s t", "10.0.0.4 -"][..], &["10.0.0.1:8000"][..]),
        (&["10.0.0.1 s t", "10.0.0.2 t", "10.0.0.3 s"], &["10.0.0.1:8000"]),
        // Unknown is ready, and serving follows from it.
        (&["10.0.0.1 ?", "10.0.0.2 s t"], &["10.0.0.1:8000"]),
        // publishNotReadyAddresses.
        (&["10.0.0.1 r s t"], &["10.0.0.1:8000"]),
        (&["10.0.0.1 -", "10.0.0.2 t"], &[]),
        (&[], &[]),
    ] {
        assert_eq!(selected(&ipv4(endpoints), &number()), want, "{endpoints:?}");
    }
}

#[test]
fn slices_are_merged_and_an_endpoint_in_two_of_them_counts_once() {
    let merged = slices([
        slice("IPv4", &grpc(), &["10.0.0.1 r", "10.0.0.2 -"]),
        slice("IPv4", &grpc(), &["10.0.0.2 r", "10.0.0.1 r", "10.0.0.3 r"]),
    ]);
    let want = ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"];
    assert_eq!(selected(&merged, &number()), want);
    assert_eq!((merged.len(), merged.endpoints_count()), (2, 5));
}

#[test]
fn one_family_serves_and_it_is_ipv4_when_there_is_any() {
    let both = slices([
        slice("IPv6", &grpc(), &["fd00::1 r", "fd00::2 r"]),
        slice("IPv4", &grpc(), &["10.0.0.1 r", "10.0.0.2 r"]),
    ]);
    assert_eq!(selected(&both, &number()), ["10.0.0.1:8000", "10.0.0.2:8000"]);
    let six =
        slices([slice("IPv6", &grpc(), &["fd00::1 r"]), slice("IPv4", &grpc(), &["10.0.0.1 -"])]);
    assert_eq!(selected(&six, &number()), ["[fd00::1]:8000"]);
}

#[test]
fn ports_are_found_by_name_or_by_the_endpoints_number() {
    let ports = json!([
        {"name": "metrics", "port": 9090},
        {"name": "grpc", "port": 8000, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    let old = json!([{"name": "grpc", "port": 7000}]);
    let set =
        slices([slice("IPv4", &ports, &["10.0.0.1 r"]), slice("IPv4", &old, &["10.0.0.2 r"])]);
    let select = |port: &str| set.select(&Selection::new(port.parse().unwrap()));
    let count = |port: &str| select(port).map(|found| found.len());
    assert_eq!(
        selected(&set, &Selection::new("grpc".parse().unwrap())),
        ["10.0.0.1:8000", "10.0.0.2:7000"]
    );
    assert_eq!((count("8000"), count("7000"), count("metrics")), (Ok(1), Ok(1), Ok(1)));
    let error = select("53").unwrap_err().to_string();
    assert_eq!(
        error,
        "expected a port with the number 53 in the EndpointSlices of greeter.default; they have \
         metrics=9090, grpc=8000, grpc=7000; name one of those (a number is the port of the pods, \
         not of the Service; a name works too)"
    );
    let error = select("http").unwrap_err();
    assert_eq!(error.offered, ["metrics=9090", "grpc=8000", "grpc=7000"]);
    assert!(error.to_string().starts_with("expected a port named http in"), "{error}");
}

#[test]
fn slices_without_ports_take_any_number_and_an_empty_set_any_port() {
    let headless = slices([slice("IPv4", &Value::Null, &["10.0.0.1 r"])]);
    assert_eq!(selected(&headless, &number()), ["10.0.0.1:8000"]);
    let any = slices([slice("IPv4", &json!([{"name": "grpc"}]), &["10.0.0.1 r"])]);
    assert_eq!(selected(&any, &number()), ["10.0.0.1:8000"]);
    let error = headless.select(&Selection::new("grpc".parse().unwrap())).unwrap_err();
    assert!(error.to_string().contains("they have no TCP ports;"), "{error}");
    // Scaled to nothing, a Service's slice has neither endpoints nor ports.
    for empty in [slices([]), slices([slice("IPv4", &Value::Null, &[])])] {
        assert!(empty.select(&Selection::new("grpc".parse().unwrap())).unwrap().is_empty());
    }
}

#[test]
fn hints_count_when_every_ready_endpoint_has_them_and_one_is_for_the_zone() {
    let all = &["10.0.0.1 r >a", "10.0.0.2 r >b", "10.0.0.3 r >a >b"][..];
    let some = &["10.0.0.1 r >a", "10.0.0.2 r"][..];
    let draining = &["10.0.0.1 s t >a", "10.0.0.2 s t >b"][..];
    let beside = &["10.0.0.1 r >a", "10.0.0.2 r >b", "10.0.0.3 -"][..];
    for (endpoints, zone, want) in [
        (all, Some("a"), &[1, 3][..]),
        (all, Some("b"), &[2, 3]),
        (all, Some("c"), &[1, 2, 3]),
        (all, None, &[1, 2, 3]),
        (some, Some("a"), &[1, 2]),
        (draining, Some("a"), &[1, 2]),
        (beside, Some("a"), &[1]),
    ] {
        let selection = match zone {
            Some(zone) => number().zone(zone),
            None => number(),
        };
        let want: Vec<String> = want.iter().map(|n| format!("10.0.0.{n}:8000")).collect();
        assert_eq!(selected(&ipv4(endpoints), &selection), want, "{endpoints:?} {zone:?}");
    }
}

#[test]
fn zone_node_and_pod_become_attributes() {
    let mut value = slice("IPv4", &grpc(), &["10.0.0.1 r", "10.0.0.2 r"]);
    let first = &mut value["endpoints"][0];
    first["zone"] = "eu-1a".into();
    first["nodeName"] = "node-1".into();
    first["targetRef"] = json!({"kind": "Pod", "name": "greeter-abc", "uid": "1"});
    value["endpoints"][1]["targetRef"] = json!({"kind": "VirtualMachine", "name": "x"});
    let endpoints = slices([value]).select(&number()).unwrap();
    let attributes = endpoints[0].attributes();
    assert_eq!(attributes.zone.as_deref(), Some("eu-1a"));
    assert_eq!(attributes.node.as_deref(), Some("node-1"));
    assert_eq!(attributes.pod.as_deref(), Some("greeter-abc"));
    assert_eq!(*endpoints[1].attributes(), Attributes::default());
}

#[test]
fn what_is_no_address_of_its_family_is_counted_and_left_out() {
    let set = slices([
        slice("FQDN", &grpc(), &["example.com r", "example.org r"]),
        slice("IPv4", &grpc(), &["10.0.0.1 r", "fd00::1 r", "10.0.0 r"]),
    ]);
    assert_eq!(selected(&set, &number()), ["10.0.0.1:8000"]);
    assert_eq!(set.ignored_count(), 3);
    // Their ports are nobody's.
    let only = slices([slice("FQDN", &grpc(), &["example.com r"])]);
    assert!(only.select(&Selection::new("http".parse().unwrap())).unwrap().is_empty());
}

#[test]
fn several_addresses_of_one_endpoint_stay_together() {
    let mut value = slice("IPv4", &grpc(), &["10.0.0.1 r"]);
    value["endpoints"][0]["addresses"] = json!(["10.0.0.1", "10.0.0.2"]);
    assert_eq!(selected(&slices([value]), &number()), ["10.0.0.1:8000|10.0.0.2:8000"]);
}

#[test]
fn hints_are_of_ready_addresses_and_zones_of_all() {
    let mut other = slice("IPv6", &grpc(), &["fd00::1 r s >b"]);
    other["endpoints"][0]["zone"] = "b".into();
    let mut first =
        slice("IPv4", &grpc(), &["10.0.0.1 r s >a >b", "10.0.0.2 r s", "10.0.0.3 s t >a"]);
    first["endpoints"][2]["zone"] = "a".into();
    let slices = slices([first, other]);
    let hints = slices.hints();
    let of = |ip: &str| hints.get(&ip.parse().unwrap()).map(|zones| zones.join(" "));
    assert_eq!(of("10.0.0.1").as_deref(), Some("a b"));
    assert_eq!((of("10.0.0.2"), of("10.0.0.3")), (None, None));
    assert_eq!(of("fd00::1").as_deref(), Some("b"));
    let zones = slices.zones();
    let of = |ip: &str| zones.get(&ip.parse().unwrap()).map(|zone| zone.to_string());
    assert_eq!(of("10.0.0.3").as_deref(), Some("a"));
    assert_eq!(of("fd00::1").as_deref(), Some("b"));
    assert_eq!(zones.len(), 2, "the others' nodes have none");
}
