//! Services of a namespace over xDS (`--namespaces`), which nobody has configured: real clients'
//! requests over sockets, against the API server's double.

mod stage;

use std::path::PathBuf;

use apiserver::{ApiServer, SliceEndpoint, SliceSpec};
use evenkeel_control::{
    Control,
    config::Config,
    grpclb::{Grpclb, GrpclbSettings},
    metrics::Page,
    names::NameRules,
    sources::kubernetes,
    status,
    xds::{Kind, ON_DEMAND_PER_STREAM_MAX},
};
use evenkeel_kubernetes::Cluster;
use evenkeel_proto::envoy::{
    config::{core::v3::Node, endpoint::v3::ClusterLoadAssignment},
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
};
use prost::Message as _;
use stage::{Client, Stage, within};

async fn balancer() -> (ApiServer, Stage) {
    let server = ApiServer::start("127.0.0.1:0".parse().expect("an address")).await;
    let server = server.expect("a port");
    let cluster = cluster(&server);
    let rules = NameRules { namespaces: ["default".to_owned()].into(), ..NameRules::default() };
    let control = Control::new(rules, Config::default());
    control.configure(&Config::default());
    tokio::spawn(kubernetes::run(control.clone(), move || Ok(cluster.clone())));
    (server, Stage::speaking(control).await)
}

fn cluster(server: &ApiServer) -> Cluster {
    let name = format!("evenkeel-on-demand-{}-{}", std::process::id(), server.address().port());
    let path: PathBuf = std::env::temp_dir().join(name);
    std::fs::write(&path, server.kubeconfig()).expect("a file");
    let cluster = Cluster::kubeconfig(&path).expect("a kubeconfig");
    std::fs::remove_file(&path).expect("its own file");
    cluster
}

fn apply(server: &ApiServer, service: &str, last: &[u8]) {
    let endpoints = last.iter().map(|n| SliceEndpoint::ready([10, 1, 0, *n])).collect();
    server.apply(&SliceSpec::new(service, 8000, endpoints));
}

fn endpoints(body: &[u8]) -> usize {
    let assignment = ClusterLoadAssignment::decode(body).expect("an assignment");
    assignment.endpoints.iter().map(|locality| locality.lb_endpoints.len()).sum()
}

/// The next response of this kind; what comes before it is taken.
async fn next_of(
    client: &mut Client<DiscoveryRequest, DiscoveryResponse>,
    kind: Kind,
    names: &[&str],
) -> DiscoveryResponse {
    let response = client.next().await;
    assert_eq!(response.type_url, kind.type_url());
    client.answer(&response, names, None).await;
    response
}

/// What services are watched, once there are so many.
async fn watched(control: &Control, count: usize) -> Vec<String> {
    let mut wanted = control.wanted();
    let wanted = within(wanted.wait_for(|wanted| wanted.len() == count)).await.expect("it lives");
    wanted.iter().map(ToString::to_string).collect()
}

/// As a gRPC client asks: from the listener on, each name as what came before has it.
#[tokio::test]
async fn a_grpc_client_gets_a_service_that_only_is_there_because_it_asks() {
    let (server, stage) = balancer().await;
    apply(&server, "greeter", &[1]);
    let mut client = stage.sotw("grpc").await;
    let name = "greeter.default.svc.cluster.local:80";
    client.ask(Kind::Listener, &[name]).await;
    assert_eq!(next_of(&mut client, Kind::Listener, &[name]).await.resources.len(), 1);
    let key = "greeter.default";
    for kind in [Kind::Route, Kind::Cluster, Kind::Endpoint] {
        client.ask(kind, &[key]).await;
        let response = next_of(&mut client, kind, &[key]).await;
        assert_eq!(response.resources.len(), 1, "{kind:?}");
        if kind == Kind::Endpoint {
            assert_eq!(endpoints(&response.resources[0].value), 1);
        }
    }
    apply(&server, "greeter", &[1, 2]);
    let response = next_of(&mut client, Kind::Endpoint, &[key]).await;
    assert_eq!(endpoints(&response.resources[0].value), 2);
    assert_eq!(watched(&stage.control, 1).await, [key]);
}

/// As Envoy asks for a cluster that a call wants (on-demand CDS).
#[tokio::test]
async fn a_cluster_that_is_asked_for_comes_with_its_endpoints() {
    let (server, stage) = balancer().await;
    apply(&server, "greeter", &[1, 2, 3]);
    let mut client = stage.delta("envoy").await;
    client.ask(Kind::Cluster, &["greeter.default"]).await;
    client.ask(Kind::Endpoint, &["greeter.default"]).await;
    let clusters = client.next().await;
    assert_eq!(clusters.resources[0].name, "greeter.default");
    client.ack(&clusters).await;
    // Not before it is known that there are some: Envoy would fail the call that waits.
    let response = client.next().await;
    assert_eq!(
        (response.type_url.as_str(), response.removed_resources.len()),
        (Kind::Endpoint.type_url(), 0)
    );
    let body = response.resources[0].resource.as_ref().expect("a body");
    assert_eq!(endpoints(&body.value), 3);
}

async fn told(
    client: &mut Client<DeltaDiscoveryRequest, DeltaDiscoveryResponse>,
) -> [Vec<String>; 2] {
    let response = client.next().await;
    client.ack(&response).await;
    [response.resources.into_iter().map(|one| one.name).collect(), response.removed_resources]
}

#[tokio::test]
async fn a_name_outside_does_not_exist_and_one_without_slices_ceases_to() {
    let (server, stage) = balancer().await;
    apply(&server, "greeter", &[1]);
    let mut client = stage.delta("grpc").await;
    client.ask(Kind::Listener, &["greeter.elsewhere"]).await;
    assert_eq!(told(&mut client).await, [vec![], vec!["greeter.elsewhere".to_owned()]]);
    assert_eq!(watched(&stage.control, 0).await, [""; 0]);
    client.ask(Kind::Listener, &["no-such"]).await;
    let name = vec!["no-such".to_owned()];
    assert_eq!(told(&mut client).await, [name.clone(), vec![]], "perhaps it does");
    assert_eq!(told(&mut client).await, [vec![], name], "the API server knows better");
    assert_eq!(watched(&stage.control, 0).await, [""; 0]);
}

#[tokio::test]
async fn who_wants_everything_is_told_of_what_exists_and_brings_nothing() {
    let (server, stage) = balancer().await;
    let mut all = stage.delta("all").await;
    // An Envoy, which has not the view of the gRPC client beside it.
    all.node = Some(Node { user_agent_name: "envoy".into(), ..stage::node("all") });
    all.ask(Kind::Cluster, &[]).await;
    assert_eq!(told(&mut all).await, [const { Vec::<String>::new() }; 2]);
    let mut client = stage.delta("grpc").await;
    client.ask(Kind::Cluster, &["no-such.default"]).await;
    told(&mut client).await;
    assert_eq!(told(&mut client).await[1], ["no-such.default"]);
    apply(&server, "greeter", &[1]);
    client.ask(Kind::Cluster, &["greeter.default"]).await;
    told(&mut client).await;
    assert_eq!(told(&mut all).await, [vec!["greeter.default".to_owned()], vec![]]);
}

fn metrics(control: &Control) -> String {
    let (mut page, settings) = (Page::default(), GrpclbSettings::default());
    status::write_metrics(&mut page, control, &Grpclb::new(control.clone(), settings));
    page.into_text()
}

#[tokio::test]
async fn one_stream_has_a_limit_and_the_others_are_served() {
    let (server, stage) = balancer().await;
    apply(&server, "greeter", &[1]);
    let greedy = stage.delta("greedy").await;
    let names: Vec<String> = (0..2 * ON_DEMAND_PER_STREAM_MAX).map(|n| format!("s{n}")).collect();
    let request = DeltaDiscoveryRequest {
        node: Some(stage::node("greedy")),
        type_url: Kind::Listener.type_url().into(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    };
    greedy.send(request).await;
    let warned = r#"evenkeel_balancer_warnings_total{kind="xds_on_demand_max"} 1"#;
    let mut client = stage.delta("grpc").await;
    client.ask(Kind::Listener, &["greeter"]).await;
    assert_eq!(told(&mut client).await[0], ["greeter"]);
    within(async {
        while !metrics(&stage.control).contains(warned) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
