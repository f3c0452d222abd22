//! The real program against real backends: what it prints, how it ends, what it refuses.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};

use evenkeel_server::{
    Builder, Server, ShutdownHandle,
    tls::{ClientAuth, Identity, Roots, ServerTls},
};
use helloworld::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};
use tonic::{Request, Response, Status, service::Routes};

const LIMIT: Duration = Duration::from_secs(10);

/// Answers as the greeter does, under a name of its own.
struct Named(&'static str);

#[tonic::async_trait]
impl Greeter for Named {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(HelloReply { message: format!("Hello {name} (Backend IP: {})", self.0) }))
    }
}

/// Backends on free ports; dropping them ends their servers.
struct Backends {
    target: String,
    handles: Vec<ShutdownHandle>,
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.handles.iter().for_each(ShutdownHandle::drain);
    }
}

async fn backends(names: &[&'static str]) -> Backends {
    backends_with(names, |builder| builder).await
}

async fn backends_with(names: &[&'static str], tune: impl Fn(Builder) -> Builder) -> Backends {
    let (mut addresses, mut handles) = (Vec::new(), Vec::new());
    for name in names {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap().to_string());
        let routes = Routes::new(GreeterServer::new(Named(name)));
        let builder = Server::builder().drain_delay(Duration::ZERO);
        let server = tune(builder).build(routes).unwrap();
        handles.push(server.shutdown_handle());
        tokio::spawn(server.serve([listener]));
    }
    Backends { target: format!("ipv4:{}", addresses.join(",")), handles }
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("client-test-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A target at which nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("ipv4:{}", listener.local_addr().unwrap())
}

fn client(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    for name in ["TARGET", "CONFIG"] {
        command.env_remove(format!("GREETER_SERVICE_{name}"));
    }
    for name in ["", "_CA", "_CERT", "_KEY", "_SERVER_NAME"] {
        command.env_remove(format!("GREETER_TLS{name}"));
    }
    command.env_remove("GREETER_LB_POLICY_NAME").env_remove("RUST_LOG");
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn end(child: Child) -> Ended {
    let output = timeout(LIMIT, child.wait_with_output()).await.expect("ends in time").unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn run(args: &[&str]) -> Ended {
    end(client(args).spawn().unwrap()).await
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().expect("still running") as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

/// The calls of each row of the final table.
fn table_calls(stdout: &str) -> BTreeMap<String, u64> {
    let rows = stdout.lines().skip_while(|line| !line.starts_with("backend ")).skip(1);
    let rows = rows.take_while(|line| !line.starts_with("failed "));
    rows.map(|row| {
        let mut words = row.split_whitespace();
        (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn prints_the_lines_of_the_example_and_a_table_that_adds_up() {
    let backends = backends(&["one", "two"]).await;
    let args = ["--target", &backends.target, "--count", "8", "--rate", "200", "--warmup", "5s"];
    let ended = run(&args).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines[0], "Will use round_robin load balancing policy");
    assert_eq!(lines[1], format!("Creating channel with target {}", backends.target));
    let count = |text: &str| lines[2..10].iter().filter(|line| **line == text).count();
    let one = count("Greeting: Hello you (Backend IP: one)");
    let two = count("Greeting: Hello you (Backend IP: two)");
    assert_eq!(one + two, 8, "{}", ended.stdout);
    // A backend that was slow to connect may have had no call, and then has no row.
    let rows = [("all", 8), ("one", one as u64), ("two", two as u64)];
    let want = rows.into_iter().filter(|(_, calls)| *calls > 0);
    assert_eq!(table_calls(&ended.stdout), want.map(|(k, v)| (k.to_owned(), v)).collect());
    assert!(ended.stdout.contains("\nfailed 0\n"), "{}", ended.stdout);
    assert_eq!(ended.stderr, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_over_tls_with_roots_and_a_certificate_from_files() {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["greeter.test".to_owned()]).unwrap();
    let (chain, key) = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
    let tls = ServerTls::new(Identity::from_pem(&chain, &key).unwrap())
        .client_auth(ClientAuth::Required(Roots::from_pem(&chain).unwrap()));
    let folder = Folder::new();
    let (chain, key) = (folder.write("tls.crt", &chain), folder.write("tls.key", &key));
    let server = |builder: Builder| builder.tls(tls.clone()).unwrap();
    let backends = backends_with(&["one"], server).await;
    let of_server = ["--target", &backends.target, "--count", "3", "--rate", "200", "--tls"];
    let args =
        [&of_server[..], &["--tls-ca", &chain, "--tls-server-name", "greeter.test"]].concat();
    let own = ["--tls-cert", &chain, "--tls-key", &key];
    let ended = run(&[&args[..], &own].concat()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let greeting = "Greeting: Hello you (Backend IP: one)";
    assert_eq!(ended.stdout.lines().filter(|line| *line == greeting).count(), 3);

    let ended = run(&args).await;
    assert!(ended.stdout.contains("the server wants a client certificate"), "{}", ended.stdout);
    let ended = run(&[&of_server[..], &["--tls-ca", "/none"]].concat()).await;
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    assert!(ended.stderr.contains("TLS: /none: No such file"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_failed_call_is_a_line_and_no_reason_to_fail() {
    let target = nobody().await;
    let ended = run(&["--target", &target, "--count", "2", "--rate", "100"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let errors: Vec<&str> =
        ended.stdout.lines().filter(|line| line.starts_with("Error invoking greeting: ")).collect();
    assert_eq!(errors.len(), 2, "{}", ended.stdout);
    let address = target.trim_start_matches("ipv4:");
    for error in errors {
        assert!(error.starts_with("Error invoking greeting: UNAVAILABLE: "), "{error}");
        assert!(error.contains(address), "{error}");
    }
    assert!(ended.stdout.contains("\nfailed 2: UNAVAILABLE 2\n"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn json_output_is_one_object_that_adds_up() {
    let backends = backends(&["one", "two", "three"]).await;
    let args =
        ["--target", &backends.target, "--count", "300", "--rate", "0", "--concurrency", "4"];
    let ended = run(&[&args[..], &["--output=json", "--slots=10ms", "--warmup=5s"]].concat()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&report["calls"], &report["ok"], &report["fail"]),
        (&300.into(), &300.into(), &0.into())
    );
    let by_backend = report["by_backend"].as_object().unwrap();
    assert_eq!(by_backend.len(), 3);
    let sum = |key: &str| by_backend.values().map(|one| one[key].as_f64().unwrap()).sum::<f64>();
    assert_eq!(sum("calls"), 300.0);
    assert!((sum("share") - 1.0).abs() < 1e-5);
    let in_slots: u64 = report["slots"].as_array().unwrap().iter().map(slot_calls).sum();
    assert_eq!(in_slots, 300);
    assert!(report["cpu_s"].as_f64().unwrap() > 0.0);
    assert!(report["first_ok_unix_s"].as_f64() >= report["started_unix_s"].as_f64());
}

fn slot_calls(slot: &Value) -> u64 {
    slot["by_backend"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_signal_ends_the_run_with_a_report() {
    let backends = backends(&["one"]).await;
    for signal in [Signal::INT, Signal::TERM] {
        let args = ["--target", &backends.target, "--count", "0", "--rate", "50"];
        let mut child = client(&args).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("Greeting: ") {
            let read = timeout(LIMIT, stdout.read_line(&mut seen)).await.expect("prints in time");
            assert_ne!(read.unwrap(), 0, "{seen}");
        }
        send(&child, signal);
        timeout(LIMIT, stdout.read_to_string(&mut seen)).await.expect("ends in time").unwrap();
        let status = timeout(LIMIT, child.wait()).await.expect("ends in time").unwrap();
        assert_eq!(status.code(), Some(0), "{seen}");
        let greetings = seen.matches("Greeting: Hello you (Backend IP: one)").count() as u64;
        let want = [("all", greetings), ("one", greetings)];
        assert_eq!(table_calls(&seen), want.map(|(k, v)| (k.to_owned(), v)).into(), "{seen}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bad_configuration_exits_64_and_says_what_was_expected() {
    for (args, says) in [
        (&["--target", ""][..], "it is empty"),
        (&["--target", "http://localhost:8000"], "http"),
        (&["--target", "ipv4:localhost:8000"], "localhost:8000"),
        (&["--target", "ipv4:127.0.0.1:99999"], "99999"),
        (&["--lb-policy", "unheard_of"], "unheard_of"),
        (&["--service-config", "{"], "expected JSON"),
        (&["--service-config", r#"{"loadBalancingConfig":[{"unheard_of":{}}]}"#], "unheard_of"),
        (&["--timeout", "5"], "a unit is missing"),
        (&["--rate", "NaN"], "from 0 to 1000000"),
        (&["--rate", "-1"], "from 0 to 1000000"),
        (&["--keepalive-time", "1s"], "at least 10s"),
        (&["--slots", "1s"], "--output json"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        let ended = run(args).await;
        assert_eq!(ended.code, Some(64), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(says), "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_environment_sets_target_policy_and_service_config() {
    let backends = backends(&["one", "two"]).await;
    for (config, policy) in [
        (None, "pick_first"),
        (Some(r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#), "round_robin"),
    ] {
        let mut command = client(&["--count", "500", "--rate", "0", "--warmup", "5s", "--quiet"]);
        command.env("GREETER_SERVICE_TARGET", &backends.target);
        command.env("GREETER_LB_POLICY_NAME", "pick_first");
        command.envs(config.map(|config| ("GREETER_SERVICE_CONFIG", config)));
        let ended = end(command.spawn().unwrap()).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let first = format!("Will use {policy} load balancing policy\n");
        assert!(ended.stdout.starts_with(&first), "{}", ended.stdout);
        assert!(!ended.stdout.contains("Greeting: "), "--quiet prints no line per call");
        let used = table_calls(&ended.stdout).len() - 1;
        assert_eq!(used, if policy == "pick_first" { 1 } else { 2 }, "{}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn events_are_json_lines_on_stderr() {
    let backends = backends(&["one"]).await;
    let args = ["--target", &backends.target, "--count", "3", "--rate", "0", "--events"];
    let ended = run(&args).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let events: Vec<Value> =
        ended.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let address = backends.target.trim_start_matches("ipv4:");
    let has = |name: &str, key: &str, value: Value| {
        events.iter().any(|event| event["event"] == name && event[key] == value)
    };
    assert!(has("resolver_update", "addresses", vec![address].into()), "{}", ended.stderr);
    assert!(has("channel_state", "state", "READY".into()), "{}", ended.stderr);
    assert!(has("subchannel", "state", "READY".into()), "{}", ended.stderr);
    assert!(has("first_call", "backend", "one".into()), "{}", ended.stderr);
    assert!(events.iter().all(|event| event["unix_s"].is_f64()), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reader_that_goes_away_ends_the_run() {
    let backends = backends(&["one"]).await;
    let mut child = client(&["--target", &backends.target, "--rate", "100"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    timeout(LIMIT, stdout.read_line(&mut line)).await.expect("prints in time").unwrap();
    drop(stdout);
    let ended = end(child).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_warm_up_that_does_not_get_ready_says_so_and_starts() {
    let target = nobody().await;
    let args = ["--target", &target, "--count", "1", "--warmup", "50ms"];
    let ended = run(&args).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("not READY within 50ms"), "{}", ended.stderr);
    assert!(ended.stdout.contains("failed 1: UNAVAILABLE 1"), "{}", ended.stdout);
}
