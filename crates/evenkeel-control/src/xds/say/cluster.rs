//! CDS: a service as a cluster. Policies are in the old field `lb_policy` where both Envoy and gRPC
//! understand that, because every version of them does; else they are lists of policies of which a
//! client takes the first one that it knows (gRFC A52).

use evenkeel_proto::envoy::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster, LoadBalancingPolicy, OutlierDetection as OutlierMessage,
            circuit_breakers::{Thresholds, thresholds::RetryBudget},
            cluster::{
                ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbConfig,
                LbPolicy as OldPolicy, LeastRequestLbConfig, RingHashLbConfig,
                common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
            },
            load_balancing_policy::Policy as OnePolicy,
        },
        core::v3::{
            ApiVersion, ConfigSource, Http2ProtocolOptions, SelfConfigSource, TypedExtensionConfig,
            config_source::ConfigSourceSpecifier,
        },
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
            lb_endpoint::HostIdentifier,
        },
    },
    extensions::{
        load_balancing_policies::{
            client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin,
            least_request::v3::LeastRequest as LeastRequestMessage, round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
        upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
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
use crate::{
    config::{LbPolicy, OutlierDetection, ServiceConfig, WeightedRoundRobin, Xds},
    weights::by_clients,
    xds::shares::METRICS,
};

const POLICIES: &str = "envoy.extensions.load_balancing_policies";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// How many of a client's calls may be retries of others, in per cent: more would keep a service
/// down that has come back.
const RETRY_BUDGET_PERCENT: f64 = 20.0;
/// Retries at once that are allowed however few calls are in flight; as in envoy/.
const RETRY_CONCURRENCY_MIN: u32 = 50;

/// The cluster of a service. `identity` is the client's own, if its node names one.
pub(super) fn cluster(
    name: &str,
    service: &ServiceConfig,
    dialect: Dialect,
    identity: Option<&str>,
) -> Cluster {
    let xds = &*service.xds;
    let mut cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            ..EdsClusterConfig::default()
        }),
        circuit_breakers: circuit_breakers(xds, dialect),
        outlier_detection: xds.outlier_detection.as_ref().map(outlier_detection),
        lrs_server: (xds.load_reports && dialect == Dialect::Grpc).then(own_server),
        transport_socket: xds.mtls.as_ref().map(|mtls| match dialect {
            Dialect::Envoy => tls::upstream(identity.unwrap_or(&mtls.identity), &mtls.servers),
            Dialect::Grpc => tls::upstream_by_bootstrap(&mtls.servers),
        }),
        ..base(name, xds)
    };
    if dialect == Dialect::Envoy {
        cluster.typed_extension_protocol_options = http2();
        cluster.common_lb_config = Some(common_lb_config(xds));
        // gRPC clients report these by locality, which makes no weights.
        if by_clients(service.policy.load_aware.as_ref()) {
            cluster.lrs_report_endpoint_metrics = METRICS.map(str::to_owned).into();
        }
    }
    balance(&mut cluster, &xds.policy, dialect);
    cluster
}

/// The application behind an Envoy at its side.
pub(super) fn local(name: &str, xds: &Xds, application: std::net::SocketAddr) -> Cluster {
    let endpoint = Endpoint { address: Some(address(application)), ..Endpoint::default() };
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    };
    let locality =
        LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![locality],
            policy: None,
        }),
        typed_extension_protocol_options: http2(),
        ..base(name, xds)
    }
}

fn base(name: &str, xds: &Xds) -> Cluster {
    Cluster {
        name: name.to_owned(),
        connect_timeout: Some(duration(xds.connect_timeout)),
        ..Cluster::default()
    }
}

fn http2() -> std::collections::BTreeMap<String, Any> {
    let http2 = ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default());
    let explicit = ExplicitHttpConfig { protocol_config: Some(http2) };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    };
    [(HTTP_OPTIONS.to_owned(), any(HTTP_OPTIONS, &options))].into()
}

fn own_server() -> ConfigSource {
    let own = SelfConfigSource { transport_api_version: ApiVersion::V3.into() };
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Self_(own)),
        ..ConfigSource::default()
    }
}

fn common_lb_config(xds: &Xds) -> CommonLbConfig {
    let weighted = LocalityWeightedLbConfig {};
    let weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(weighted);
    CommonLbConfig {
        // Else, with half of the endpoints draining, Envoy calls all of them again ("panic").
        healthy_panic_threshold: Some(Percent { value: 0.0 }),
        // Without weights of localities all endpoints take turns, whatever zone they are in.
        locality_config_specifier: (!xds.localities.is_empty()).then_some(weighted),
        // By default Envoy gathers changes of health and weight for a second before it heeds them.
        update_merge_window: Some(prost_types::Duration::default()),
        ..CommonLbConfig::default()
    }
}

fn circuit_breakers(xds: &Xds, dialect: Dialect) -> Option<CircuitBreakers> {
    let budget = xds.retries.as_ref().filter(|_| dialect == Dialect::Envoy).map(|_| RetryBudget {
        budget_percent: Some(Percent { value: RETRY_BUDGET_PERCENT }),
        // By default 3 at a time, too few for the moment in which a busy endpoint dies.
        min_retry_concurrency: Some(RETRY_CONCURRENCY_MIN),
    });
    if xds.max_requests.is_none() && budget.is_none() {
        return None;
    }
    let thresholds = Thresholds {
        max_requests: xds.max_requests,
        retry_budget: budget,
        ..Thresholds::default()
    };
    Some(CircuitBreakers { thresholds: vec![thresholds] })
}

fn outlier_detection(xds: &OutlierDetection) -> OutlierMessage {
    let failures = xds.failure_percentage.as_ref();
    let rate = xds.success_rate.as_ref();
    OutlierMessage {
        interval: xds.interval.map(duration),
        base_ejection_time: xds.base_ejection_time.map(duration),
        max_ejection_time: xds.max_ejection_time.map(duration),
        max_ejection_percent: xds.max_ejection_percent,
        consecutive_5xx: xds.consecutive_5xx,
        enforcing_consecutive_5xx: Some(if xds.consecutive_5xx.is_some() { 100 } else { 0 }),
        failure_percentage_threshold: failures.map(|by| by.threshold),
        enforcing_failure_percentage: Some(failures.map_or(0, |by| by.enforcing)),
        failure_percentage_minimum_hosts: failures.map(|by| by.minimum_hosts),
        failure_percentage_request_volume: failures.map(|by| by.request_volume),
        success_rate_stdev_factor: rate.map(|by| by.stdev_factor),
        enforcing_success_rate: Some(rate.map_or(0, |by| by.enforcing)),
        success_rate_minimum_hosts: rate.map(|by| by.minimum_hosts),
        success_rate_request_volume: rate.map(|by| by.request_volume),
        ..OutlierMessage::default()
    }
}

fn balance(cluster: &mut Cluster, policy: &LbPolicy, dialect: Dialect) {
    match policy {
        LbPolicy::RoundRobin => cluster.lb_policy = OldPolicy::RoundRobin.into(),
        LbPolicy::RingHash(ring) => {
            cluster.lb_policy = OldPolicy::RingHash.into();
            cluster.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: Some(ring.minimum_ring_size.into()),
                ..RingHashLbConfig::default()
            }));
        }
        LbPolicy::LeastRequest(least) => {
            let choice_count = Some(least.choice_count);
            match dialect {
                Dialect::Envoy => {
                    cluster.lb_policy = OldPolicy::LeastRequest.into();
                    let config = LeastRequestLbConfig { choice_count };
                    cluster.lb_config = Some(LbConfig::LeastRequestLbConfig(config));
                }
                // C-core does not know it and would refuse the cluster.
                Dialect::Grpc => {
                    let least = LeastRequestMessage { choice_count, ..Default::default() };
                    let name = format!("{POLICIES}.least_request.v3.LeastRequest");
                    let other = format!("{POLICIES}.round_robin.v3.RoundRobin");
                    let policies =
                        [one(any(&name, &least)), one(any(&other, &RoundRobin::default()))];
                    cluster.load_balancing_policy = Some(in_localities(policies.into()));
                }
            }
        }
        LbPolicy::WeightedRoundRobin(wrr) => {
            let policies = vec![one(weighted_round_robin(wrr))];
            cluster.load_balancing_policy = Some(match dialect {
                Dialect::Envoy => LoadBalancingPolicy { policies },
                Dialect::Grpc => in_localities(policies),
            });
        }
    }
}

fn weighted_round_robin(wrr: &WeightedRoundRobin) -> Any {
    let message = ClientSideWeightedRoundRobin {
        enable_oob_load_report: wrr.out_of_band.map(|_| true),
        oob_reporting_period: wrr.out_of_band.map(|oob| duration(oob.period)),
        blackout_period: wrr.blackout_period.map(duration),
        weight_expiration_period: wrr.weight_expiration_period.map(duration),
        weight_update_period: wrr.weight_update_period.map(duration),
        error_utilization_penalty: wrr.error_utilization_penalty,
    };
    let package = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin";
    any(&format!("{POLICIES}.{package}"), &message)
}

/// gRPC picks a locality by weight and an endpoint in it by these; Envoy does so on its own.
fn in_localities(policies: Vec<OnePolicy>) -> LoadBalancingPolicy {
    let inner = WrrLocality { endpoint_picking_policy: Some(LoadBalancingPolicy { policies }) };
    let name = format!("{POLICIES}.wrr_locality.v3.WrrLocality");
    LoadBalancingPolicy { policies: vec![one(any(&name, &inner))] }
}

fn one(policy: Any) -> OnePolicy {
    // `envoy.load_balancing_policies.NAME`, as the extension is registered.
    let name = policy.type_url.rsplit('.').nth(2).unwrap_or_default();
    let name = format!("envoy.load_balancing_policies.{name}");
    OnePolicy {
        typed_extension_config: Some(TypedExtensionConfig { name, typed_config: Some(policy) }),
    }
}
