//! The real binary: what it prints, how clients are served, how it ends. Only a process shows exit
//! codes and signals. The channel of its clients is ours; others' are in `conformance`.

use std::{
    collections::BTreeSet, net::SocketAddr, path::PathBuf, pin::Pin, process::Stdio, sync::Arc,
    time::Duration,
};

use evenkeel::{
    Channel,
    tls::{ClientTls, Identity, Roots},
};
use evenkeel_proto::{
    envoy::{
        config::{cluster::v3::Cluster, core::v3::Node},
        service::discovery::v3::{
            DiscoveryRequest, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    grpc::{
        health::v1::{
            HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
        },
        lb::v1::{
            ClientStats, InitialLoadBalanceRequest, LoadBalanceRequest, LoadBalanceResponse,
            Server, load_balance_request::LoadBalanceRequestType as Asked,
            load_balance_response::LoadBalanceResponseType as Told,
            load_balancer_client::LoadBalancerClient,
        },
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustix::process::{Pid, Signal, kill_process};
use rustls::crypto::ring;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::mpsc,
    time::timeout,
};
use tonic::{Code, Status, Streaming};

const WAIT_MAX: Duration = Duration::from_secs(10);
const TWO: &str = "greeter=127.0.0.1:1,127.0.0.2:2";

async fn within<F: Future>(future: F) -> F::Output {
    timeout(WAIT_MAX, future).await.expect("within 10 s")
}

fn command(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grpclb"));
    // Nothing from the caller's environment may change what is tested.
    command.env_clear().args(args).envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// A balancer that accepts connections.
struct Balancer {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    address: SocketAddr,
    admin: String,
}

impl Balancer {
    async fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let own = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let args = [&own[..], &["--drain-delay", "0s"], args].concat();
        let mut child = command(&args, env).spawn().expect("the binary");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let admin = loop {
            let line = within(stderr.next_line()).await.expect("readable").expect("an address");
            if let Some((_, rest)) = line.split_once("status: http://") {
                break rest.split('/').next().expect("an address").to_owned();
            }
        };
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = within(stdout.next_line()).await.expect("readable").expect("a line");
        let port = line.strip_prefix("Started server on port ").expect("the line of the contract");
        let address = format!("127.0.0.1:{port}").parse().expect("a port");
        Self { child, stdout, stderr, address, admin }
    }

    fn channel(&self) -> Channel {
        Channel::builder(format!("ipv4:{}", self.address)).build().expect("good settings")
    }

    async fn client(&self, name: &str) -> Client {
        Client::start(self.channel(), name).await.expect("a stream")
    }

    /// The body of an answer over HTTP/1.1.
    async fn get(&self, path: &str) -> String {
        let mut socket = within(TcpStream::connect(&self.admin)).await.expect("it listens");
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        within(socket.write_all(head.as_bytes())).await.expect("sent");
        let mut text = String::new();
        within(socket.read_to_string(&mut text)).await.expect("UTF-8");
        text.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
    }

    async fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").await).expect("JSON")
    }

    /// Looks until it is so; only looking again tells.
    async fn status_when(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        within(async {
            loop {
                let status = self.status().await;
                if is_so(&status) {
                    break status;
                }
            }
        })
        .await
    }

    async fn health(&self, service: &str) -> ServingStatus {
        let mut client = HealthClient::new(self.channel());
        let request = HealthCheckRequest { service: service.to_owned() };
        within(client.check(request)).await.expect("known").into_inner().status()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it runs")).expect("a pid");
        kill_process(Pid::from_raw(pid).expect("not 0"), signal).expect("it runs");
    }

    async fn ended(mut self) -> Option<i32> {
        assert_eq!(within(self.stdout.next_line()).await.expect("readable"), None);
        while within(self.stderr.next_line()).await.expect("readable").is_some() {}
        within(self.child.wait()).await.expect("ended").code()
    }
}

/// A client's stream.
struct Client {
    requests: mpsc::Sender<LoadBalanceRequest>,
    responses: Streaming<LoadBalanceResponse>,
}

type Requests = Pin<Box<dyn futures_util::Stream<Item = LoadBalanceRequest> + Send>>;

impl Client {
    async fn start(channel: Channel, name: &str) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(10);
        let stream: Requests =
            Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
                Some((receiver.recv().await?, receiver))
            }));
        let initial = InitialLoadBalanceRequest { name: name.to_owned() };
        let first =
            LoadBalanceRequest { load_balance_request_type: Some(Asked::InitialRequest(initial)) };
        requests.try_send(first).expect("room for it");
        let mut client = LoadBalancerClient::new(channel);
        let responses = within(client.balance_load(stream)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    async fn next(&mut self) -> Result<Told, Status> {
        let message = within(self.responses.message()).await?;
        let message = message.ok_or_else(|| Status::ok("the end"))?;
        Ok(message.load_balance_response_type.expect("one of three"))
    }

    async fn servers(&mut self) -> Vec<Server> {
        loop {
            match self.next().await.expect("a list") {
                Told::InitialResponse(_) => {}
                Told::ServerList(list) => return list.servers,
                Told::FallbackResponse(_) => panic!("nobody falls back"),
            }
        }
    }

    async fn ports(&mut self) -> Vec<i32> {
        let mut ports: Vec<i32> = self.servers().await.iter().map(|server| server.port).collect();
        ports.sort_unstable();
        ports
    }

    async fn ended(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// Files that go away.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let name = format!("grpclb-test-{}-{:p}", std::process::id(), &WAIT_MAX);
        let number = std::thread::current().name().unwrap_or_default().replace("::", "-");
        let folder = std::env::temp_dir().join(format!("{name}-{number}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        let new = self.0.join(format!(".{name}"));
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, &path).expect("in its place");
        path.to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn flags_are_a_service_and_reports_are_in_the_status() {
    let balancer = Balancer::start(&["--backends", TWO], &[]).await;
    let mut client = balancer.client("greeter.default.svc.cluster.local:8000").await;
    let Ok(Told::InitialResponse(initial)) = client.next().await else { panic!("not first") };
    assert_eq!(initial.client_stats_report_interval.map(|interval| interval.seconds), Some(10));
    assert_eq!(client.ports().await, [1, 2]);

    let report = ClientStats { num_calls_started: 7, ..ClientStats::default() };
    let report = LoadBalanceRequest { load_balance_request_type: Some(Asked::ClientStats(report)) };
    client.requests.send(report).await.expect("it listens");
    let status =
        balancer.status_when(|status| status["services"][0]["client_stats"]["reports"] == 1).await;
    let service = &status["services"][0];
    assert_eq!(service["client_stats"]["started"], 7, "{service}");
    assert_eq!(service["endpoints"][0]["token"], "b7f0000010001", "{service}");
    assert_eq!(status["clients"][0]["name"], "greeter.default.svc.cluster.local:8000");
    let metrics = balancer.get("/metrics").await;
    let line = "evenkeel_balancer_client_calls_started_total{service=\"greeter.default\"} 7";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("evenkeel_balancer_server_events_total{event="), "{metrics}");
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let all: BTreeSet<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    let (names, others): (BTreeSet<&str>, BTreeSet<&str>) =
        all.iter().partition(|name| name.starts_with("evenkeel_balancer_"));
    // What the telemetry counts of its server; the stream of above goes on.
    assert!(others.contains("grpc_server_call_started_total"), "{others:?}");
    let readme = include_str!("../README.md").split_once("## Metrics").expect("a section").1;
    let told = readme.split('`').filter(|word| word.starts_with("evenkeel_balancer_"));
    assert_eq!(told.collect::<BTreeSet<_>>(), names, "README.md lists the metrics");
    assert!(balancer.get("/").await.contains("expected /status or /metrics"));
}

#[tokio::test]
async fn a_file_is_followed_and_a_bad_one_is_told() {
    let files = Files::new();
    let path =
        files.write("c.yaml", "services: [{name: a, endpoints: [{address: \"1.1.1.1:1\"}]}]");
    let balancer = Balancer::start(&[], &[("GRPCLB_CONFIG", &path)]).await;
    let mut client = balancer.client("a").await;
    assert_eq!(client.ports().await, [1]);
    files.write("c.yaml", "services: [{name: a, endpoints: [{address: \"1.1.1.1:0\"}]}]");
    let status = balancer.status_when(|status| status["sources"]["file"]["good"] == false).await;
    let error = status["sources"]["file"]["error"].as_str().expect("text");
    assert!(error.contains("c.yaml:1:") && error.contains("from 1 to 65535"), "{error}");
    files.write("c.yaml", "services: [{name: a, endpoints: [{address: \"1.1.1.1:2\"}]}]");
    assert_eq!(client.ports().await, [2]);
    let status = balancer.status_when(|status| status["sources"]["file"]["good"] == true).await;
    assert_eq!(status["sources"]["file"]["failures"], 1);
}

#[tokio::test]
async fn its_own_name_leads_to_the_service_of_the_environment() {
    let env = [("BACKEND_SERVICE_NAME", "greeter.default.svc.cluster.local:8000")];
    let balancer = Balancer::start(&["--backends", TWO], &env).await;
    for name in ["grpclb:9000", "greeter-server-balancer.default.svc.cluster.local"] {
        assert_eq!(balancer.client(name).await.ports().await, [1, 2], "{name}");
    }
    let status = balancer.client("lb").await.ended().await;
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("(greeter.default)"), "{status}");
}

#[tokio::test]
async fn it_is_alive_and_not_ready_before_the_first_sync() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = nobody.local_addr().expect("bound");
    let files = Files::new();
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
         clusters: [{{name: a, cluster: {{server: \"http://{server}\"}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
         users: [{{name: a, user: {{token: t}}}}]\n"
    );
    let path = files.write("kubeconfig", &kubeconfig);
    let args = ["--kubeconfig", &path, "--backend-service-name", "greeter:8000"];
    let balancer = Balancer::start(&args, &[]).await;
    assert_eq!(balancer.health("liveness").await, ServingStatus::Serving);
    for name in ["", "readiness", "grpc.lb.v1.LoadBalancer"] {
        assert_eq!(balancer.health(name).await, ServingStatus::NotServing, "{name:?}");
    }
    let mut client = balancer.client("grpclb").await;
    assert!(matches!(client.next().await, Ok(Told::InitialResponse(_))));
    drop(nobody);
    let source = "kubernetes/greeter.default:8000";
    let status = balancer.status_when(|status| status["sources"][source]["good"] == false).await;
    let error = status["sources"][source]["error"].as_str().expect("text");
    assert!(error.contains(&server.to_string()), "{error}");
    assert_eq!(status["synced"], false);
    within(async { while balancer.health("sources").await == ServingStatus::Serving {} }).await;

    let ready = Balancer::start(&["--backends", TWO], &[]).await;
    for name in ["", "readiness", "grpc.lb.v1.LoadBalancer", "liveness", "sources"] {
        within(async { while ready.health(name).await != ServingStatus::Serving {} }).await;
    }
}

#[tokio::test]
async fn a_drain_ends_streams_within_seconds_and_exits_with_0() {
    let balancer = Balancer::start(&["--backends", TWO, "--drain-grace", "10s"], &[]).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = balancer.client("greeter").await;
        client.servers().await;
        clients.push(client);
    }
    balancer.signal(Signal::TERM);
    for client in &mut clients {
        let status = client.ended().await;
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("ask another one"), "{status}");
    }
    assert_eq!(balancer.ended().await, Some(0));
}

#[tokio::test]
async fn bad_configuration_exits_with_64_and_says_why() {
    let files = Files::new();
    let bad =
        files.write("bad.yaml", "services: [{name: a, drops: [{category: b, percent: 101}]}]");
    for (args, reason) in [
        (&["--backends", "a=1.1.1.1:70000"][..], "expected an IP address and a port"),
        (&["--backends", "a=1.1.1.1:1;a=1.1.1.1:2"], "a.default is there twice"),
        (&["--config", &bad], "bad.yaml:1:"),
        (&["--config", "/none.yaml"], "/none.yaml: No such file"),
        (&["--backend-service-name", "a.b.c"], "BACKEND_SERVICE_NAME: expected name"),
        (&["--backend-service-name", "a:8000"], "no Kubernetes cluster is configured"),
        (&["--namespaces", "default"], "the endpoints of default are in Kubernetes"),
        (&["--backend-service-name", "a:70000"], "from 1 to 65535, got 70000"),
        (&["--client-stats-interval", "10"], "a unit is missing; expected numbers"),
        (&["--listen", "localhost:9000"], "expected an IP address"),
        (&["--tls-cert", "/none"], "--tls-key"),
        (&["--max-connections", "0"], "max_connections: expected at least 1"),
    ] {
        let output = within(command(args, &[]).output()).await.expect("the binary");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{args:?}: {text}");
        assert!(text.contains(reason), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn a_port_in_use_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for (flag, other) in [("--listen", "--admin-listen"), ("--admin-listen", "--listen")] {
        let args = ["--backends", TWO, flag, &address, other, "127.0.0.1:0"];
        let output = within(command(&args, &[]).output()).await.expect("the binary");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(flag) && text.contains("could not listen"), "{text}");
    }
}

/// Who signs certificates for both sides.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Signer {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Chain and key.
    fn leaf(&self, name: SanType) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.subject_alt_names.push(name);
        let key = KeyPair::generate().expect("a key");
        let chain = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        (chain, key.serialize_pem())
    }
}

#[tokio::test]
async fn a_service_is_for_those_whose_certificate_is_on_its_list() {
    let (signer, files) = (Signer::new(), Files::new());
    let ip = SanType::IpAddress("127.0.0.1".parse().expect("an address"));
    let (chain, key) = signer.leaf(ip);
    let paths = [
        files.write("tls.crt", &chain),
        files.write("tls.key", &key),
        files.write("ca.crt", &signer.pem),
        files.write(
            "c.yaml",
            "services: [{name: a, endpoints: [{address: \"1.1.1.1:1\"}], \
             allow: [\"spiffe://a.test/ns/x/*\", client.test]}]",
        ),
    ];
    let flags = ["--tls-cert", "--tls-key", "--tls-client-ca", "--config"];
    let args: Vec<&str> = flags.into_iter().zip(&paths).flat_map(|(f, p)| [f, p]).collect();
    let balancer = Balancer::start(&args, &[]).await;
    let uri = |text: &str| SanType::URI(text.to_owned().try_into().expect("ASCII"));
    let dns = |text: &str| SanType::DnsName(text.to_owned().try_into().expect("ASCII"));
    for (name, allowed) in [
        (uri("spiffe://a.test/ns/x/sa/client"), true),
        (dns("client.test"), true),
        (uri("spiffe://a.test/ns/xy"), false),
        (uri("spiffe://b.test/ns/x/sa/client"), false),
        (dns("other.test"), false),
    ] {
        let (chain, key) = signer.leaf(name.clone());
        let identity = Identity::from_pem(&chain, &key).expect("an identity");
        let roots = Roots::from_pem(&signer.pem).expect("roots");
        let tls =
            ClientTls::new(roots).identity(identity).provider(Arc::new(ring::default_provider()));
        let channel = Channel::builder(format!("ipv4:{}", balancer.address)).tls(tls);
        let channel = channel.build().expect("good settings");
        let mut client = Client::start(channel, "a").await.expect("a stream");
        if allowed {
            assert_eq!(client.ports().await, [1], "{name:?}");
        } else {
            let status = client.ended().await;
            assert_eq!(status.code(), Code::PermissionDenied, "{name:?}");
            assert!(status.message().contains("a.default: expected a certificate"), "{status}");
        }
    }
}

const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// What Envoy asks for first.
fn clusters() -> DiscoveryRequest {
    let node = Node { id: "one".into(), user_agent_name: "envoy".into(), ..Node::default() };
    let type_url = CLUSTERS.into();
    DiscoveryRequest { node: Some(node), type_url, ..DiscoveryRequest::default() }
}

#[tokio::test]
async fn xds_is_served_beside_grpclb_and_a_refusal_is_on_the_status_page() {
    let balancer = Balancer::start(&["--backends", TWO], &[]).await;
    let mut client = AggregatedDiscoveryServiceClient::new(balancer.channel());
    let (sender, receiver) = mpsc::channel(10);
    let requests = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    sender.send(clusters()).await.expect("room");
    let responses = within(client.stream_aggregated_resources(requests)).await;
    let mut responses = responses.expect("a stream").into_inner();
    let response = within(responses.message()).await.expect("no error").expect("a response");
    let named = response.resources.iter().map(|any| {
        let cluster: Cluster = prost::Message::decode(&any.value[..]).expect("a cluster");
        cluster.name
    });
    let named: Vec<String> = named.collect();
    assert!(named.iter().any(|name| name.starts_with("greeter.default")), "{named:?}");
    let error = evenkeel_proto::google::rpc::Status {
        message: "not today".into(),
        ..evenkeel_proto::google::rpc::Status::default()
    };
    let refusal = DiscoveryRequest {
        response_nonce: response.nonce,
        error_detail: Some(error),
        ..clusters()
    };
    sender.send(refusal).await.expect("it listens");
    let path = |status: &Value| status["xds"]["clients"][0]["kinds"][0].clone();
    let status = balancer.status_when(|status| path(status)["nacks"] == 1).await;
    let kind = path(&status);
    assert_eq!(kind["last_nack"], "not today", "{status}");
    assert_eq!((&kind["kind"], &kind["accepted"]), (&"CDS".into(), &Value::Null), "{status}");
    assert_eq!(status["xds"]["clients"][0]["node"], "one", "{status}");
    let metrics = balancer.get("/metrics").await;
    let line = r#"evenkeel_balancer_xds_nacks_total{type="CDS",variant="state_of_the_world"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn xds_can_be_switched_off() {
    let balancer = Balancer::start(&["--backends", TWO, "--xds", "false"], &[]).await;
    let mut client = AggregatedDiscoveryServiceClient::new(balancer.channel());
    let requests = futures_util::stream::iter([clusters()]);
    let refused = within(client.stream_aggregated_resources(requests)).await;
    assert_eq!(refused.expect_err("it is off").code(), Code::Unimplemented);
    assert_eq!(balancer.status().await["xds"], Value::Null);
}
