//! The `kubernetes:` resolver: a channel over real greeters, whose endpoints come from the API
//! server's double.

mod fixture;

use std::{collections::BTreeSet, time::Duration};

use apiserver::{ApiServer, Fault, Kind, SliceEndpoint, SliceSpec};
use evenkeel::{
    Channel, ChannelBuilder, ConnectivityState,
    kubernetes::{Cluster, KubernetesOptions},
};
use fixture::{Backend, events::Events, fleet, in_state, ready, soon};
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use tokio::time::Instant;

const TARGET: &str = "kubernetes:///greeter.default:grpc";

async fn server() -> ApiServer {
    ApiServer::start("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

fn cluster(server: &ApiServer) -> Cluster {
    let name = format!("evenkeel-resolver-{}-{}", std::process::id(), server.address().port());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, server.kubeconfig()).unwrap();
    let cluster = Cluster::kubeconfig(&path).unwrap();
    let _ = std::fs::remove_file(&path);
    cluster
}

fn builder(server: &ApiServer, target: &str) -> ChannelBuilder {
    let cluster = Some(cluster(server));
    Channel::builder(target).kubernetes(KubernetesOptions { cluster, zone: None })
}

fn slice(backend: &Backend) -> SliceSpec {
    let port = backend.address.port();
    let endpoint = SliceEndpoint::ready(backend.address.ip());
    // Each backend has a port of its own, so each is a slice of its own.
    SliceSpec { name: format!("greeter-{port}"), ..SliceSpec::new("greeter", port, vec![endpoint]) }
}

fn publish(server: &ApiServer, backend: &Backend) {
    server.apply(&slice(backend));
}

fn withdraw(server: &ApiServer, backend: &Backend) {
    assert!(server.delete("default", &slice(backend).name));
}

async fn hello(channel: &Channel) -> Result<String, tonic::Status> {
    let mut request = tonic::Request::new(HelloRequest { name: "you".into() });
    request.set_timeout(Duration::from_secs(5));
    let mut client = GreeterClient::new(channel.clone());
    soon("an answer", client.say_hello(request)).await.map(|r| r.into_inner().message)
}

async fn answering(channel: &Channel, calls: usize) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for _ in 0..calls {
        all.insert(hello(channel).await.unwrap());
    }
    all
}

fn addresses<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> BTreeSet<String> {
    backends.into_iter().map(|backend| backend.address.to_string()).collect()
}

#[tokio::test]
async fn a_change_costs_the_connection_of_that_endpoint_and_no_other() {
    let server = server().await;
    let backends = fleet(4).await;
    for backend in &backends[..3] {
        publish(&server, backend);
    }
    let events = Events::default();
    let channel = builder(&server, TARGET).recorder(events.recorder()).build().unwrap();
    channel.connect();
    events.wait_for(3, " READY").await;
    assert_eq!(answering(&channel, 30).await, addresses(&backends[..3]));

    publish(&server, &backends[3]);
    events.wait_for(4, " READY").await;
    assert_eq!(answering(&channel, 40).await, addresses(&backends));

    withdraw(&server, &backends[0]);
    events.wait_for(2, "resolved 3").await;
    soon("the change", async {
        while answering(&channel, 9).await != addresses(&backends[1..]) {}
    })
    .await;

    // A zone, hints, another node: the same connections.
    let mut changed = slice(&backends[1]);
    changed.endpoints[0].zone = Some("a".into());
    changed.endpoints[0].node = "node-7".into();
    server.apply(&changed);
    events.wait_for(3, "resolved 3").await;
    assert_eq!(answering(&channel, 9).await, addresses(&backends[1..]));
    assert_eq!(events.count(" READY") - events.count("channel READY"), 4, "{:?}", events.list());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn channels_of_a_process_share_one_watch() {
    let server = server().await;
    let backends = fleet(2).await;
    backends.iter().for_each(|backend| publish(&server, backend));
    let channels: Vec<Channel> =
        (0..10).map(|_| builder(&server, TARGET).build().unwrap()).collect();
    for channel in &channels {
        ready(channel).await;
    }
    assert_eq!((server.count(Kind::StreamingList), server.requests().len()), (1, 1));
}

#[tokio::test]
async fn an_empty_set_fails_calls_at_once_and_the_first_endpoint_ends_that() {
    let server = server().await;
    let backends = fleet(1).await;
    let channel = builder(&server, TARGET).build().unwrap();
    channel.connect();
    in_state(&channel, ConnectivityState::TransientFailure).await;
    let began = Instant::now();
    let status = hello(&channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().contains("found no endpoints"), "{status}");
    assert!(began.elapsed() < Duration::from_secs(1));
    publish(&server, &backends[0]);
    in_state(&channel, ConnectivityState::Ready).await;
    assert_eq!(answering(&channel, 3).await, addresses(&backends));
    withdraw(&server, &backends[0]);
    in_state(&channel, ConnectivityState::TransientFailure).await;
}

#[tokio::test]
async fn what_is_wrong_stands_in_the_status_of_calls() {
    let server = server().await;
    let backends = fleet(1).await;
    publish(&server, &backends[0]);
    server.fault(Some(Fault::Status { code: 403, retry_after_s: None }));
    let channel = builder(&server, TARGET).build().unwrap();
    let status = hello(&channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    for part in ["403", "list and watch endpointslices in namespace default", "Role"] {
        assert!(status.message().contains(part), "{status}");
    }
    server.fault(None);
    let port = backends[0].address.port();
    for (target, want) in [
        ("kubernetes:///greeter:http".to_owned(), format!("they have grpc={port}")),
        ("kubernetes:///greeter:1".to_owned(), "not of the Service".to_owned()),
    ] {
        let channel = builder(&server, &target).build().unwrap();
        let status = hello(&channel).await.unwrap_err();
        assert!(status.message().contains(&want), "{status}");
    }
    let channel = builder(&server, &format!("kubernetes:///greeter:{port}")).build().unwrap();
    assert_eq!(answering(&channel, 3).await, addresses(&backends));
}

#[tokio::test]
async fn calls_go_on_while_the_api_server_is_away() {
    let mut server = server().await;
    let backends = fleet(3).await;
    backends[..2].iter().for_each(|backend| publish(&server, backend));
    let events = Events::default();
    let channel = builder(&server, TARGET).recorder(events.recorder()).build().unwrap();
    channel.connect();
    events.wait_for(2, " READY").await;
    server.stop().await;
    events.wait_for(1, "resolver error: ").await;
    events.wait_for(1, "resolver fails: ").await;
    assert_eq!(answering(&channel, 20).await, addresses(&backends[..2]));
    publish(&server, &backends[2]);
    server.resume().unwrap();
    soon("the change", async { while answering(&channel, 12).await != addresses(&backends) {} })
        .await;
    events.wait_for(1, "resolver works").await;
    assert_eq!(server.count(Kind::StreamingList), 1);
}

#[tokio::test]
async fn a_client_in_a_zone_stays_in_it_when_the_hints_say_so() {
    let server = server().await;
    let backends = fleet(2).await;
    for (backend, zone) in backends.iter().zip(["a", "b"]) {
        let mut hinted = slice(backend);
        hinted.endpoints[0].for_zones = vec![zone.into()];
        server.apply(&hinted);
    }
    let zone = |zone: &str| {
        let options =
            KubernetesOptions { cluster: Some(cluster(&server)), zone: Some(zone.into()) };
        Channel::builder(TARGET).kubernetes(options).build().unwrap()
    };
    assert_eq!(answering(&zone("b"), 6).await, addresses(&backends[1..]));
    let elsewhere = zone("c");
    soon("both", async { while answering(&elsewhere, 6).await != addresses(&backends) {} }).await;
}

#[tokio::test]
async fn a_target_that_can_never_work_is_refused_by_build() {
    let server = server().await;
    let error = builder(&server, "kubernetes:///greeter.default").build().err().unwrap();
    assert!(error.to_string().contains("it names no port"), "{error}");
    let error = Channel::builder(TARGET).build().err();
    // Unless this machine has a kubeconfig of its own.
    if let Some(error) = error.filter(|_| std::env::var_os("KUBECONFIG").is_none()) {
        let error = error.to_string();
        assert!(error.contains("no Kubernetes cluster is configured: expected KUBE"), "{error}");
    }
}

#[tokio::test]
async fn the_watch_ends_with_the_channel() {
    let server = server().await;
    let backends = fleet(1).await;
    publish(&server, &backends[0]);
    for round in 1..=3 {
        let channel = builder(&server, TARGET).build().unwrap();
        ready(&channel).await;
        assert_eq!(server.count(Kind::StreamingList), round);
        channel.shutdown(Duration::ZERO).await;
        drop(channel);
        let end = async {
            while server.connections() > 0 {
                tokio::task::yield_now().await;
            }
        };
        soon("the watch's end", end).await;
    }
}
