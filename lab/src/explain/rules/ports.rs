//! Ports: those that clients name, those on which pods listen, and what a mesh takes them for.

use crate::{
    cluster::objects::{Container, PortRef, ServicePort},
    explain::{
        clients::{Client, Role},
        target::Scheme,
        view::Mesh,
    },
};

use super::{Broken, Case, Holds, NotJudged, Verdict, Warns, shown_ports};

/// Prefixes of port names, and values of appProtocol, by which Istio knows HTTP/2.
const HTTP2: [&str; 3] = ["grpc", "http2", "grpc-web"];
const APP_HTTP2: [&str; 4] = ["grpc", "http2", "grpc-web", "kubernetes.io/h2c"];

pub(super) fn port(case: &Case<'_>) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> =
        case.service.spec.ports.iter().filter_map(|port| of_service(case, port)).collect();
    let wrong = case.clients.iter().filter_map(|client| of_client(case, client));
    verdicts.extend(wrong);
    if verdicts.is_empty() {
        let ports = case.endpoint_ports();
        verdicts.push(if ports.is_empty() {
            NotJudged("no endpoint says its port".to_owned())
        } else {
            Holds(format!("endpoints listen on {}", shown_ports(&ports)))
        });
    }
    verdicts
}

/// What is wrong with a port of the Service: its pods do not have it.
fn of_service(case: &Case<'_>, port: &ServicePort) -> Option<Verdict> {
    let pods = case.view.backends(case.service);
    let containers: Vec<&Container> = match pods.first() {
        Some(pod) => pod.spec.containers.iter().chain(&pod.spec.init_containers).collect(),
        None => return None,
    };
    let declared: Vec<(Option<String>, u16)> = containers
        .iter()
        .flat_map(|of| &of.ports)
        .map(|of| (of.name.clone(), of.container_port))
        .collect();
    let cure = |right: &str| patch(case, port, "replace", "targetPort", right);
    let first = declared.first()?;
    let right = match &first.0 {
        Some(name) => format!("\"{name}\""),
        None => first.1.to_string(),
    };
    match &port.target_port {
        Some(PortRef::Name(name)) => {
            let has = declared.iter().any(|(of, _)| of.as_ref() == Some(name));
            (!has).then(|| {
                Broken(
                    format!(
                        "targetPort {name} is no port of its pods; they declare {}",
                        shown_ports(&declared)
                    ),
                    cure(&right),
                )
            })
        }
        number => {
            let number = match number {
                Some(PortRef::Number(number)) => *number,
                _ => port.port,
            };
            // A port that is not declared may be listened on all the same.
            (!declared.iter().any(|(_, of)| *of == number)).then(|| {
                Warns(
                    format!(
                        "targetPort {number} is not declared by its pods; they declare {}",
                        shown_ports(&declared)
                    ),
                    cure(&right),
                )
            })
        }
    }
}

/// The command that sets `field` of `port` to `value`, which is JSON.
fn patch(case: &Case<'_>, port: &ServicePort, op: &str, field: &str, value: &str) -> String {
    let ports = &case.service.spec.ports;
    let at = ports.iter().position(|of| of.port == port.port).unwrap_or_default();
    case.command(&format!(
        "patch service {} --type=json -p \
         '[{{\"op\":\"{op}\",\"path\":\"/spec/ports/{at}/{field}\",\"value\":{value}}}]'",
        case.view.name
    ))
}

/// What is wrong with the port that a client names.
fn of_client(case: &Case<'_>, client: &Client) -> Option<Verdict> {
    if client.expects != case.view.namespace {
        return None;
    }
    let asked = client.target.port.as_ref()?;
    let endpoints = case.endpoint_ports();
    let watches = client.role == Role::Balancer || client.target.scheme == Scheme::Kubernetes;
    let own = client.target.scheme == Scheme::Dns && client.mesh.is_none();
    let (fits, whose, right) = if watches || (own && case.service.is_headless()) {
        (endpoints.iter().any(|of| is(asked, of)), "the pods'", shown_ports(&endpoints))
    } else {
        let ports: Vec<(Option<String>, u16)> =
            case.service.spec.ports.iter().map(|of| (of.name.clone(), of.port)).collect();
        (ports.iter().any(|of| is(asked, of)), "the Service's", shown_ports(&ports))
    };
    if fits || right.is_empty() {
        return None;
    }
    let number = endpoints.first().map_or("PORT".to_owned(), |(_, number)| number.to_string());
    let text = &client.target.text;
    let better = match text.strip_suffix(&format!(":{asked}")) {
        Some(head) if whose == "the pods'" => format!("{head}:{number}"),
        Some(head) => format!("{head}:{}", case.service.spec.ports.first()?.port),
        None => format!("{text}:{number}"),
    };
    Some(Broken(
        format!("{} asks for port {asked}; {whose} ports are {right}", client.shown()),
        super::callers::set_target(case, client, &better),
    ))
}

fn is(asked: &PortRef, (name, number): &(Option<String>, u16)) -> bool {
    match asked {
        PortRef::Number(asked) => asked == number,
        PortRef::Name(asked) => name.as_ref() == Some(asked),
    }
}

pub(super) fn protocol(case: &Case<'_>) -> Vec<Verdict> {
    let servers = case.view.servers(case.service).into_iter();
    let meshes = servers.filter_map(|of| case.view.mesh_of(of));
    let istio = meshes.chain(case.clients.iter().filter_map(|of| of.mesh));
    let istio = istio.filter(|mesh| *mesh == Mesh::Istio).count() > 0;
    let told = |port: &&ServicePort| told(port).is_none();
    let untold: Vec<&ServicePort> = case.service.spec.ports.iter().filter(told).collect();
    if case.view.is_unread("namespaces") && !istio {
        return vec![NotJudged("whether a mesh is injected is not known".to_owned())];
    }
    match untold.first() {
        None => {
            let protocols: Vec<&str> = case.service.spec.ports.iter().filter_map(told_by).collect();
            vec![Holds(format!("declared: {}", protocols.join(", ")))]
        }
        Some(_) if !istio => vec![Holds("not declared, and no mesh reads it".to_owned())],
        Some(port) => vec![Broken(
            format!(
                "port {} ({}) does not say that it speaks gRPC, and a mesh reads it",
                port.port,
                port.name.as_deref().unwrap_or("without a name"),
            ),
            patch(case, port, "add", "appProtocol", "\"grpc\""),
        )],
    }
}

fn told_by(port: &ServicePort) -> Option<&str> {
    told(port)
}

/// By what a port says that it speaks HTTP/2; appProtocol goes before the name.
fn told(port: &ServicePort) -> Option<&str> {
    if let Some(protocol) = port.app_protocol.as_deref() {
        return APP_HTTP2.contains(&protocol).then_some(protocol);
    }
    let name = port.name.as_deref()?;
    let says = |of: &str| name == of || name.starts_with(&format!("{of}-"));
    HTTP2.iter().any(|of| says(of)).then_some(name)
}
