//! The real conformance client against real backends: the line that runners read, the commands that
//! they send, and what must not pass silently.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_server::{Server, ShutdownHandle};
use helloworld::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Notify,
    time::timeout,
};
use tonic::{Request, Response, Status, service::Routes};

const LIMIT: Duration = Duration::from_secs(10);

/// A backend that can be asked how many calls it had.
struct Backend {
    address: String,
    calls: Arc<Calls>,
    shutdown: ShutdownHandle,
}

#[derive(Default)]
struct Calls {
    count: AtomicU64,
    came: Notify,
}

struct Named(&'static str, Arc<Calls>);

#[tonic::async_trait]
impl Greeter for Named {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        self.1.count.fetch_add(1, Ordering::SeqCst);
        self.1.came.notify_one();
        let name = request.into_inner().name;
        Ok(Response::new(HelloReply { message: format!("Hello {name} (Backend IP: {})", self.0) }))
    }
}

impl Backend {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let calls = Arc::<Calls>::default();
        let routes = Routes::new(GreeterServer::new(Named(name, Arc::clone(&calls))));
        let server = Server::builder().drain_delay(Duration::ZERO).build(routes).unwrap();
        let shutdown = server.shutdown_handle();
        tokio::spawn(server.serve([listener]));
        Self { address, calls, shutdown }
    }

    /// Waits until it has had `more` calls from now on.
    async fn serves(&self, more: u64) {
        let want = self.calls.count.load(Ordering::SeqCst) + more;
        let served = async {
            while self.calls.count.load(Ordering::SeqCst) < want {
                self.calls.came.notified().await;
            }
        };
        timeout(LIMIT, served).await.expect("is called in time");
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shutdown.drain();
    }
}

fn client(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance-client"));
    command.env_remove("GREETER_SERVICE_TARGET").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// Runs to the end: exit code, standard output and error.
async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let child = client(args).spawn().unwrap();
    let output = timeout(LIMIT, child.wait_with_output()).await.expect("ends in time").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The last line of a run that has to succeed.
async fn result(args: &[&str]) -> Value {
    let (code, stdout, stderr) = run(args).await;
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(stdout.lines().last().expect("prints a line")).unwrap()
}

/// A client that is driven by commands.
struct Driven {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Driven {
    fn start(args: &[&str]) -> Self {
        let mut child = client(args).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, stdout }
    }

    /// Sends a command and waits for its reply.
    async fn say(&mut self, line: &str) -> String {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let event = timeout(LIMIT, self.stdout.next_line()).await.expect("replies in time");
        let event: Value = serde_json::from_str(&event.unwrap().expect("replies")).unwrap();
        assert_eq!((&event["event"], &event["line"]), (&"command".into(), &line.trim().into()));
        assert!(event["t"].is_f64());
        event["reply"].as_str().unwrap().to_owned()
    }

    /// Ends it by SIGTERM; its last line.
    async fn finish(mut self) -> Value {
        let pid = Pid::from_raw(self.child.id().expect("still running") as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let mut last = String::new();
        while let Some(line) =
            timeout(LIMIT, self.stdout.next_line()).await.expect("ends in time").unwrap()
        {
            last = line;
        }
        let status = timeout(LIMIT, self.child.wait()).await.expect("ends in time").unwrap();
        assert_eq!(status.code(), Some(0));
        serde_json::from_str(&last).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn counts_every_call_as_the_backends_do() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let target = format!("static:///{},{}", one.address, two.address);
    let (mut one_had, mut two_had) = (0, 0);
    for load in [&["--concurrency", "4"][..], &["--rps", "1000", "--timeline", "20ms"]] {
        let args = ["--target", &target, "--count", "200", "--warmup", "5s", "--states"];
        let line = result(&[&args[..], load].concat()).await;
        assert_eq!((&line["calls"], &line["ok"]), (&200.into(), &200.into()), "{line}");
        assert_eq!((&line["fail"], &line["shed"]), (&0.into(), &0.into()), "{line}");
        let of_one = line["by_backend"]["one"].as_u64().unwrap();
        let of_two = line["by_backend"]["two"].as_u64().unwrap();
        (one_had, two_had) = (one_had + of_one, two_had + of_two);
        assert_eq!(of_one + of_two, 200, "{line}");
        assert!(line["ready_s"].as_f64().unwrap() >= 0.0, "{line}");
        let states: Vec<&Value> =
            line["states"].as_array().unwrap().iter().map(|change| &change["state"]).collect();
        assert_eq!(states.last(), Some(&&"READY".into()), "{line}");
        if load[0] == "--rps" {
            let slots = line["timeline"].as_array().unwrap();
            let calls = |slot: &Value| -> u64 {
                let by_backend = slot["by_backend"].as_object().unwrap();
                by_backend.values().map(|n| n.as_u64().unwrap()).sum()
            };
            assert_eq!(slots.iter().map(calls).sum::<u64>(), 200, "{line}");
        }
    }
    let calls = |backend: &Backend| backend.calls.count.load(Ordering::SeqCst);
    assert_eq!((calls(&one), calls(&two)), (one_had, two_had));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pick_first_stays_with_one_backend_and_warm_up_calls_do_not_count() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let target = format!("static:///{},{}", one.address, two.address);
    let args = ["--target", &target, "--policy=pick_first", "--count=20", "--warmup-calls=5"];
    let line = result(&args).await;
    assert_eq!(line["by_backend"], json!({ "one": 20 }), "{line}");
    assert_eq!((&line["longest_run"], &line["policy"]), (&20.into(), &"pick_first".into()));
    assert_eq!(one.calls.count.load(Ordering::SeqCst), 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_addrs_command_moves_the_traffic() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let target = format!("static:///{}", one.address);
    let args = ["--target", &target, "--rps", "200", "--duration", "1m"];
    let mut client = Driven::start(&args);
    one.serves(3).await;
    assert_eq!(client.say(&format!("addrs {}", two.address)).await, "ok");
    two.serves(3).await;
    assert!(client.say("addrs localhost").await.contains("expected IP:port"));
    let bad = format!("addrs {} balancers localhost", two.address);
    assert!(client.say(&bad).await.contains("expected IP:port"));
    // A resolver that fails after a good list leaves it in use.
    assert_eq!(client.say("resolver-error no such host").await, "ok");
    two.serves(3).await;
    let line = client.finish().await;
    assert_eq!(line["fail"], 0, "{line}");
    assert!(line["by_backend"]["one"].as_u64() >= Some(3), "{line}");
    assert!(line["by_backend"]["two"].as_u64() >= Some(6), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_empty_list_fails_calls_and_addrs_heals_it() {
    let one = Backend::start("one").await;
    let args = ["--target", "static:///", "--rps", "100", "--duration", "1m"];
    let mut client = Driven::start(&args);
    assert_eq!(client.say(&format!("addrs {}", one.address)).await, "ok");
    one.serves(3).await;
    assert_eq!(client.say("addrs ").await, "ok");
    assert_eq!(client.say(&format!("addrs {}", one.address)).await, "ok");
    one.serves(3).await;
    let line = client.finish().await;
    assert!(line["ok"].as_u64() >= Some(6), "{line}");
    let empty = result(&["--target", "static:///", "--count", "3"]).await;
    assert_eq!((&empty["fail"], &empty["by_code"]), (&3.into(), &json!({ "UNAVAILABLE": 3 })));
    assert_eq!(empty["latency_ms"], json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_endpoint_of_two_addresses_is_one_backend() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let target = format!("static:///{}|{}", one.address, two.address);
    let line = result(&["--target", &target, "--count", "20", "--warmup", "5s"]).await;
    assert_eq!(line["by_backend"], json!({ "one": 20 }), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn print_gives_the_text_lines_of_the_example() {
    let one = Backend::start("one").await;
    let target = format!("static:///{}", one.address);
    let (code, stdout, stderr) =
        run(&["--target", &target, "--print", "--count=2", "--no-stdin", "--name=me"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let greeting = "Greeting: Hello me (Backend IP: one)\n";
    let want = format!(
        "Will use round_robin load balancing policy\nCreating channel with target {target}\n\
         {greeting}{greeting}"
    );
    assert_eq!(stdout, want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_not_supported_exits_2_and_says_why() {
    let target = &["--target", "static:///"][..];
    for (args, says) in [
        (&["--balancers", "localhost"][..], "--balancers"),
        (&["--idle-timeout=1s"], "--idle-timeout is not supported"),
        (&["--procs", "1"], "--procs is not supported"),
        (&["--arg", "grpc.x=1"], "--arg is not supported"),
        (&["--policy", "unheard_of"], "unheard_of"),
        (&["--policy", "pick_first", "--policy-config", r#"{"shuffleAddressList":3}"#], "got 3"),
        (&["--service-config", "{"], "expected JSON"),
        (&["--target", "xds:///greeter.test"], "xds"),
        (&["--target", "static:///localhost:8000"], "expected IP:port"),
        (&["--duration", "5"], "a unit is missing"),
        (&["--authority", "not an authority"], "authority"),
        (&["--hash-header", "not a header"], "--hash-header"),
    ] {
        let (code, stdout, stderr) = run(&[target, args].concat()).await;
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        // Flags that could be read leave a line without calls, so that a scenario can go on.
        if let Some(line) = stdout.lines().last() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["calls"], 0, "{args:?}");
            assert!(line["refused"].as_str().unwrap().contains(says), "{args:?}: {line}");
            assert_eq!(line["timeline"].as_array().unwrap().len(), 1, "{args:?}");
        }
    }
    let (code, _, stderr) = run(&["--count", "1"]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--target"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn commands_to_a_target_that_is_not_static_say_so() {
    let one = Backend::start("one").await;
    let target = format!("ipv4:{}", one.address);
    let mut client = Driven::start(&["--target", &target, "--rps=100", "--duration=1m"]);
    assert!(client.say("addrs 127.0.0.1:1").await.starts_with("commands: addrs LIST"));
    one.serves(3).await;
    assert_eq!(client.finish().await["policy"], "round_robin");
}
