//! The source of EndpointSlices against the API server's double: over sockets, in real time, each
//! wait bounded.

mod client;

use std::{path::PathBuf, time::Duration};

use apiserver::{ApiServer, SliceEndpoint, SliceSpec};
use evenkeel_control::{
    Control, ServiceKey, SourceStatus, config::Config, names::NameRules, snapshot::Published,
    sources::kubernetes,
};
use evenkeel_kubernetes::Cluster;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(10);
const SOURCE: &str = "kubernetes/greeter.default:8000";

async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("within 10 s")
}

struct Stage {
    server: ApiServer,
    control: Control,
    task: JoinHandle<()>,
}

impl Stage {
    async fn new(yaml: &str) -> Self {
        Self::with(NameRules::default(), yaml).await
    }

    async fn with(rules: NameRules, yaml: &str) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let server = ApiServer::start(any).await.expect("a port");
        let cluster = cluster(&server);
        let control = Control::new(rules, Config::default());
        control.configure(&config(yaml));
        let task = tokio::spawn(kubernetes::run(control.clone(), move || Ok(cluster.clone())));
        Self { server, control, task }
    }

    fn apply(&self, service: &str, last: &[u8]) {
        let endpoints = last.iter().map(|n| SliceEndpoint::ready([10, 1, 0, *n])).collect();
        self.server.apply(&SliceSpec::new(service, 8000, endpoints));
    }

    /// Looks until it is so; nothing tells of a source's state.
    async fn source_when(&self, name: &str, is_so: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        within(async {
            loop {
                if let Some(status) = self.control.sources().remove(name).filter(&is_so) {
                    break status;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    fn follow(&self, key: &str) -> watch::Receiver<Published> {
        let key = ServiceKey::parse(key, "default").expect("a key");
        self.control.follow(&key).expect("served")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn cluster(server: &ApiServer) -> Cluster {
    let name = format!("evenkeel-control-{}-{}", std::process::id(), server.address().port());
    let path: PathBuf = std::env::temp_dir().join(name);
    std::fs::write(&path, server.kubeconfig()).expect("a file");
    let cluster = Cluster::kubeconfig(&path).expect("a kubeconfig");
    std::fs::remove_file(&path).expect("its own file");
    cluster
}

fn config(yaml: &str) -> Config {
    Config::from_yaml(yaml, "test", "default").expect("good")
}

/// The last numbers of the addresses in the next snapshot that has these.
async fn has(receiver: &mut watch::Receiver<Published>, last: &[u8]) {
    let is_so = |published: &Published| {
        published.snapshot().is_some_and(|snapshot| {
            let addresses = snapshot.endpoints.iter().map(|endpoint| endpoint.address.to_string());
            let wanted = last.iter().map(|n| format!("10.1.0.{n}:8000"));
            addresses.eq(wanted)
        })
    };
    within(receiver.wait_for(is_so)).await.expect("served");
}

#[tokio::test]
async fn endpoints_follow_the_slices_and_have_pod_and_weight() {
    let yaml = "services: [{name: greeter, port: 8000, weights: {pod-10-1-0-2: 5}}]";
    let stage = Stage::new(yaml).await;
    let mut greeter = stage.follow("greeter:8000");
    stage.apply("greeter", &[1, 2]);
    has(&mut greeter, &[1, 2]).await;
    let snapshot = greeter.borrow().snapshot().expect("one").clone();
    let pods: Vec<_> = snapshot.endpoints.iter().map(|e| (e.pod.as_deref(), e.weight)).collect();
    assert_eq!(pods, [(Some("pod-10-1-0-1"), 1), (Some("pod-10-1-0-2"), 5)]);
    stage.apply("greeter", &[1, 2, 3]);
    has(&mut greeter, &[1, 2, 3]).await;
    stage.apply("greeter", &[]);
    has(&mut greeter, &[]).await;
    assert!(*stage.control.synced().borrow());
}

#[tokio::test]
async fn the_last_endpoints_stay_while_the_api_server_is_away() {
    let mut stage = Stage::new("services: [{name: greeter, port: 8000}]").await;
    let mut greeter = stage.follow("greeter:8000");
    stage.apply("greeter", &[1]);
    has(&mut greeter, &[1]).await;
    stage.source_when(SOURCE, |status| status.good).await;
    stage.server.stop().await;
    let status = stage.source_when(SOURCE, |status| !status.good).await;
    assert!(status.error.is_some_and(|error| error.contains("API server")));
    has(&mut greeter, &[1]).await;
    stage.apply("greeter", &[1, 2]);
    stage.server.resume().expect("its port");
    has(&mut greeter, &[1, 2]).await;
    stage.source_when(SOURCE, |status| status.good).await;
}

#[tokio::test]
async fn a_port_that_no_slice_has_is_said_with_those_there_are() {
    let stage = Stage::new("services: [{name: greeter, port: metrics}]").await;
    stage.apply("greeter", &[1]);
    let name = "kubernetes/greeter.default:metrics";
    let status = stage.source_when(name, |status| !status.good).await;
    assert!(status.error.is_some_and(|error| error.contains("grpc=8000")));
    assert!(matches!(*stage.follow("greeter:metrics").borrow(), Published::Pending));
}

#[tokio::test]
async fn a_service_with_one_port_need_not_name_it() {
    let stage = Stage::new("services: [{name: greeter}, {name: two}]").await;
    let mut greeter = stage.follow("greeter");
    stage.apply("greeter", &[]);
    has(&mut greeter, &[]).await;
    stage.apply("greeter", &[1, 2]);
    has(&mut greeter, &[1, 2]).await;
    stage.apply("two", &[1]);
    let endpoints = vec![SliceEndpoint::ready([10, 1, 0, 2])];
    let mut other = SliceSpec::new("two", 9000, endpoints);
    (other.name, other.port.0) = ("two-2".into(), "metrics".into());
    stage.server.apply(&other);
    let status = stage.source_when("kubernetes/two.default", |status| !status.good).await;
    let error = status.error.expect("a reason");
    assert!(error.contains("grpc=8000, metrics=9000; name the one"), "{error}");
}

#[tokio::test]
async fn watches_come_and_go_with_the_configuration() {
    let stage = Stage::new("services: [{name: greeter, port: 8000}]").await;
    stage.apply("greeter", &[1]);
    stage.apply("other", &[9]);
    has(&mut stage.follow("greeter:8000"), &[1]).await;
    stage.control.configure(&config("services: [{name: other, port: grpc}]"));
    has(&mut stage.follow("other:grpc"), &[9]).await;
    within(async {
        while stage.control.sources().contains_key(SOURCE) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn hinted(last: u8, zones: &[&str]) -> SliceEndpoint {
    let for_zones = zones.iter().map(ToString::to_string).collect();
    SliceEndpoint { for_zones, ..SliceEndpoint::ready([10, 1, 0, last]) }
}

fn client_in(last: u8, zone: &str) -> SliceEndpoint {
    SliceEndpoint { zone: Some(zone.into()), ..SliceEndpoint::ready([10, 2, 0, last]) }
}

/// The last numbers of the addresses in the next list.
async fn listed(client: &mut client::Client) -> Vec<u8> {
    let mut last: Vec<u8> = client.servers().await.iter().map(|one| one.ip_address[3]).collect();
    last.sort_unstable();
    last
}

#[tokio::test]
async fn clients_get_the_endpoints_that_are_hinted_for_their_zone() {
    let stage = Stage::new("{services: [{name: greeter, port: 8000}], clients: [shops]}").await;
    let greeter = |endpoints| stage.server.apply(&SliceSpec::new("greeter", 8000, endpoints));
    let shops = |clients| stage.server.apply(&SliceSpec::new("shops", 1, clients));
    greeter(vec![hinted(1, &["a"]), hinted(2, &["b"]), hinted(3, &["a"])]);
    shops(vec![client_in(1, "b")]);
    has(&mut stage.follow("greeter:8000"), &[1, 2, 3]).await;
    stage.source_when("clients/shops.default", |status| status.good).await;
    let balancer = client::Stage::of(stage.control.clone());
    let open = async |from: &str| {
        let mut client = balancer.client_from("greeter", from);
        client.next().await;
        client
    };
    let mut here = open("10.2.0.1:1").await;
    assert_eq!(listed(&mut here).await, [2]);
    let mut outside = open("10.9.0.9:1").await;
    assert_eq!(listed(&mut outside).await, [1, 2, 3]);
    // Its pod is newer than its slice.
    let mut early = open("10.2.0.2:1").await;
    assert_eq!(listed(&mut early).await, [1, 2, 3]);
    shops(vec![client_in(1, "b"), client_in(2, "a")]);
    assert_eq!(listed(&mut early).await, [1, 3]);
    outside.is_quiet().await;

    let zones: Vec<_> = balancer.status().clients.into_iter().map(|client| client.zone).collect();
    assert_eq!(zones, [Some("b".into()), None, Some("a".into())]);
    assert!(balancer.metrics().contains("evenkeel_balancer_clients_located 2\n"));

    // The last one of the zone goes, and Kubernetes hints another.
    greeter(vec![hinted(1, &["a", "b"]), hinted(3, &["a"])]);
    assert_eq!(listed(&mut here).await, [1]);
    assert_eq!(listed(&mut early).await, [1, 3]);
    // Hints are void while one endpoint has none.
    greeter(vec![hinted(1, &["a", "b"]), hinted(3, &["a"]), hinted(4, &[])]);
    assert_eq!(listed(&mut here).await, [1, 3, 4]);
    assert_eq!(listed(&mut early).await, [1, 3, 4]);
    // A client that is known stays where it is when its slice goes.
    shops(vec![]);
    greeter(vec![hinted(1, &["a"]), hinted(4, &["b"])]);
    assert_eq!(listed(&mut here).await, [4]);
}

#[tokio::test]
async fn subsets_are_of_the_zones_endpoints() {
    let yaml = "{services: [{name: greeter, port: 8000, subset: {size: 2}}], clients: [shops]}";
    let stage = Stage::new(yaml).await;
    let zone = |last: u8| if last <= 3 { "a" } else { "b" };
    let endpoints = (1..=6).map(|last| hinted(last, &[zone(last)])).collect();
    stage.server.apply(&SliceSpec::new("greeter", 8000, endpoints));
    let clients = (1..=3).map(|last| client_in(last, "b")).collect();
    stage.server.apply(&SliceSpec::new("shops", 1, clients));
    has(&mut stage.follow("greeter:8000"), &[1, 2, 3, 4, 5, 6]).await;
    stage.source_when("clients/shops.default", |status| status.good).await;
    let balancer = client::Stage::of(stage.control.clone());
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    for last in 1..=3 {
        let mut client = balancer.client_from("greeter", &format!("10.2.0.{last}:1"));
        client.next().await;
        let list = listed(&mut client).await;
        assert!(list.len() == 2 && list.iter().all(|last| *last > 3), "{list:?}");
        seen.extend(list);
        open.push(client);
    }
    seen.sort_unstable();
    assert_eq!(seen, [4, 4, 5, 5, 6, 6], "each has as many clients as another");
}

#[tokio::test]
async fn services_of_a_namespace_are_watched_when_somebody_asks() {
    let rules = NameRules { namespaces: ["default".to_owned()].into(), ..NameRules::default() };
    let stage = Stage::with(rules, "services: []").await;
    stage.apply("greeter", &[1]);
    let balancer = client::Stage::of(stage.control.clone());
    let mut one = balancer.client("greeter.default.svc.cluster.local:80");
    one.next().await;
    assert_eq!(one.servers().await.len(), 1);
    assert_eq!(stage.control.wanted().borrow().len(), 1);
    stage.apply("greeter", &[1, 2]);
    assert_eq!(one.servers().await.len(), 2);

    let mut other = balancer.client("no-such");
    other.next().await;
    let message = other.ended(Code::NotFound).await;
    assert!(message.contains("no-such.default is not served here"), "{message}");
    assert_eq!(stage.control.wanted().borrow().len(), 1, "it is not watched any more");
    let message = balancer.client("no-such").ended(Code::NotFound).await;
    assert!(message.contains("no-such.default has no EndpointSlices"), "{message}");
    let message = balancer.client("greeter.elsewhere").ended(Code::NotFound).await;
    assert!(message.contains("expected the name of a service"), "{message}");
}
