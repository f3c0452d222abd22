//! Ports: the programs' defaults, the manifests' containers, probes and Services, the targets that
//! clients are given, and the bootstraps in envoy/. A wrong one is a rollout that never ends, or a
//! call that finds nobody.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Project, settings, yaml};
use crate::Finding;

/// Names of ports that speak gRPC.
const GRPC: [&str; 2] = ["grpc", "grpclb"];

/// What is known of ports before the places that name them are looked at.
struct Known<'a> {
    /// Services with the numbers and names of their ports.
    services: BTreeMap<&'a str, BTreeSet<String>>,
    /// Where sidecars listen for the client beside them.
    sidecars: BTreeSet<String>,
}

/// The rule.
pub(super) fn ports(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let known = known(project);
    let containers = settings::containers(project);
    for (path, documents) in &project.manifests {
        let mut report = |message: String| out.push(Finding::new(path, 0, "ports", message));
        for document in documents {
            yaml::mappings(document, &mut |map| {
                let name = yaml::text(map, "name").and_then(|name| containers.get(name));
                let program = name.and_then(|name| Some((*name, project.programs.get(*name)?)));
                if let (Some((name, program)), true) = (program, map.contains_key("ports")) {
                    of_container(name, program, map, &mut report);
                }
                if yaml::text(map, "kind") == Some("Service") {
                    of_service(project, map, &mut report);
                }
                of_sidecar(&known, map, &mut report);
            });
            yaml::texts(document, &mut |text| of_text(&known, text, &mut report));
        }
    }
    let client = project.programs.get("client").and_then(|client| client.flags.get("target"));
    let target = client.and_then(|target| target.default.as_deref()).unwrap_or_default();
    let greeter = project.programs.get("greeter").and_then(settings::Program::port);
    if target.rsplit(':').next().and_then(|port| port.parse().ok()) != greeter {
        let message = format!("the default target is {target}; greeter's port is {greeter:?}");
        out.push(Finding::new("services/client", 0, "ports", message));
    }
    pages(project, out)
}

/// The first lines of a server's README tell its port.
fn pages(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    for (name, program) in &project.programs {
        let path = format!("services/{name}/README.md");
        let Some(port) = program.port() else { continue };
        if !project.text(&path)?.contains(&format!("on port {port}")) {
            let message = format!("expected `on port {port}`, which is the default of src/");
            out.push(Finding::new(&path, 0, "ports", message));
        }
    }
    Ok(())
}

fn known<'a>(project: &'a Project<'_>) -> Known<'a> {
    let mut known = Known { services: BTreeMap::new(), sidecars: BTreeSet::new() };
    for document in project.manifests.values().flatten() {
        yaml::mappings(document, &mut |map| {
            let name = map.get("metadata").and_then(|metadata| metadata.get("name"));
            let spec = map.get("spec").and_then(Value::as_object);
            if let (Some("Service"), Some(name), Some(spec)) =
                (yaml::text(map, "kind"), name.and_then(Value::as_str), spec)
            {
                let ports = yaml::list(spec, "ports").flat_map(|port| {
                    [number(port, "port"), yaml::text(port, "name").map(str::to_owned)]
                });
                known.services.entry(name).or_default().extend(ports.flatten());
            }
            // Envoy's own listeners, and those that a balancer tells it.
            if yaml::text(map, "address") == Some("0.0.0.0") {
                known.sidecars.extend(number(map, "port_value"));
            }
            let told = yaml::text(map, "listen").and_then(|listen| listen.rsplit(':').next());
            known.sidecars.extend(told.map(str::to_owned));
        });
    }
    known
}

fn number(map: &Map<String, Value>, key: &str) -> Option<String> {
    map.get(key).and_then(Value::as_u64).map(|number| number.to_string())
}

/// What a container declares is what its program listens on, and what its probes ask.
fn of_container(
    name: &str,
    program: &settings::Program,
    container: &Map<String, Value>,
    report: &mut impl FnMut(String),
) {
    let declared: BTreeMap<&str, u64> = yaml::list(container, "ports")
        .filter_map(|port| Some((yaml::text(port, "name")?, port.get("containerPort")?.as_u64()?)))
        .collect();
    // Without the variable, the default; a variable of `*_LISTEN` says it for its own port.
    let set = |end: &str| {
        let mut env = yaml::list(container, "env");
        let entry = env.find(|e| yaml::text(e, "name").is_some_and(|name| name.ends_with(end)))?;
        yaml::text(entry, "value")?.rsplit(':').next()?.parse::<u64>().ok()
    };
    for (port, declared) in &declared {
        let listens = match *port {
            port if GRPC.contains(&port) => program.port(),
            "http-admin" => set("_ADMIN_LISTEN"),
            _ => None,
        };
        if listens != Some(*declared) {
            let listens = listens.map_or("no such port".to_owned(), |port| port.to_string());
            report(format!("the port {port} is {declared}; {name} listens on {listens}"));
        }
    }
    for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let asked = container.get(kind).and_then(|probe| probe.get("grpc")?.get("port")?.as_u64());
        if let Some(asked) = asked.filter(|asked| !declared.values().any(|port| port == asked)) {
            report(format!("the {kind} asks port {asked}, which {name} does not declare"));
        }
    }
}

/// A Service leads to a port that a pod of its selector declares, under the same number.
fn of_service(
    project: &Project<'_>,
    service: &Map<String, Value>,
    report: &mut impl FnMut(String),
) {
    let Some(spec) = service.get("spec").and_then(Value::as_object) else { return };
    let app = spec.get("selector").and_then(|selector| selector.get("app")?.as_str());
    for port in yaml::list(spec, "ports") {
        let (Some(target), Some(wanted)) = (yaml::text(port, "targetPort"), number(port, "port"))
        else {
            continue;
        };
        let mut found = None;
        for document in project.manifests.values().flatten() {
            let labels = document.pointer("/spec/template/metadata/labels/app");
            let pod = document.pointer("/spec/template/spec/containers").and_then(Value::as_array);
            if labels.and_then(Value::as_str) != app || app.is_none() {
                continue;
            }
            let containers = pod.into_iter().flatten().filter_map(Value::as_object);
            let mut ports = containers.flat_map(|container| yaml::list(container, "ports"));
            let named = ports.find(|port| yaml::text(port, "name") == Some(target));
            found = found.or(named.and_then(|port| number(port, "containerPort")));
        }
        if found.as_deref() != Some(wanted.as_str()) {
            let found = found.unwrap_or("none".to_owned());
            report(format!("the port {wanted} leads to {target}, which is {found} in its pods"));
        }
    }
}

/// Envoy's addresses, Istio's ports, and probes of sidecars.
fn of_sidecar(known: &Known<'_>, map: &Map<String, Value>, report: &mut impl FnMut(String)) {
    if let (Some(host), Some(port)) = (yaml::text(map, "address"), number(map, "port_value")) {
        of_text(known, &format!("{host}:{port}"), report);
    }
    let probed = map.get("tcpSocket").and_then(Value::as_object);
    let probed = probed.and_then(|socket| number(socket, "port"));
    if let Some(port) = probed.filter(|port| !known.sidecars.contains(port)) {
        report(format!("a probe asks port {port}; sidecars listen on {:?}", known.sidecars));
    }
    let istio = number(map, "number").filter(|_| map.contains_key("protocol"));
    let has = |port: &String| known.services.values().any(|ports| ports.contains(port));
    if let Some(port) = istio.filter(|port| !has(port)) {
        report(format!("no Service has the port {port}"));
    }
}

/// `dns:///greeter-server:8000`, `greeter-server-istio:8000`, `dns:///localhost:10000`.
fn of_text(known: &Known<'_>, text: &str, report: &mut impl FnMut(String)) {
    let target = text.rsplit("///").next().unwrap_or(text);
    let Some((host, port)) = target.split_once(':') else { return };
    let name = host.split('.').next().unwrap_or(host);
    // Overlays add suffixes, so the longest name that it begins with is the Service.
    let suffixed = |service: &&&str| {
        let rest = name.strip_prefix(**service);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let service = known.services.keys().filter(suffixed).max_by_key(|service| service.len());
    if let Some(service) = service
        && !known.services[service].contains(port)
    {
        report(format!("{text}: the ports of {service} are {:?}", known.services[service]));
    }
    if text.contains("///") && host == "localhost" && !known.sidecars.contains(port) {
        report(format!("{text}: sidecars listen on {:?}", known.sidecars));
    }
}
