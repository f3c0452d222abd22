//! What istiod and its Envoys are given, as text.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::json;

use crate::{
    blocks::{APPLICATION_PORT, BACKEND_PORT},
    faults::CallFault,
};

/// The Service's name, by which calls are routed.
const HOST: &str = "greeter.default.svc.cluster.local";
/// The label `app` of the pods.
pub(super) const SERVER: &str = "greeter";
/// The version whose Envoys these are said to be; istiod decides by it what they understand.
const VERSION: &str = "1.31.0";
/// The mesh's own settings. Without the last one Envoy waits for certificates that nobody issues.
pub(super) const MESH: &str = "trustDomain: cluster.local\nrootNamespace: istio-system\n\
    enablePrometheusMerge: false\nenableAutoMtls: false\n";

/// The Service with the pods that are ready. `addresses` makes calls without the Service's name
/// find it.
///
/// Endpoints have all labels of their pods: istiod takes the labels of an Envoy from the endpoint
/// at its address as soon as it knows one, and not from what the Envoy says. Without the label
/// `pod` one that connects later would be told another's listeners, and nobody would listen at the
/// pod's address. They stand in the Service, and are no WorkloadEntries that it selects, so that a
/// change of several pods is one change of one object, as it is in an EndpointSlice.
pub(super) fn service(listen: SocketAddrV4, ready: &[Ipv4Addr]) -> String {
    let (ip, port) = (listen.ip(), listen.port());
    let endpoint = |ip: &Ipv4Addr| {
        let pod = name(*ip);
        format!("{{address: {ip}, labels: {{app: {SERVER}, pod: {pod}}}}}")
    };
    let endpoints = ready.iter().map(endpoint).collect::<Vec<_>>().join(",\n    ");
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: greeter, namespace: default}}
spec:
  hosts: [{HOST}]
  addresses: [{ip}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: {port}, name: grpc, protocol: GRPC, targetPort: {BACKEND_PORT}}}]
  endpoints: [{endpoints}]
"
    )
}

/// How calls are balanced, where the client's Envoy listens, and that there is no mutual TLS.
pub(super) fn settings(listen: SocketAddrV4) -> String {
    let (ip, port) = (listen.ip(), listen.port());
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: greeter, namespace: default}}
spec:
  host: {HOST}
  trafficPolicy:
    loadBalancer: {{simple: ROUND_ROBIN}}
    outlierDetection:
      {{consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 5s, maxEjectionPercent: 75}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: client}}}}
  egress:
  - port: {{number: {port}, protocol: GRPC, name: grpc}}
    bind: {ip}
    captureMode: NONE
    hosts: [\"default/*\"]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: DISABLE}}}}
"
    )
}

/// What the pod at `ip` is called.
fn name(ip: Ipv4Addr) -> String {
    format!("pod-{}", ip.to_string().replace('.', "-"))
}

/// The Service's routes.
pub(super) fn routes(fault: CallFault) -> String {
    let fault = match fault {
        CallFault::None => "",
        CallFault::Abort => "  - fault: {abort: {percentage: {value: 50}, grpcStatus: ABORTED}}\n",
        CallFault::Delay => "  - fault: {delay: {percentage: {value: 100}, fixedDelay: 0.1s}}\n",
    };
    let route = if fault.is_empty() { "  - " } else { "    " };
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: greeter, namespace: default}}
spec:
  hosts: [{HOST}]
  http:
{fault}{route}route: [{{destination: {{host: {HOST}}}}}]
"
    )
}

/// Where the Envoy of the pod `ip` listens, and where its application does.
pub(super) fn front(ip: Ipv4Addr) -> String {
    let name = name(ip);
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: default}}
spec:
  workloadSelector: {{labels: {{pod: {name}}}}}
  ingress:
  - port: {{number: {BACKEND_PORT}, protocol: GRPC, name: grpc}}
    bind: {ip}
    captureMode: NONE
    defaultEndpoint: 0.0.0.0:{APPLICATION_PORT}
  egress:
  - hosts: [\"~/*\"]
"
    )
}

/// The bootstrap of an Envoy at `ip` that istiod at `xds` tells everything: as Istio's agent
/// writes it, without the agent. `app` is whose pod it is in.
pub(crate) fn bootstrap(ip: Ipv4Addr, app: &str, xds: SocketAddrV4) -> String {
    let pod = name(ip);
    let at = |ip: Ipv4Addr, port: u16| {
        let address = ip.to_string();
        json!({"socket_address": {"address": address, "port_value": port}})
    };
    let ads = || json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    let http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let keepalive = json!({"connection_keepalive": {"interval": "30s", "timeout": "10s"}});
    let text = json!({
        "node": {
            "id": format!("sidecar~{ip}~{pod}.default~default.svc.cluster.local"),
            "cluster": format!("{app}.default"),
            "metadata": {
                "ISTIO_VERSION": VERSION, "CLUSTER_ID": "Kubernetes", "NAME": pod,
                "NAMESPACE": "default", "LABELS": {"app": app, "pod": pod},
                "INSTANCE_IPS": ip.to_string(), "INTERCEPTION_MODE": "NONE",
            },
        },
        "admin": {"address": at(Ipv4Addr::LOCALHOST, 0)},
        "dynamic_resources": {
            "lds_config": ads(),
            "cds_config": ads(),
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {
                    "cluster_name": "istiod",
                    "retry_policy":
                        {"retry_back_off": {"base_interval": "0.5s", "max_interval": "5s"}},
                }}],
            },
        },
        "static_resources": {"clusters": [{
            "name": "istiod", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "istiod",
                "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": at(*xds.ip(), xds.port()),
                }}]}],
            },
            "typed_extension_protocol_options": {http2: {
                "@type": format!("type.googleapis.com/{http2}"),
                "explicit_http_config": {"http2_protocol_options": keepalive},
            }},
        }]},
    });
    text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_that_are_ready_are_endpoints_of_one_object() {
        let listen = SocketAddrV4::new(Ipv4Addr::new(127, 64, 1, 201), 10_000);
        let pods = [Ipv4Addr::new(127, 64, 1, 1), Ipv4Addr::new(127, 64, 1, 12)];
        let text = service(listen, &pods);
        for (pod, name) in pods.iter().zip(["pod-127-64-1-1", "pod-127-64-1-12"]) {
            let endpoint = format!("{{address: {pod}, labels: {{app: greeter, pod: {name}}}}}");
            assert_eq!(text.matches(&endpoint).count(), 1, "{text}");
            // By the same label its Envoy is told where to listen.
            assert!(front(*pod).contains(&format!("{{labels: {{pod: {name}}}}}")));
        }
        assert!(text.contains("{number: 10000, name: grpc, protocol: GRPC, targetPort: 8000}"));
        assert_eq!(text.matches("kind:").count(), 1, "{text}");
        assert!(service(listen, &[]).ends_with("  endpoints: []\n"));
        assert!(settings(listen).contains("bind: 127.64.1.201\n"));
    }

    #[test]
    fn a_fault_stands_before_its_route_and_without_one_the_route_is_alone() {
        let route = "route: [{destination: {host: greeter.default.svc.cluster.local}}]";
        assert!(routes(CallFault::None).ends_with(&format!("  http:\n  - {route}\n")));
        for (fault, what) in [(CallFault::Abort, "ABORTED"), (CallFault::Delay, "0.1s")] {
            let text = routes(fault);
            assert!(text.contains(what) && text.ends_with(&format!("\n    {route}\n")), "{text}");
            assert_eq!(text.matches("  - ").count(), 1, "{text}");
        }
    }

    #[test]
    fn an_envoy_says_who_it_is_and_asks_istiod_alone() {
        let text = bootstrap(
            Ipv4Addr::new(127, 64, 1, 1),
            "greeter",
            "127.64.1.111:15010".parse().unwrap(),
        );
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["node"]["metadata"]["LABELS"]["pod"], "pod-127-64-1-1");
        let cluster = &read["static_resources"]["clusters"][0];
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["address"]["socket_address"]["port_value"], 15010);
        assert!(front(Ipv4Addr::new(127, 64, 1, 1)).contains("{pod: pod-127-64-1-1}"));
    }
}
