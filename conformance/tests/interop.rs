//! gRPC's interop cases, ours against ours: every case holds over loopback, the server is told of
//! what is cancelled, and against a server that is wrong the cases fail.

use std::{
    future::{Future, poll_fn},
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use bytes::Bytes;
use conformance::interop::{Case, NOT_SUPPORTED, Soak, Target, TestServer, routes, run_case};
use evenkeel_server::{Server, ShutdownHandle};
use h2::Reason;
use http::Response;
use prost::encoding::encode_varint;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};
use tonic::service::Routes;

const LIMIT: Duration = Duration::from_secs(10);

async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    match timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => panic!("expected {what} within {LIMIT:?}"),
    }
}

/// A server in this process.
struct Serving {
    port: u16,
    shutdown: ShutdownHandle,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    async fn start(routes: Routes) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server =
            Server::builder().drain_delay(Duration::ZERO).drain_grace(LIMIT).build(routes).unwrap();
        let shutdown = server.shutdown_handle();
        let task = tokio::spawn(async move {
            server.serve([listener]).await.unwrap();
        });
        Self { port, shutdown, task }
    }

    async fn test_server(id: &str) -> Self {
        Self::start(routes(TestServer::new(id))).await
    }

    fn target(&self) -> Target {
        Target::of("127.0.0.1", self.port)
    }

    async fn end(self) {
        self.shutdown.drain();
        bounded("the server's end", self.task).await.unwrap();
    }
}

/// `conformance-server` as a process.
struct Process {
    child: Child,
    port: String,
}

impl Process {
    async fn start(flags: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_conformance-server"))
            .args(["--port", "0"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = bounded("a line of the server", lines.next_line()).await.unwrap().unwrap();
        let port = line.strip_prefix("Started server on port ").unwrap().to_owned();
        Self { child, port }
    }

    async fn end(mut self) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = bounded("the server's end", self.child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

async fn client(port: &str, case: &str, flags: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance-interop"));
    command
        .args(["--server_host=127.0.0.1", &format!("--server_port={port}")])
        .arg(format!("--test_case={case}"))
        .args(flags)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    bounded(case, command.output()).await.unwrap()
}

#[tokio::test]
async fn every_case_holds_between_our_client_and_our_server() {
    let server = Process::start(&[]).await;
    for case in Case::ALL {
        let output = client(&server.port, case.name(), &[]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {stderr}", case.name());
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(stdout, format!("{}: passed\n", case.name()));
    }
    server.end().await;
}

#[tokio::test]
async fn cases_that_it_does_not_have_are_refused_with_the_reason() {
    for (case, why) in NOT_SUPPORTED {
        let output = client("1", case, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{case}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{case}");
    }
}

/// A server's certificate, self-signed and so its own CA, in files that go away.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("evenkeel-cases-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["*.test.google.fr".to_owned()]).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.join("server1.pem"), chain).unwrap();
        std::fs::write(folder.join("server1.key"), key.serialize_pem()).unwrap();
        Self(folder)
    }

    fn flag(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.0.join(file).display())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn cases_hold_over_tls_and_only_under_the_certificates_name() {
    let files = Files::new();
    let cert = files.flag("tls_cert_file", "server1.pem");
    let key = files.flag("tls_key_file", "server1.key");
    let server = Process::start(&["--use_tls".to_owned(), cert, key]).await;
    let ca = files.flag("ca_file", "server1.pem");
    let flags = |name: &str| {
        let name = format!("--server_host_override={name}");
        ["--use_tls=true".to_owned(), "--use_test_ca".to_owned(), ca.clone(), name]
    };
    for case in [Case::LargeUnary, Case::PingPong, Case::CustomMetadata, Case::ChannelSoak] {
        let output = client(&server.port, case.name(), &flags("foo.test.google.fr")).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {stderr}", case.name());
    }
    let output = client(&server.port, "empty_unary", &flags("foo.test")).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("not valid for name \\\"foo.test\\\""), "{stderr}");
    server.end().await;
}

/// Plays TestService on bare HTTP/2 until the connection ends: a reset is all that a server sees of
/// a cancelled call, and neither hyper nor tonic shows it to a handler. Returns what the streaming
/// calls were reset with.
async fn serve_frames(listener: TcpListener) -> Vec<Reason> {
    let (socket, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(socket).await.unwrap();
    let mut calls = JoinSet::new();
    // Frames are read and written as long as this waits for the next call.
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let head =
            || Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        match request.uri().path() {
            "/grpc.testing.TestService/EmptyCall" => {
                let mut stream = respond.send_response(head(), false).unwrap();
                stream.send_data(message(&[]), false).unwrap();
                let status = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                stream.send_trailers(status.into_iter().collect()).unwrap();
            }
            "/grpc.testing.TestService/StreamingInputCall" => {
                calls.spawn(async move { poll_fn(|cx| respond.poll_reset(cx)).await });
            }
            "/grpc.testing.TestService/FullDuplexCall" => {
                let mut stream = respond.send_response(head(), false).unwrap();
                stream.send_data(message(&[0; 31_415]), false).unwrap();
                calls.spawn(async move { poll_fn(|cx| stream.poll_reset(cx)).await });
            }
            other => panic!("expected a call of a cancel case, got {other}"),
        }
    }
    calls.join_all().await.into_iter().map(|reset| reset.expect("a reset")).collect()
}

/// A gRPC message: `payload { body }`, or nothing of an empty body.
fn message(body: &[u8]) -> Bytes {
    let mut payload = Vec::new();
    if !body.is_empty() {
        let mut inner = vec![0x12];
        encode_varint(body.len() as u64, &mut inner);
        inner.extend_from_slice(body);
        payload.push(0x0a);
        encode_varint(inner.len() as u64, &mut payload);
        payload.extend(inner);
    }
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &payload].concat().into()
}

#[tokio::test]
async fn the_server_is_told_of_a_cancelled_call() {
    for case in [Case::CancelAfterBegin, Case::CancelAfterFirstResponse] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::of("127.0.0.1", listener.local_addr().unwrap().port());
        let server = tokio::spawn(serve_frames(listener));
        run_case(case, &target, Soak::default()).await.unwrap();
        let resets = bounded("the connection's end", server).await.unwrap();
        assert_eq!(resets, [Reason::CANCEL], "{}", case.name());
    }
}

#[tokio::test]
async fn pick_first_holds_with_two_servers_and_round_robin_does_not() {
    let one = Serving::test_server("one").await;
    let two = Serving::test_server("two").await;
    let uri = format!("ipv4:127.0.0.1:{},127.0.0.1:{}", one.port, two.port);
    let mut target = Target { uri, ..Target::default() };
    run_case(Case::PickFirstUnary, &target, Soak::default()).await.unwrap();
    target.service_config = Some(r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#.into());
    let failure = run_case(Case::PickFirstUnary, &target, Soak::default()).await.unwrap_err();
    assert!(failure.to_string().contains("in call"), "{failure}");
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn cases_fail_against_a_server_without_the_service() {
    let server = Serving::start(Routes::default()).await;
    let cases = Case::ALL.into_iter().filter(|case| match case {
        // That is what they look for.
        Case::UnimplementedMethod | Case::UnimplementedService => false,
        // UNIMPLEMENTED comes within the deadline, or not.
        Case::TimeoutOnSleepingServer => false,
        _ => true,
    });
    for case in cases {
        let done = run_case(case, &server.target(), Soak::default()).await;
        let failure = done.expect_err(case.name()).to_string();
        assert!(failure.contains("nimplemented"), "{}: {failure}", case.name());
    }
    server.end().await;
}

#[tokio::test]
async fn a_soak_with_late_calls_fails() {
    let server = Serving::test_server("one").await;
    let mut soak = Soak::default();
    soak.threads = 3;
    soak.latency_max = Duration::ZERO;
    let failure = run_case(Case::RpcSoak, &server.target(), soak).await.unwrap_err();
    assert!(failure.to_string().contains("10 of 10"), "{failure}");
    soak.max_failures = 10;
    run_case(Case::RpcSoak, &server.target(), soak).await.unwrap();
    server.end().await;
}
