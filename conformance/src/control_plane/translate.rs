//! From the file of `peer xds` to our YAML, as a user would write it. The peer's file has listeners
//! and clusters apart, ours has services: a cluster with one listener is a service with an alias; a
//! listener that shares clusters, or splits calls between them, is a service without endpoints.

use std::collections::BTreeMap;

use program::duration;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The file, with the peer's names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    clusters: Vec<Cluster>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: String,
    #[serde(default)]
    listen: String,
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    split: Vec<Split>,
    #[serde(default)]
    hash_header: String,
    #[serde(default)]
    timeout: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Split {
    cluster: String,
    weight: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    name: String,
    #[serde(default)]
    policy: String,
    #[serde(default)]
    min_ring_size: u64,
    #[serde(default)]
    max_requests: u32,
    outlier: Option<Outlier>,
    #[serde(default)]
    drops: Vec<Drop>,
    #[serde(default)]
    localities: Vec<Locality>,
    #[serde(default)]
    overprovisioning_factor: u32,
    #[serde(default)]
    no_eds: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outlier {
    #[serde(default)]
    interval: String,
    #[serde(default)]
    base_ejection_time: String,
    max_ejection_percent: Option<u32>,
    consecutive_5xx: Option<u32>,
    failure_percentage_threshold: Option<u32>,
    enforcing_failure_percentage: Option<u32>,
    failure_percentage_minimum_hosts: Option<u32>,
    failure_percentage_request_volume: Option<u32>,
    enforcing_success_rate: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drop {
    category: String,
    per_million: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Locality {
    #[serde(default)]
    region: String,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    priority: u32,
    #[serde(default)]
    weight: u32,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    addr: String,
    #[serde(default)]
    weight: u32,
    #[serde(default)]
    health: String,
}

/// The text of our YAML (it is JSON, which is YAML too).
pub(super) fn translate(text: &str) -> Result<String, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut listeners = BTreeMap::<&str, Vec<&Service>>::new();
    for service in &file.services {
        let clusters = service.split.iter().map(|part| part.cluster.as_str());
        for cluster in clusters.chain([service.cluster.as_str()]).filter(|name| !name.is_empty()) {
            listeners.entry(cluster).or_default().push(service);
        }
    }
    let own = |cluster: &str| match listeners.get(cluster).map(Vec::as_slice) {
        Some([only]) if only.split.is_empty() => Some(*only),
        _ => None,
    };
    let mut services = Vec::new();
    for cluster in &file.clusters {
        services.push(of_cluster(cluster, own(&cluster.name), listeners.get(&*cluster.name))?);
    }
    let clusters: BTreeMap<&str, &Cluster> =
        file.clusters.iter().map(|cluster| (&*cluster.name, cluster)).collect();
    for (number, service) in file.services.iter().enumerate() {
        if own(&service.cluster).is_none() {
            services.push(of_listener(number, service, &clusters)?);
        }
    }
    Ok(json!({"services": services}).to_string())
}

fn of_cluster(
    cluster: &Cluster,
    listener: Option<&Service>,
    all: Option<&Vec<&Service>>,
) -> Result<Value, String> {
    let header = all.and_then(|all| all.iter().map(|service| &service.hash_header).next());
    let mut xds = Map::new();
    xds.insert("policy".into(), policy(cluster, header.map_or("", String::as_str))?);
    // As `peer xds` has it; 5 s is our own.
    xds.insert("connect_timeout_s".into(), json!(1));
    if cluster.max_requests > 0 {
        xds.insert("max_requests".into(), json!(cluster.max_requests));
    }
    if cluster.overprovisioning_factor > 0 {
        let factor = cluster.overprovisioning_factor;
        xds.insert("overprovisioning_factor".into(), json!(factor));
    }
    if let Some(outlier) = &cluster.outlier {
        xds.insert("outlier_detection".into(), outlier_detection(outlier)?);
    }
    if let Some(rules) = localities(&cluster.localities) {
        xds.insert("localities".into(), rules);
    }
    let mut service = json!({"name": cluster.name});
    if let Some(listener) = listener {
        add_listener(&mut xds, listener)?;
        service["aliases"] = json!([listener.name]);
    }
    service["xds"] = Value::Object(xds);
    service["drops"] = cluster
        .drops
        .iter()
        .filter(|drop| drop.per_million > 0)
        .map(|drop| {
            let percent = f64::from(drop.per_million) / 10_000.0;
            json!({"category": drop.category, "percent": percent})
        })
        .collect();
    if !cluster.no_eds {
        service["endpoints"] = endpoints(&cluster.localities)?;
    }
    Ok(service)
}

/// A listener that has no cluster to itself.
fn of_listener(
    number: usize,
    service: &Service,
    clusters: &BTreeMap<&str, &Cluster>,
) -> Result<Value, String> {
    let mut xds = Map::new();
    let part = |cluster: &str, weight: u32| json!({"service": cluster, "weight": weight});
    let split = match service.split.is_empty() {
        true => vec![part(&service.cluster, 1)],
        false => service.split.iter().map(|one| part(&one.cluster, one.weight)).collect(),
    };
    // Which header is hashed is a matter of the route.
    if let Some(cluster) = clusters.get(&*service.cluster) {
        xds.insert("policy".into(), policy(cluster, &service.hash_header)?);
    }
    xds.insert("split".into(), json!(split));
    add_listener(&mut xds, service)?;
    let name = format!("listener-{number}");
    Ok(json!({"name": name, "aliases": [service.name], "endpoints": [], "xds": xds}))
}

fn add_listener(xds: &mut Map<String, Value>, service: &Service) -> Result<(), String> {
    if !service.listen.is_empty() {
        xds.insert("listen".into(), json!(service.listen));
    }
    if !service.timeout.is_empty() {
        xds.insert("timeout_s".into(), seconds(&service.timeout)?);
    }
    Ok(())
}

fn policy(cluster: &Cluster, header: &str) -> Result<Value, String> {
    Ok(match &*cluster.policy {
        "" | "round_robin" => json!("round_robin"),
        "least_request" => json!({"least_request": {"choice_count": 2}}),
        "ring_hash" => {
            let size = if cluster.min_ring_size == 0 { 1_024 } else { cluster.min_ring_size };
            let mut ring = json!({"minimum_ring_size": size});
            if !header.is_empty() {
                ring["header"] = json!(header);
            }
            json!({"ring_hash": ring})
        }
        "weighted_round_robin" => {
            let wrr = json!({"blackout_period_s": 0.1, "weight_update_period_s": 0.1});
            json!({"weighted_round_robin": wrr})
        }
        other => return Err(format!("cluster {}: unknown policy {other:?}", cluster.name)),
    })
}

fn outlier_detection(outlier: &Outlier) -> Result<Value, String> {
    let mut detection = Map::new();
    for (name, text) in
        [("interval_s", &outlier.interval), ("base_ejection_time_s", &outlier.base_ejection_time)]
    {
        if !text.is_empty() {
            detection.insert(name.into(), seconds(text)?);
        }
    }
    if let Some(percent) = outlier.max_ejection_percent {
        detection.insert("max_ejection_percent".into(), json!(percent));
    }
    if let Some(count) = outlier.consecutive_5xx.filter(|count| *count > 0) {
        detection.insert("consecutive_5xx".into(), json!(count));
    }
    let given = |values: &[(&str, Option<u32>)]| -> Map<String, Value> {
        let set = values.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        set.map(|(name, value)| (name.to_owned(), value.into())).collect()
    };
    let failures = given(&[
        ("threshold", outlier.failure_percentage_threshold),
        ("enforcing", outlier.enforcing_failure_percentage),
        ("minimum_hosts", outlier.failure_percentage_minimum_hosts),
        ("request_volume", outlier.failure_percentage_request_volume),
    ]);
    if !failures.is_empty() {
        detection.insert("failure_percentage".into(), Value::Object(failures));
    }
    // Where nothing is said, the peer leaves Envoy's own default in force.
    let rate = given(&[("enforcing", outlier.enforcing_success_rate)]);
    detection.insert("success_rate".into(), Value::Object(rate));
    Ok(Value::Object(detection))
}

/// Priorities and weights; with one locality there is nothing to say.
fn localities(localities: &[Locality]) -> Option<Value> {
    if let [] | [Locality { priority: 0, .. }] = localities {
        return None;
    }
    let rule = |(index, locality): (usize, &Locality)| {
        let (priority, weight) = (locality.priority, locality.weight.max(1));
        let mut rule =
            json!({"region": region(index, locality), "priority": priority, "weight": weight});
        if !locality.zone.is_empty() {
            rule["zone"] = json!(locality.zone);
        }
        rule
    };
    Some(localities.iter().enumerate().map(rule).collect())
}

fn region(index: usize, locality: &Locality) -> String {
    match locality.region.is_empty() {
        true => format!("r{index}"),
        false => locality.region.clone(),
    }
}

fn endpoints(localities: &[Locality]) -> Result<Value, String> {
    let mut all = Vec::new();
    for (index, locality) in localities.iter().enumerate() {
        for endpoint in &locality.endpoints {
            let state = match &*endpoint.health.to_ascii_uppercase() {
                "" | "HEALTHY" | "UNKNOWN" => "serving",
                "DRAINING" => "draining",
                "UNHEALTHY" | "TIMEOUT" => "unhealthy",
                other => return Err(format!("health {other:?}: we have no such state")),
            };
            let mut one = json!({
                "address": endpoint.addr,
                "weight": endpoint.weight.max(1),
                "region": region(index, locality),
                "state": state,
            });
            if !locality.zone.is_empty() {
                one["zone"] = json!(locality.zone);
            }
            all.push(one);
        }
    }
    Ok(Value::Array(all))
}

fn seconds(text: &str) -> Result<Value, String> {
    let time = duration::parse(text).map_err(|error| format!("{text}: {error}"))?;
    Ok(json!(time.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use evenkeel_control::{
        ServiceKey,
        config::{Config, LbPolicy, ServiceConfig},
        snapshot::EndpointState,
    };

    use super::*;

    fn services(text: &str) -> BTreeMap<ServiceKey, ServiceConfig> {
        let yaml = translate(text).expect("good");
        Config::from_yaml(&yaml, "test", "default").expect("what we accept").services
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey::parse(name, "default").expect("a key")
    }

    #[test]
    fn a_cluster_with_one_listener_is_a_service_with_an_alias() {
        let all = services(
            r#"{"services": [{"name": "greeter.test", "cluster": "c", "listen": "127.0.0.1:1",
                              "hash_header": "x-hash", "timeout": "1.5s"}],
                "clusters": [{"name": "c", "policy": "ring_hash", "max_requests": 10,
                  "outlier": {"interval": "1s", "failure_percentage_threshold": 50},
                  "drops": [{"category": "throttle", "per_million": 300000}],
                  "localities": [
                    {"region": "a", "weight": 3, "endpoints": [{"addr": "127.0.0.1:2"}]},
                    {"priority": 1, "endpoints": [
                      {"addr": "127.0.0.1:3", "weight": 4, "health": "TIMEOUT"}]}]}]}"#,
        );
        let service = &all[&key("c")];
        assert!(all.len() == 1 && service.aliases.contains("greeter.test"));
        let xds = &service.xds;
        let LbPolicy::RingHash(ring) = &xds.policy else { panic!("{:?}", xds.policy) };
        assert_eq!((ring.minimum_ring_size, ring.header.as_deref()), (1_024, Some("x-hash")));
        assert_eq!(xds.timeout, Some(std::time::Duration::from_millis(1_500)));
        assert_eq!(service.policy.drops[0].percent, 30.0);
        let rules: Vec<_> = xds.localities.iter().map(|l| (l.priority, l.weight)).collect();
        assert_eq!(rules, [(0, Some(3)), (1, Some(1))]);
        let endpoints = service.endpoints.as_ref().expect("two");
        assert_eq!(endpoints[1].region.as_deref(), Some("r1"));
        let (weight, state) = (endpoints[1].weight, endpoints[1].state);
        assert_eq!((weight, state), (4, EndpointState::Unhealthy));
    }

    #[test]
    fn the_peers_own_example_is_taken() {
        let all = services(
            r#"{"services": [
                  {"name": "greeter.test", "listen": "127.0.77.91:9100", "cluster": "greeter",
                   "hash_header": "", "timeout": ""},
                  {"name": "split.test", "split": [{"cluster": "greeter", "weight": 80},
                                                   {"cluster": "canary", "weight": 20}]}],
                "clusters": [
                  {"name": "greeter", "outlier": {"max_ejection_percent": 50,
                    "enforcing_success_rate": 0}, "drops": [{"category": "t", "per_million": 0}],
                   "localities": [{"endpoints": [{"addr": "127.0.77.1:8000"}]}]},
                  {"name": "canary", "policy": "ring_hash", "no_eds": true}]}"#,
        );
        let names: Vec<_> = all.keys().map(ToString::to_string).collect();
        let [canary, greeter, first, second] = &names[..] else { panic!("{names:?}") };
        assert_eq!((&**canary, &**greeter), ("canary.default", "greeter.default"));
        assert!(first.starts_with("listener-0") && second.starts_with("listener-1"));
        let split = &all[&key("listener-1")].xds.split;
        assert_eq!((split[0].weight, split[1].key(&key("x"))), (80, key("canary")));
        assert!(
            all[&key("canary")].endpoints.is_none() && all[&key("greeter")].policy.drops.is_empty()
        );
    }

    #[test]
    fn what_we_can_not_say_is_refused() {
        for (text, reason) in [
            (r#"{"clusters": [{"name": "c", "policy": "maglev"}]}"#, "unknown policy"),
            (r#"{"clusters": [{"name": "c", "polcy": "x"}]}"#, "polcy"),
            (r#"{"services": [{"name": "s", "cluster": "c", "timeout": "1"}]}"#, "1"),
            (
                r#"{"clusters": [{"name": "c", "localities": [
                    {"endpoints": [{"addr": "127.0.0.1:1", "health": "DEGRADED"}]}]}]}"#,
                "no such state",
            ),
        ] {
            let error = translate(text).expect_err(text);
            assert!(error.contains(reason), "{error}");
        }
    }
}
