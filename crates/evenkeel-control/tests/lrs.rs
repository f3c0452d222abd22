//! Load reports over real sockets: what clients are asked for, and what becomes of their reports.

mod stage;

use evenkeel_control::xds::Kind;
use evenkeel_proto::envoy::{
    config::endpoint::v3::{ClusterStats, UpstreamLocalityStats},
    service::load_stats::v3::{
        LoadStatsRequest, LoadStatsResponse,
        load_reporting_service_client::LoadReportingServiceClient,
    },
};
use stage::{Stage, node, within};
use tokio::sync::mpsc;
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
