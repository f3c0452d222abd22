//! RDS: all calls of a listener to one cluster, or to several by weight. Faults are here and not in
//! the listener, so that switching them on and off rebuilds no listener and cuts no connection.

use std::{collections::BTreeMap, time::Duration};

use evenkeel_proto::envoy::{
    config::route::v3::{
        RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
        WeightedCluster,
        retry_policy::RetryHostPredicate,
        retry_policy::retry_host_predicate::ConfigType,
        route::Action,
        route_action::{
            ClusterSpecifier, HashPolicy, MaxStreamDuration,
            hash_policy::{Header, PolicySpecifier},
        },
        route_match::PathSpecifier,
        weighted_cluster::ClusterWeight,
    },
    extensions::filters::{
        common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
        http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
    },
};
use prost_types::Any;

use super::{
    Dialect,
    encode::{any, duration, percent},
    listener::{FAULT_FILTER, FAULT_TYPE},
};
use crate::config::{Fault, LbPolicy, Retries, RetryStatus, Xds};

/// What Envoy sends again because no server can have begun it.
const NOT_BEGUN: &str = "connect-failure,refused-stream,reset-before-request";
const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
/// How often Envoy looks for an endpoint that has not been tried yet.
const OTHER_HOST_ATTEMPTS: i64 = 3;

/// All calls to `targets`, by weight.
pub(super) fn route(
    name: &str,
    targets: &[(String, u32)],
    xds: &Xds,
    dialect: Dialect,
) -> RouteConfiguration {
    let specifier = match targets {
        [(only, _)] => ClusterSpecifier::Cluster(only.clone()),
        several => ClusterSpecifier::WeightedClusters(weighted(several)),
    };
    let action = RouteAction {
        cluster_specifier: Some(specifier),
        // Envoy's default would cut each call after 15 s, and answer UNAVAILABLE where a deadline
        // is DEADLINE_EXCEEDED; so the time is limited below.
        timeout: Some(duration(Duration::ZERO)),
        max_stream_duration: Some(max_stream_duration(xds.timeout)),
        retry_policy: xds.retries.as_ref().and_then(|retries| retry_policy(retries, dialect)),
        hash_policy: hash_policy(&xds.policy),
        ..RouteAction::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".into())),
            ..RouteMatch::default()
        }),
        typed_per_filter_config: xds.fault.as_ref().map(faults).unwrap_or_default(),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    let host = VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    }
}

fn weighted(targets: &[(String, u32)]) -> WeightedCluster {
    let cluster = |(name, weight): &(String, u32)| ClusterWeight {
        name: name.clone(),
        weight: Some(*weight),
        ..ClusterWeight::default()
    };
    WeightedCluster { clusters: targets.iter().map(cluster).collect() }
}

/// The caller's own deadline counts, up to the limit; 0 is no limit.
fn max_stream_duration(timeout: Option<Duration>) -> MaxStreamDuration {
    MaxStreamDuration {
        max_stream_duration: timeout.map(duration),
        grpc_timeout_header_max: Some(duration(timeout.unwrap_or_default())),
        ..MaxStreamDuration::default()
    }
}

fn retry_policy(retries: &Retries, dialect: Dialect) -> Option<RetryPolicy> {
    let statuses = retries.on.iter().map(|status| status.as_envoy_says());
    match dialect {
        Dialect::Envoy => {
            let on: Vec<&str> = [NOT_BEGUN].into_iter().chain(statuses).collect();
            let other_host = RetryHostPredicate {
                name: "envoy.retry_host_predicates.previous_hosts".into(),
                config_type: Some(ConfigType::TypedConfig(Any {
                    type_url: format!("type.googleapis.com/{PREVIOUS_HOSTS}"),
                    value: Vec::new(),
                })),
            };
            Some(RetryPolicy {
                retry_on: on.join(","),
                num_retries: Some(retries.max),
                retry_host_predicate: vec![other_host],
                host_selection_retry_max_attempts: OTHER_HOST_ATTEMPTS,
                ..RetryPolicy::default()
            })
        }
        // It sends again by itself what was not begun.
        Dialect::Grpc if retries.on.is_empty() => None,
        Dialect::Grpc => Some(RetryPolicy {
            retry_on: statuses.collect::<Vec<_>>().join(","),
            num_retries: Some(retries.max),
            ..RetryPolicy::default()
        }),
    }
}

impl RetryStatus {
    fn as_envoy_says(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Internal => "internal",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Unavailable => "unavailable",
        }
    }
}

fn hash_policy(policy: &LbPolicy) -> Vec<HashPolicy> {
    let LbPolicy::RingHash(ring) = policy else { return Vec::new() };
    let by = |header: &String| HashPolicy {
        policy_specifier: Some(PolicySpecifier::Header(Header { header_name: header.clone() })),
        ..HashPolicy::default()
    };
    ring.header.iter().map(by).collect()
}

fn faults(fault: &Fault) -> BTreeMap<String, Any> {
    let abort = fault.abort.map(|abort| FaultAbort {
        error_type: Some(ErrorType::GrpcStatus(abort.grpc_status)),
        percentage: Some(percent(abort.percent)),
    });
    let delay = fault.delay.map(|delay| FaultDelay {
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(delay.time))),
        percentage: Some(percent(delay.percent)),
    });
    let message = HttpFault { delay, abort };
    [(FAULT_FILTER.to_owned(), any(FAULT_TYPE, &message))].into()
}
