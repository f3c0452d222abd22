//! Weights that follow what endpoints report, over sockets: real servers with ORCA, out of band.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use evenkeel_control::{
    Control, ServiceKey, config::Config, names::NameRules, snapshot::Published, weights,
};
use evenkeel_server::{
    Server, ShutdownHandle,
    orca::{Orca, ServerMetrics},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tonic::service::Routes;

const MS: Duration = Duration::from_millis(1);

/// An endpoint that reports what it is told to.
struct Endpoint {
    address: SocketAddr,
    metrics: ServerMetrics,
    shutdown: ShutdownHandle,
    task: JoinHandle<()>,
}

impl Endpoint {
    async fn start(address: &str, orca: bool) -> Self {
        let metrics = ServerMetrics::new();
        let mut builder = Server::builder().drain_delay(Duration::ZERO);
        if orca {
            builder = builder.orca(Orca::new(&metrics).min_report_interval(10 * MS));
        }
        let server = builder.build(Routes::default()).expect("good settings");
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shutdown = server.shutdown_handle();
        let task = tokio::spawn(async move {
            server.serve([listener]).await.expect("served");
        });
        Self { address, metrics, shutdown, task }
    }

    fn says(&self, qps: f64, utilization: f64) {
        self.metrics.set_qps(qps);
        self.metrics.set_application_utilization(utilization);
    }

    async fn end(self) {
        self.shutdown.drain();
        timeout(Duration::from_secs(10), self.task).await.expect("within 10 s").expect("no panic");
    }
}

fn config(endpoints: &[&Endpoint], load_aware: &str) -> Config {
    let places: Vec<String> =
        endpoints.iter().map(|one| format!("{{address: \"{}\"}}", one.address)).collect();
    let yaml = format!("services: [{{name: a, endpoints: [{}]{load_aware}}}]", places.join(", "));
    Config::from_yaml(&yaml, "test", "default").expect("good")
}

const QUICK: &str = ", load_aware: {report_interval_s: 0.01, update_interval_s: 0.02, \
                     smoothing_s: 0.01, blackout_s: 0}";

/// Waits for weights that `wanted` accepts.
async fn until(
    follow: &mut watch::Receiver<Published>,
    wanted: impl Fn(&BTreeMap<SocketAddr, u32>) -> bool,
) -> BTreeMap<SocketAddr, u32> {
    let weights = |published: &Published| -> BTreeMap<SocketAddr, u32> {
        let endpoints = published.snapshot().map(|snapshot| snapshot.endpoints.clone());
        endpoints.iter().flat_map(|all| all.iter()).map(|e| (e.address, e.weight)).collect()
    };
    let found = timeout(Duration::from_secs(10), follow.wait_for(|now| wanted(&weights(now))))
        .await
        .map(|found| weights(&found.expect("the control is there")));
    found.unwrap_or_else(|_| panic!("the last weights: {:?}", weights(&follow.borrow())))
}

#[tokio::test]
async fn weights_follow_the_reports_and_end_with_the_setting() {
    let (fast, slow) =
        (Endpoint::start("127.0.0.1:0", true).await, Endpoint::start("127.0.0.1:0", true).await);
    let silent = Endpoint::start("127.0.0.1:0", false).await;
    fast.says(100.0, 0.5);
    slow.says(100.0, 1.0);
    let control = Control::new(NameRules::default(), Config::default());
    control.configure(&config(&[&fast, &slow, &silent], QUICK));
    let task = tokio::spawn(weights::run(control.clone()));
    let key = ServiceKey::parse("a", "default").expect("a key");
    let mut follow = control.follow(&key).expect("served");

    // 200 and 100 calls a second: 4/3 and 2/3 of the mean. Who has no ORCA has the mean. A small
    // change is not worth a list (CHANGE_MIN), so a weight may stay a little off.
    let near = |now: &BTreeMap<SocketAddr, u32>, one: &Endpoint, weight: u32| {
        now.get(&one.address).is_some_and(|now| now.abs_diff(weight) <= 2)
    };
    until(&mut follow, |now| {
        near(now, &fast, 27) && near(now, &slow, 13) && near(now, &silent, 20)
    })
    .await;

    slow.says(100.0, 0.5);
    until(&mut follow, |now| near(now, &fast, 20) && near(now, &slow, 20)).await;

    // Gone and back on its address: reports come again by themselves.
    let address = slow.address.to_string();
    slow.end().await;
    let back = Endpoint::start(&address, true).await;
    back.says(300.0, 0.5);
    until(&mut follow, |now| near(now, &back, 30) && near(now, &fast, 10)).await;

    control.configure(&config(&[&fast, &back, &silent], ""));
    until(&mut follow, |now| now.values().all(|weight| *weight == 1)).await;
    task.abort();
}

#[tokio::test]
async fn settings_that_can_not_be_are_refused_with_their_place() {
    let yaml = "services: [{name: a, load_aware: {report_interval_s: 0}}]";
    let error = Config::from_yaml(yaml, "grpclb.yaml", "default").expect_err("bad").to_string();
    assert!(error.contains("grpclb.yaml:1"), "{error}");
    assert!(error.contains("expected 0.01 to 86400 seconds, got 0"), "{error}");
}
