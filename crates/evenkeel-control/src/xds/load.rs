//! What clients report of the load that they send (LRS), added up by cluster and locality, for
//! people and metrics. Weights are made of what they say of endpoints (`shares`), and not of sums:
//! these only grow.

use std::{collections::BTreeMap, sync::Mutex};

use evenkeel_proto::envoy::{
    config::{
        core::v3::Locality,
        endpoint::v3::{ClusterStats, EndpointLoadMetricStats, UpstreamLocalityStats},
    },
    service::load_stats::v3::LoadStatsRequest,
};
use serde::Serialize;

use crate::{
    control::lock,
    grpclb::CALLS_PER_REPORT_MAX,
    metrics::{Kind as Metric, Page},
    observe::{Warning, Warnings},
};

/// Clusters whose load is counted by name.
pub const LOAD_CLUSTERS_MAX: usize = 1_000;
/// Localities of a cluster, categories of its drops, and metrics of a locality, the same.
pub const LOAD_NAMES_MAX: usize = 100;
/// Under which everything behind those limits is counted.
const OTHER: &str = "other";

/// Sums of all reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LoadTotals {
    /// Reports that came.
    pub reports: u64,
    /// By cluster.
    pub clusters: BTreeMap<String, ClusterLoad>,
}

/// Sums of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClusterLoad {
    /// By locality, `region/zone/sub_zone`.
    pub localities: BTreeMap<String, LocalityLoad>,
    /// Calls that were dropped, by category.
    pub dropped: BTreeMap<String, u64>,
    /// Calls that were dropped, all of them.
    pub dropped_total: u64,
}

/// Sums of a locality. Calls in progress are missing: they are what is true at one client at one
/// moment, and adding such numbers up tells nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LocalityLoad {
    /// Calls that were begun.
    pub issued: u64,
    /// Calls that ended well.
    pub succeeded: u64,
    /// Calls that ended with an error.
    pub failed: u64,
    /// What backends said of themselves with their answers, by metric.
    pub metrics: BTreeMap<String, MetricLoad>,
}

/// Sums of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MetricLoad {
    /// Calls whose answer had it.
    pub calls: u64,
    /// Its values, added up.
    pub sum: f64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Loads(Mutex<LoadTotals>);

impl Loads {
    pub(super) fn totals(&self) -> LoadTotals {
        lock(&self.0).clone()
    }

    pub(super) fn add(&self, request: &LoadStatsRequest, warnings: &Warnings) {
        let mut totals = lock(&self.0);
        totals.reports += 1;
        for stats in &request.cluster_stats {
            let name = stats.cluster_name.as_str();
            let cluster = entry(&mut totals.clusters, name, LOAD_CLUSTERS_MAX, warnings);
            cluster.add(stats, warnings);
        }
    }
}

/// What is counted under a name, or under [`OTHER`] when there are too many.
fn entry<'a, T: Default>(
    map: &'a mut BTreeMap<String, T>,
    name: &str,
    max: usize,
    warnings: &Warnings,
) -> &'a mut T {
    let known = map.len() < max || map.contains_key(name);
    if !known {
        warnings.add(Warning::XdsLoadNames);
    }
    map.entry(if known { name } else { OTHER }.to_owned()).or_default()
}

pub(super) fn count(value: u64, warnings: &Warnings) -> u64 {
    if value > CALLS_PER_REPORT_MAX.unsigned_abs() {
        warnings.add(Warning::StatsTooLarge);
        return 0;
    }
    value
}

impl ClusterLoad {
    fn add(&mut self, stats: &ClusterStats, warnings: &Warnings) {
        self.dropped_total += count(stats.total_dropped_requests, warnings);
        for dropped in &stats.dropped_requests {
            let calls = entry(&mut self.dropped, &dropped.category, LOAD_NAMES_MAX, warnings);
            *calls += count(dropped.dropped_count, warnings);
        }
        for stats in &stats.upstream_locality_stats {
            let name = stats.locality.as_ref().map(locality).unwrap_or_default();
            let locality = entry(&mut self.localities, &name, LOAD_NAMES_MAX, warnings);
            locality.add(stats, warnings);
        }
    }
}

impl LocalityLoad {
    fn add(&mut self, stats: &UpstreamLocalityStats, warnings: &Warnings) {
        self.issued += count(stats.total_issued_requests, warnings);
        self.succeeded += count(stats.total_successful_requests, warnings);
        self.failed += count(stats.total_error_requests, warnings);
        let named = stats.load_metric_stats.iter();
        let named = named.map(|one: &EndpointLoadMetricStats| {
            let calls = one.num_requests_finished_with_metric;
            (one.metric_name.as_str(), calls, one.total_metric_value)
        });
        let own = [
            ("cpu_utilization", &stats.cpu_utilization),
            ("mem_utilization", &stats.mem_utilization),
            ("application_utilization", &stats.application_utilization),
        ];
        let own = own.into_iter().filter_map(|(name, stats)| {
            let stats = stats.as_ref()?;
            Some((name, stats.num_requests_finished_with_metric, stats.total_metric_value))
        });
        for (name, calls, sum) in named.chain(own) {
            let metric = entry(&mut self.metrics, name, LOAD_NAMES_MAX, warnings);
            if sum.is_finite() {
                metric.calls += count(calls, warnings);
                metric.sum += sum;
            }
        }
    }
}

fn locality(locality: &Locality) -> String {
    let Locality { region, zone, sub_zone } = locality;
    format!("{region}/{zone}/{sub_zone}").trim_end_matches('/').to_owned()
}

impl LoadTotals {
    pub(super) fn write(&self, page: &mut Page) {
        let reports = [([], self.reports as f64)];
        let help = "Load reports of clients of xDS.";
        page.metric(Metric::Counter, "evenkeel_balancer_xds_load_reports_total", help, reports);
        let localities = || {
            let clusters = self.clusters.iter();
            clusters.flat_map(|(cluster, load)| {
                load.localities.iter().map(move |(name, load)| (&cluster[..], &name[..], load))
            })
        };
        let calls = localities().flat_map(|(cluster, locality, load)| {
            let counts =
                [("issued", load.issued), ("succeeded", load.succeeded), ("failed", load.failed)];
            counts.map(|(what, count)| {
                let labels = [("cluster", cluster), ("locality", locality), ("calls", what)];
                (labels, count as f64)
            })
        });
        let help = "Calls that clients of xDS reported.";
        page.metric(Metric::Counter, "evenkeel_balancer_xds_load_calls_total", help, calls);
        let dropped = self.clusters.iter().flat_map(|(cluster, load)| {
            let named = load.dropped.iter().map(|(name, count)| (&name[..], *count));
            // Circuit breakers drop without a category.
            let rest = load.dropped_total.saturating_sub(load.dropped.values().sum());
            named.chain([("", rest)]).map(move |(category, count)| {
                ([("cluster", &cluster[..]), ("category", category)], count as f64)
            })
        });
        let help = "Calls that clients of xDS dropped.";
        page.metric(Metric::Counter, "evenkeel_balancer_xds_load_dropped_total", help, dropped);
        let metrics = |value: fn(&MetricLoad) -> f64| {
            localities().flat_map(move |(cluster, locality, load)| {
                load.metrics.iter().map(move |(name, metric)| {
                    let labels = [("cluster", cluster), ("locality", locality), ("metric", name)];
                    (labels, value(metric))
                })
            })
        };
        let help = "Backends' own metrics as clients of xDS reported them, added up.";
        let sums = metrics(|metric| metric.sum);
        page.metric(Metric::Counter, "evenkeel_balancer_xds_load_metric_sum", help, sums);
        let help = "Calls that had those metrics.";
        let counts = metrics(|metric| metric.calls as f64);
        page.metric(Metric::Counter, "evenkeel_balancer_xds_load_metric_calls_total", help, counts);
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_proto::envoy::config::endpoint::v3::{
        UnnamedEndpointLoadMetricStats, cluster_stats::DroppedRequests,
    };

    use super::*;

    fn report(cluster: &str, zone: &str) -> LoadStatsRequest {
        let at = Locality { region: "r".into(), zone: zone.into(), sub_zone: String::new() };
        let stats = UpstreamLocalityStats {
            locality: Some(at),
            total_issued_requests: 10,
            total_successful_requests: 7,
            total_error_requests: 2,
            load_metric_stats: vec![EndpointLoadMetricStats {
                metric_name: "queue".into(),
                num_requests_finished_with_metric: 2,
                total_metric_value: 5.0,
            }],
            cpu_utilization: Some(UnnamedEndpointLoadMetricStats {
                num_requests_finished_with_metric: 7,
                total_metric_value: 3.5,
            }),
            ..UpstreamLocalityStats::default()
        };
        let dropped = DroppedRequests { category: "overload".into(), dropped_count: 3 };
        let cluster_stats = vec![ClusterStats {
            cluster_name: cluster.into(),
            upstream_locality_stats: vec![stats],
            total_dropped_requests: 4,
            dropped_requests: vec![dropped],
            ..ClusterStats::default()
        }];
        LoadStatsRequest { cluster_stats, ..LoadStatsRequest::default() }
    }

    #[test]
    fn reports_add_up_by_cluster_and_locality() {
        let (loads, warnings) = (Loads::default(), Warnings::default());
        for zone in ["a", "a", "b"] {
            loads.add(&report("greeter", zone), &warnings);
        }
        let totals = loads.totals();
        let greeter = &totals.clusters["greeter"];
        let at = &greeter.localities["r/a"];
        assert_eq!((totals.reports, at.issued, at.succeeded, at.failed), (3, 20, 14, 4));
        assert_eq!((at.metrics["queue"].calls, at.metrics["queue"].sum), (4, 10.0));
        assert_eq!(
            (at.metrics["cpu_utilization"].calls, at.metrics["cpu_utilization"].sum),
            (14, 7.0)
        );
        assert_eq!((greeter.dropped["overload"], greeter.dropped_total), (9, 12));
        let mut page = Page::default();
        totals.write(&mut page);
        let text = page.into_text();
        for line in [
            r#"load_calls_total{cluster="greeter",locality="r/b",calls="issued"} 10"#,
            r#"load_dropped_total{cluster="greeter",category="overload"} 9"#,
            r#"load_dropped_total{cluster="greeter",category=""} 3"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn names_have_a_limit_and_what_is_over_it_is_counted_together() {
        let (loads, warnings) = (Loads::default(), Warnings::default());
        for n in 0..LOAD_CLUSTERS_MAX + 5 {
            loads.add(&report(&n.to_string(), "a"), &warnings);
        }
        for n in 0..LOAD_NAMES_MAX + 5 {
            loads.add(&report("0", &n.to_string()), &warnings);
        }
        let totals = loads.totals();
        assert_eq!(totals.clusters.len(), LOAD_CLUSTERS_MAX + 1);
        assert_eq!(totals.clusters[OTHER].localities["r/a"].issued, 50);
        assert_eq!(totals.clusters["0"].localities.len(), LOAD_NAMES_MAX + 1);
        assert!(warnings.of(Warning::XdsLoadNames) >= 10);
    }

    #[test]
    fn what_can_not_be_is_left_out_and_counted() {
        let (loads, warnings) = (Loads::default(), Warnings::default());
        let mut bad = report("greeter", "a");
        let stats = &mut bad.cluster_stats[0].upstream_locality_stats[0];
        stats.total_issued_requests = u64::MAX;
        stats.load_metric_stats[0].total_metric_value = f64::NAN;
        loads.add(&bad, &warnings);
        let at = &loads.totals().clusters["greeter"].localities["r/a"];
        assert_eq!((at.issued, at.succeeded, at.metrics["queue"].calls), (0, 7, 0));
        assert_eq!(warnings.of(Warning::StatsTooLarge), 1);
    }
}
