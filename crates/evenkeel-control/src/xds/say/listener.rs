//! LDS: where calls come in. A socket beside a client or a server for Envoy, a name for gRPC. All
//! have the fault filter, which does nothing until a route says so.

use std::net::SocketAddr;

use evenkeel_proto::envoy::{
    config::{
        core::v3::{
            GrpcService, TrafficDirection,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
        },
        listener::v3::{ApiListener, Filter, FilterChain, Listener, filter},
        trace::v3::{OpenTelemetryConfig, tracing as provider},
    },
    extensions::filters::{
        http::{fault::v3::HttpFault, router::v3::Router},
        network::http_connection_manager::v3::{
            HttpConnectionManager, HttpFilter, Rds,
            http_connection_manager::{
                ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation,
                SetCurrentClientCertDetails, Tracing as ManagersTracing,
            },
            http_filter,
        },
    },
    r#type::v3::Percent,
};
use prost_types::Any;

use super::{
    Dialect,
    encode::{address, ads, any, duration},
    tls,
};
use crate::config::{Ingress, Tracing};

/// The fault filter's name, under which routes configure it.
pub(super) const FAULT_FILTER: &str = "envoy.filters.http.fault";
/// The type of its configuration.
pub(super) const FAULT_TYPE: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const ROUTER_TYPE: &str = "envoy.extensions.filters.http.router.v3.Router";
const MANAGER: &str = "envoy.filters.network.http_connection_manager";
const MANAGER_TYPE: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

const TRACER: &str = "envoy.tracers.opentelemetry";
const TRACER_TYPE: &str = "envoy.config.trace.v3.OpenTelemetryConfig";
/// Envoy's default of 0 would wait for a collector without end, and keep what it could not send.
const EXPORT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// What Envoys call themselves (`service.name`): the one beside a client, the one beside a server.
const EGRESS_SERVICE: &str = "envoy-egress";
const INGRESS_SERVICE: &str = "envoy-ingress";

/// For calls to a service from the application beside Envoy.
pub(super) fn egress(
    name: &str,
    listen: SocketAddr,
    route: &str,
    traced: Option<&Tracing>,
) -> Listener {
    let mut manager = manager(route, Dialect::Envoy);
    manager.tracing = traced.map(|traced| tracing(traced, EGRESS_SERVICE));
    let chain = filter_chain(manager);
    socket(name, listen, TrafficDirection::Outbound, chain)
}

/// For gRPC clients that call `xds:///NAME`.
pub(super) fn api(name: &str, route: &str) -> Listener {
    let manager = any(MANAGER_TYPE, &manager(route, Dialect::Grpc));
    Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(manager) }),
        ..Listener::default()
    }
}

/// For calls to the application beside Envoy.
pub(super) fn ingress(
    name: &str,
    listen: SocketAddr,
    route: &str,
    (of, traced): (&Ingress, Option<&Tracing>),
) -> Listener {
    let mut manager = manager(route, Dialect::Envoy);
    manager.tracing = traced.map(|traced| tracing(traced, INGRESS_SERVICE));
    if of.identity.is_some() {
        // The application learns who calls, and never from the caller's own words.
        manager.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet.into();
        let details = SetCurrentClientCertDetails { uri: true, dns: true, ..Default::default() };
        manager.set_current_client_cert_details = Some(details);
    }
    let mut chain = filter_chain(manager);
    let secured = of.identity.as_ref().map(|identity| tls::downstream(identity, of.allow.as_ref()));
    chain.transport_socket = secured;
    socket(name, listen, TrafficDirection::Inbound, chain)
}

fn socket(
    name: &str,
    listen: SocketAddr,
    direction: TrafficDirection,
    chain: FilterChain,
) -> Listener {
    Listener {
        name: name.to_owned(),
        address: Some(address(listen)),
        filter_chains: vec![chain],
        traffic_direction: direction.into(),
        ..Listener::default()
    }
}

fn filter_chain(manager: HttpConnectionManager) -> FilterChain {
    let config = filter::ConfigType::TypedConfig(any(MANAGER_TYPE, &manager));
    let manager = Filter { name: MANAGER.into(), config_type: Some(config) };
    FilterChain { filters: vec![manager], ..FilterChain::default() }
}

fn manager(route: &str, dialect: Dialect) -> HttpConnectionManager {
    let rds = Rds { config_source: Some(ads()), route_config_name: route.to_owned() };
    let mut manager = HttpConnectionManager {
        stat_prefix: route.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        http_filters: vec![
            HttpFilter {
                // A client that does not know it goes without faults.
                is_optional: dialect == Dialect::Grpc,
                ..http_filter(FAULT_FILTER, any(FAULT_TYPE, &HttpFault::default()))
            },
            http_filter("envoy.filters.http.router", any(ROUTER_TYPE, &Router::default())),
        ],
        ..HttpConnectionManager::default()
    };
    if dialect == Dialect::Envoy {
        // Envoy's default would end a stream that is silent for five minutes.
        manager.stream_idle_timeout = Some(duration(std::time::Duration::ZERO));
        let keep = ServerHeaderTransformation::PassThrough;
        manager.server_header_transformation = keep.into();
    }
    manager
}

/// A span of what comes in and one below it of each try to send it on, to the collector. Envoy
/// takes the caller's W3C context and puts that of its own span into what it sends.
fn tracing(of: &Tracing, service: &str) -> ManagersTracing {
    let cluster = EnvoyGrpc { cluster_name: of.cluster.clone() };
    let tracer = OpenTelemetryConfig {
        grpc_service: Some(GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(cluster)),
            timeout: Some(duration(EXPORT_TIMEOUT)),
        }),
        service_name: service.to_owned(),
    };
    let config = provider::http::ConfigType::TypedConfig(any(TRACER_TYPE, &tracer));
    ManagersTracing {
        random_sampling: Some(Percent { value: of.percent }),
        provider: Some(provider::Http { name: TRACER.to_owned(), config_type: Some(config) }),
        spawn_upstream_span: Some(true),
    }
}

fn http_filter(name: &str, config: Any) -> HttpFilter {
    let config_type = Some(http_filter::ConfigType::TypedConfig(config));
    HttpFilter { name: name.to_owned(), config_type, ..HttpFilter::default() }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn manager_of(listener: &Listener) -> HttpConnectionManager {
        let Some(filter::ConfigType::TypedConfig(config)) =
            &listener.filter_chains[0].filters[0].config_type
        else {
            panic!("it has its configuration in itself")
        };
        HttpConnectionManager::decode(&*config.value).expect("a manager")
    }

    #[test]
    fn envoys_are_told_a_collector_only_where_the_service_has_one() {
        let at = ([127, 0, 0, 1], 10_000).into();
        let traced = Tracing { cluster: "collector".into(), percent: 1.0 };
        let of = Ingress { listen: at, application: at, identity: None, allow: None };
        assert_eq!(manager_of(&egress("a", at, "a", None)).tracing, None);
        assert_eq!(manager_of(&ingress("a", at, "a", (&of, None))).tracing, None);
        for (listener, service) in [
            (egress("a", at, "a", Some(&traced)), EGRESS_SERVICE),
            (ingress("a", at, "a", (&of, Some(&traced))), INGRESS_SERVICE),
        ] {
            let tracing = manager_of(&listener).tracing.expect("traced");
            assert_eq!(tracing.random_sampling, Some(Percent { value: 1.0 }));
            let provider = tracing.provider.expect("a tracer");
            let Some(provider::http::ConfigType::TypedConfig(config)) = provider.config_type else {
                panic!("it has its configuration in itself")
            };
            assert_eq!(config.type_url, format!("type.googleapis.com/{TRACER_TYPE}"));
            let tracer = OpenTelemetryConfig::decode(&*config.value).expect("OpenTelemetry's");
            assert_eq!(tracer.service_name, service);
            let to = tracer.grpc_service.expect("gRPC").target_specifier;
            let cluster = EnvoyGrpc { cluster_name: "collector".into() };
            assert_eq!(to, Some(TargetSpecifier::EnvoyGrpc(cluster)));
        }
    }
}
