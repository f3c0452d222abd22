//! What makes an Envoy of the lab send its spans to the lab: a cluster of its own, and for a file
//! that has its listener in itself the tracer, too. Not in the files of `envoy/`: a cluster has its
//! collector somewhere else, or none.

use std::net::SocketAddr;

use super::Replacement;
use crate::spans::{DELAY_MS, EGRESS};

/// The cluster of the lab's receiver. Our balancer names it where it says the listener.
pub(crate) const CLUSTER: &str = "lab-spans";
/// Where something stands in all files that have a static listener or none.
const CLUSTERS: &str = "\n  clusters:\n";
const TOP: &str = "\noverload_manager:\n";
/// In the static sidecar's listener alone.
const MANAGER: &str = "\n          stat_prefix: egress\n";
/// Envoy sends spans by this many (5 by default), or when they have waited.
const BATCH: u32 = 64;

/// The receiver's cluster, and that spans wait there no longer than in our own processes.
pub(crate) fn traced(to: SocketAddr) -> [Replacement; 2] {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let (ip, port) = (to.ip(), to.port());
    let cluster = format!(
        "  - name: {CLUSTER}
    connect_timeout: 1s
    load_assignment:
      cluster_name: {CLUSTER}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }}
    typed_extension_protocol_options:
      {options}:
        \"@type\": type.googleapis.com/{options}
        explicit_http_config: {{ http2_protocol_options: {{}} }}
"
    );
    let runtime = format!(
        "
layered_runtime:
  layers:
  - name: lab
    static_layer:
      tracing.opentelemetry.flush_interval_ms: {DELAY_MS}
      tracing.opentelemetry.min_flush_spans: {BATCH}
"
    );
    [(CLUSTERS, format!("{CLUSTERS}{cluster}")), (TOP, format!("{runtime}{TOP}"))]
}

/// What the static sidecar's listener says beside that; others are told it by their control plane.
pub(crate) fn tracer() -> Replacement {
    let provider = format!(
        "
          tracing:
            spawn_upstream_span: true
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                \"@type\": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                grpc_service: {{ envoy_grpc: {{ cluster_name: {CLUSTER} }}, timeout: 5s }}
                service_name: {EGRESS}"
    );
    (MANAGER, format!("{provider}{MANAGER}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::{MESH_CLIENT, MESH_SERVER, SIDECAR_DYNAMIC, SIDECAR_STATIC, substitute};

    #[test]
    fn every_file_has_a_place_for_the_receiver_and_the_static_one_for_the_tracer() {
        let to = ([127, 0, 0, 1], 4317).into();
        for file in [&SIDECAR_STATIC, &SIDECAR_DYNAMIC, &MESH_CLIENT, &MESH_SERVER] {
            let text = substitute(file, &traced(to)).unwrap();
            assert!(text.contains("address: 127.0.0.1, port_value: 4317"), "{text}");
            assert_eq!(text.matches(CLUSTER).count(), 2, "{text}");
        }
        let all = [&traced(to)[..], &[tracer()]].concat();
        let text = substitute(&SIDECAR_STATIC, &all).unwrap();
        assert_eq!(text.matches(CLUSTER).count(), 3, "{text}");
    }
}
