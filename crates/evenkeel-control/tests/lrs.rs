//! Load reports over real sockets: what clients are asked for, and what becomes of their reports.

mod stage;

use evenkeel_control::{ServiceKey, snapshot::Published, weights, xds::Kind};
use evenkeel_proto::envoy::{
    config::{
        core::v3::{
            Address, SocketAddress, address::Address as AddressKind, socket_address::PortSpecifier,
        },
        endpoint::v3::{
            ClusterStats, EndpointLoadMetricStats, UpstreamEndpointStats, UpstreamLocalityStats,
        },
    },
    service::load_stats::v3::{
        LoadStatsRequest, LoadStatsResponse,
        load_reporting_service_client::LoadReportingServiceClient,
    },
};
use stage::{Stage, node, within};
use tokio::sync::{mpsc, watch};
use tonic::{Code, Streaming};

struct Reporter {
    sender: mpsc::Sender<LoadStatsRequest>,
    responses: Streaming<LoadStatsResponse>,
}

impl Reporter {
    async fn new(stage: &Stage, features: &[&str]) -> Self {
        let mut reporter = Self::silent(stage).await;
        let mut node = node("reporter");
        node.client_features = stage::strings(features);
        reporter.send(LoadStatsRequest { node: Some(node), cluster_stats: Vec::new() }).await;
        reporter
    }

    async fn silent(stage: &Stage) -> Self {
        let (sender, requests) = stage::requests();
        let mut client = LoadReportingServiceClient::new(stage.channel());
        let responses = within(client.stream_load_stats(requests)).await.expect("a stream");
        Self { sender, responses: responses.into_inner() }
    }

    async fn send(&mut self, request: LoadStatsRequest) {
        within(self.sender.send(request)).await.expect("it is read");
    }

    async fn report(&mut self, issued: u64) {
        let locality =
            UpstreamLocalityStats { total_issued_requests: issued, ..Default::default() };
        let stats = ClusterStats {
            cluster_name: "greeter".into(),
            upstream_locality_stats: vec![locality],
            ..ClusterStats::default()
        };
        self.send(LoadStatsRequest { node: None, cluster_stats: vec![stats] }).await;
    }

    /// Says of a service's endpoints, each by its port, what they answered in a second and how busy
    /// they called themselves.
    async fn report_endpoints(&mut self, cluster: &str, endpoints: &[(u32, u64, f64)]) {
        let endpoint = |(port, calls, utilization): &(u32, u64, f64)| {
            let socket = SocketAddress {
                address: "10.0.0.1".into(),
                port_specifier: Some(PortSpecifier::PortValue(*port)),
                ..SocketAddress::default()
            };
            let cpu = EndpointLoadMetricStats {
                metric_name: "cpu_utilization".into(),
                num_requests_finished_with_metric: *calls,
                total_metric_value: *calls as f64 * utilization,
            };
            UpstreamEndpointStats {
                address: Some(Address { address: Some(AddressKind::SocketAddress(socket)) }),
                total_successful_requests: *calls,
                load_metric_stats: vec![cpu],
                ..UpstreamEndpointStats::default()
            }
        };
        let locality = UpstreamLocalityStats {
            upstream_endpoint_stats: endpoints.iter().map(endpoint).collect(),
            ..UpstreamLocalityStats::default()
        };
        let stats = ClusterStats {
            cluster_name: cluster.into(),
            upstream_locality_stats: vec![locality],
            load_report_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..ClusterStats::default()
        };
        self.send(LoadStatsRequest { node: None, cluster_stats: vec![stats] }).await;
    }

    async fn next(&mut self) -> LoadStatsResponse {
        within(self.responses.message()).await.expect("no error").expect("a response")
    }

    async fn ended(&mut self) -> (Code, String) {
        let status = within(self.responses.message()).await.expect_err("it ends");
        (status.code(), status.message().to_owned())
    }
}

#[tokio::test]
async fn a_client_that_can_is_asked_for_all_its_clusters_and_its_reports_add_up() {
    let stage = Stage::new().await;
    let mut reporter = Reporter::new(&stage, &["envoy.lrs.supports_send_all_clusters"]).await;
    let asked = reporter.next().await;
    assert!(asked.send_all_clusters && asked.clusters.is_empty());
    assert_eq!(asked.load_reporting_interval.map(|interval| interval.seconds), Some(10));
    reporter.report(5).await;
    reporter.report(7).await;
    within(async {
        while stage.xds.loads().reports < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(stage.xds.loads().clusters["greeter"].localities[""].issued, 12);
    let line = r#"load_calls_total{cluster="greeter",locality="",calls="issued"} 12"#;
    assert!(stage.metrics().contains(line), "{}", stage.metrics());
}

#[tokio::test]
async fn a_client_that_needs_names_is_told_them_and_told_again_when_they_change() {
    let mut stage = Stage::new().await;
    let mut reporter = Reporter::new(&stage, &[]).await;
    stage.set(Kind::Cluster, &[("a", "1")]);
    let asked = reporter.next().await;
    assert_eq!((&asked.clusters[..], asked.send_all_clusters), (&["a".to_owned()][..], false));
    stage.set(Kind::Cluster, &[("a", "2")]);
    stage.set(Kind::Cluster, &[("a", "2"), ("b", "1")]);
    assert_eq!(reporter.next().await.clusters, ["a", "b"]);
}

const BY_CLIENTS: &str = "
services:
- name: greeter
  endpoints: [{address: \"10.0.0.1:1\"}, {address: \"10.0.0.1:2\"}]
  load_aware: {source: clients, update_interval_s: 0.1, smoothing_s: 0.01, blackout_s: 0}
- name: other
  endpoints: [{address: \"10.0.0.1:1\"}, {address: \"10.0.0.1:2\"}]
  load_aware: {source: clients, update_interval_s: 0.1, smoothing_s: 0.01, blackout_s: 0}
";
const ALL: &[&str] = &["envoy.lrs.supports_send_all_clusters"];

fn follow(stage: &Stage, service: &str) -> watch::Receiver<Published> {
    let key = ServiceKey::parse(service, "default").expect("a key");
    stage.control.follow(&key).expect("served")
}

/// Waits until the first of two endpoints weighs about so much; both together weigh 40.
async fn first_weighs(follow: &mut watch::Receiver<Published>, weight: u32) {
    let is_so = |published: &Published| {
        let snapshot = published.snapshot().expect("it is known");
        snapshot.endpoints[0].weight.abs_diff(weight) <= 1
    };
    within(follow.wait_for(is_so)).await.expect("served");
}

#[tokio::test]
async fn weights_follow_what_all_clients_together_say_of_endpoints() {
    let mut stage = Stage::with(BY_CLIENTS).await;
    stage.set(Kind::Cluster, &[("greeter.default", "1")]);
    let task = tokio::spawn(weights::run(stage.control.clone()));
    let (mut greeter, other) = (follow(&stage, "greeter"), follow(&stage, "other"));
    let mut one = Reporter::new(&stage, ALL).await;
    assert!(one.next().await.report_endpoint_granularity);
    // It is not told of the other service, so its word does not count there.
    one.report_endpoints("other.default", &[(1, 100, 1.0), (2, 300, 1.0)]).await;
    // 100 and 300 calls a second is what these can serve.
    one.report_endpoints("greeter.default", &[(1, 50, 0.5), (2, 150, 0.5)]).await;
    first_weighs(&mut greeter, 10).await;

    // Both are as busy as before. But there are 200 calls more to the first one, of which the first
    // client knows nothing: 500 and 300 calls a second.
    let mut two = Reporter::new(&stage, ALL).await;
    two.next().await;
    two.report_endpoints("greeter.default", &[(1, 200, 0.5)]).await;
    first_weighs(&mut greeter, 25).await;

    // It goes, and its share with it.
    drop(two);
    first_weighs(&mut greeter, 10).await;
    assert_eq!(other.borrow().snapshot().expect("known").version, 1, "nobody has weighed it");
    task.abort();
}

#[tokio::test]
async fn clients_are_asked_for_endpoints_from_when_a_service_wants_it_on() {
    let stage = Stage::new().await;
    let mut reporter = Reporter::new(&stage, ALL).await;
    assert!(!reporter.next().await.report_endpoint_granularity);
    let config = evenkeel_control::config::Config::from_yaml(BY_CLIENTS, "test", "default");
    stage.control.configure(&config.expect("good"));
    assert!(reporter.next().await.report_endpoint_granularity);
}

#[tokio::test]
async fn who_does_not_say_who_it_is_and_who_floods_are_refused() {
    let stage = Stage::new().await;
    let mut nameless = Reporter::silent(&stage).await;
    nameless.report(1).await;
    let (code, message) = nameless.ended().await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("expected node in the first request"), "{message}");
    let mut flood = Reporter::new(&stage, &["envoy.lrs.supports_send_all_clusters"]).await;
    flood.next().await;
    for _ in 0..50 {
        flood.report(1).await;
    }
    let (code, message) = flood.ended().await;
    assert_eq!(code, Code::ResourceExhausted, "{message}");
}
