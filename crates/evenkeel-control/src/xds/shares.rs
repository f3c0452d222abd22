//! From a client's report of load to what it says of endpoints, for weights that follow the load
//! ([`crate::weights::Source::Clients`]). Sums by locality, which are counts for people, are made
//! in `load`; here are rates, and what can't be one is left out: a weight must not be made of it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use evenkeel_proto::envoy::config::{
    core::v3::{Address, address::Address as AddressKind, socket_address::PortSpecifier},
    endpoint::v3::{ClusterStats, UpstreamEndpointStats},
};

use super::load::count;
use crate::{
    observe::{Warning, Warnings},
    weights::{Metric, Share},
};

/// What clients are asked to report of ORCA's values: all that a weight is made of.
pub(super) const METRICS: [&str; 2] = [APPLICATION, CPU];
const APPLICATION: &str = "application_utilization";
const CPU: &str = "cpu_utilization";
/// Intervals that a report may have been gathered over: rates of less are noise, and who was away
/// for longer does not know what is true now.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);

/// What is said of a cluster's endpoints, and for how long it was gathered.
pub(super) fn shares(
    stats: &ClusterStats,
    warnings: &Warnings,
) -> Option<(Duration, BTreeMap<SocketAddr, Share>)> {
    let interval = stats.load_report_interval.and_then(|time| Duration::try_from(time).ok());
    let interval = interval.filter(|time| (INTERVAL_MIN..=INTERVAL_MAX).contains(time));
    let Some(interval) = interval else {
        warnings.add(Warning::XdsLoadInterval);
        return None;
    };
    let mut shares: BTreeMap<SocketAddr, Share> = BTreeMap::new();
    let localities = stats.upstream_locality_stats.iter();
    for endpoint in localities.flat_map(|locality| &locality.upstream_endpoint_stats) {
        let Some(address) = endpoint.address.as_ref().and_then(address) else {
            warnings.add(Warning::XdsLoadEndpoints);
            continue;
        };
        let share = share(endpoint, interval.as_secs_f64(), warnings);
        shares.entry(address).or_default().add(&share);
    }
    Some((interval, shares))
}

/// Calls that ended and not those that were begun: of an endpoint that hangs, that is what it could
/// serve.
fn share(stats: &UpstreamEndpointStats, seconds: f64, warnings: &Warnings) -> Share {
    let failed = count(stats.total_error_requests, warnings) as f64;
    let succeeded = count(stats.total_successful_requests, warnings) as f64;
    let metric = |name: &str| {
        let one = stats.load_metric_stats.iter().find(|one| one.metric_name == name)?;
        let sum = one.total_metric_value;
        let calls = count(one.num_requests_finished_with_metric, warnings) as f64;
        (sum >= 0.0 && sum.is_finite()).then_some(Metric { calls, sum })
    };
    Share {
        qps: (succeeded + failed) / seconds,
        eps: failed / seconds,
        application: metric(APPLICATION).unwrap_or_default(),
        cpu: metric(CPU).unwrap_or_default(),
    }
}

/// Nobody but who has an address and a port is one of our endpoints.
fn address(address: &Address) -> Option<SocketAddr> {
    let Some(AddressKind::SocketAddress(socket)) = &address.address else { return None };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some(SocketAddr::new(socket.address.parse().ok()?, port.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use evenkeel_proto::envoy::config::{
        core::v3::SocketAddress,
        endpoint::v3::{EndpointLoadMetricStats, UpstreamLocalityStats},
    };

    use super::*;
    use crate::weights::Load;

    fn endpoint(host: &str, port: u32, metrics: &[(&str, u64, f64)]) -> UpstreamEndpointStats {
        let socket = SocketAddress {
            address: host.into(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        };
        let metric = |(name, calls, sum): &(&str, u64, f64)| EndpointLoadMetricStats {
            metric_name: (*name).into(),
            num_requests_finished_with_metric: *calls,
            total_metric_value: *sum,
        };
        UpstreamEndpointStats {
            address: Some(Address { address: Some(AddressKind::SocketAddress(socket)) }),
            total_successful_requests: 80,
            total_error_requests: 20,
            total_issued_requests: 500,
            load_metric_stats: metrics.iter().map(metric).collect(),
            ..UpstreamEndpointStats::default()
        }
    }

    fn stats(endpoints: Vec<UpstreamEndpointStats>, nanos: i32) -> ClusterStats {
        let each = endpoints.into_iter().map(|endpoint| UpstreamLocalityStats {
            upstream_endpoint_stats: vec![endpoint],
            ..UpstreamLocalityStats::default()
        });
        let interval = prost_types::Duration { seconds: 0, nanos };
        ClusterStats {
            upstream_locality_stats: each.collect(),
            load_report_interval: Some(interval),
            ..ClusterStats::default()
        }
    }

    const HALF: i32 = 500_000_000;

    #[test]
    fn calls_become_rates_and_metrics_stay_with_their_calls() {
        let warnings = Warnings::default();
        let metrics = [("cpu_utilization", 50, 25.0), ("named_metrics.queue", 50, 1e9)];
        let all = vec![endpoint("10.0.0.1", 80, &metrics), endpoint("::1", 80, &[])];
        let (interval, shares) = shares(&stats(all, HALF), &warnings).expect("good");
        assert_eq!((interval, shares.len()), (Duration::from_millis(500), 2));
        let share = shares[&([10, 0, 0, 1], 80).into()];
        assert_eq!((share.qps, share.eps), (200.0, 40.0), "of those that ended");
        assert_eq!(share.cpu, Metric { calls: 50.0, sum: 25.0 });
        assert_eq!(share.application, Metric::default());
    }

    #[test]
    fn an_endpoint_in_two_localities_is_one() {
        let all = vec![endpoint("10.0.0.1", 80, &[("cpu_utilization", 1, 0.5)]); 2];
        let (_, shares) = shares(&stats(all, HALF), &Warnings::default()).expect("good");
        let load = shares[&([10, 0, 0, 1], 80).into()].load();
        assert_eq!(load, Load { qps: 400.0, eps: 80.0, utilization: 0.5 });
    }

    #[test]
    fn what_can_not_be_true_is_left_out_and_counted() {
        let warnings = Warnings::default();
        for nanos in [0, -HALF, 999] {
            assert_eq!(shares(&stats(Vec::new(), nanos), &warnings), None, "{nanos}");
        }
        assert_eq!(warnings.of(Warning::XdsLoadInterval), 3);
        let mut all = ["10.0.0.1", "example.com", ""].map(|host| endpoint(host, 80, &[])).to_vec();
        all.push(endpoint("10.0.0.1", 65_536, &[]));
        all.push(UpstreamEndpointStats::default());
        let (_, one) = shares(&stats(all, HALF), &warnings).expect("good");
        assert_eq!((one.len(), warnings.of(Warning::XdsLoadEndpoints)), (1, 4));
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            let all = vec![endpoint("10.0.0.1", 80, &[("cpu_utilization", 1, bad)])];
            let (_, one) = shares(&stats(all, HALF), &warnings).expect("good");
            assert_eq!(one.into_values().map(|share| share.cpu).next(), Some(Metric::default()));
        }
    }
}
