//! LDS: where calls come in. A socket beside a client or a server for Envoy, a name for gRPC. All
//! have the fault filter, which does nothing until a route says so.

use std::net::SocketAddr;

use evenkeel_proto::envoy::{
    config::{
        core::v3::TrafficDirection,
        listener::v3::{ApiListener, Filter, FilterChain, Listener, filter},
    },
    extensions::filters::{
        http::{fault::v3::HttpFault, router::v3::Router},
        network::http_connection_manager::v3::{
            HttpConnectionManager, HttpFilter, Rds,
            http_connection_manager::{
                ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation,
                SetCurrentClientCertDetails,
            },
            http_filter,
        },
    },
};
use prost_types::Any;

use super::{
    Dialect,
    encode::{address, ads, any, duration},
    tls,
};
use crate::config::Ingress;

/// The fault filter's name, under which routes configure it.
pub(super) const FAULT_FILTER: &str = "envoy.filters.http.fault";
/// The type of its configuration.
pub(super) const FAULT_TYPE: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const ROUTER_TYPE: &str = "envoy.extensions.filters.http.router.v3.Router";
const MANAGER: &str = "envoy.filters.network.http_connection_manager";
const MANAGER_TYPE: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// For calls to a service from the application beside Envoy.
pub(super) fn egress(name: &str, listen: SocketAddr, route: &str) -> Listener {
    let chain = filter_chain(manager(route, Dialect::Envoy));
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
pub(super) fn ingress(name: &str, listen: SocketAddr, route: &str, of: &Ingress) -> Listener {
    let mut manager = manager(route, Dialect::Envoy);
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

fn http_filter(name: &str, config: Any) -> HttpFilter {
    let config_type = Some(http_filter::ConfigType::TypedConfig(config));
    HttpFilter { name: name.to_owned(), config_type, ..HttpFilter::default() }
}
