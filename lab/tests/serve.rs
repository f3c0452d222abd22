//! `lab serve` without a browser: who may ask for what, what happens when a button's request
//! comes, and that nothing is left. What only a browser can say is in `page/tests`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Each wait for the lab.
const WAIT: Duration = Duration::from_secs(10);
/// Three greeters and a client start; with debug builds on a busy machine that takes a while.
const START_WAIT: Duration = Duration::from_secs(40);

struct Lab {
    child: Child,
    address: SocketAddr,
}

impl Lab {
    /// Serves example 1 at a free port.
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lab"))
            // Without one, whatever this machine has: the examples with an Envoy are not asked for.
            .args(["serve", "round-robin", "--port", "0", "--rate", "100", "--envoy", "/nowhere"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the lab starts");
        let mut out: BufReader<ChildStdout> = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("http://").and_then(|at| at.strip_suffix('/'));
        let address = address.and_then(|at| at.parse().ok());
        Self { child, address: address.unwrap_or_else(|| panic!("an address, not {line:?}")) }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect_timeout(&self.address, WAIT).expect("it listens");
        socket.set_read_timeout(Some(START_WAIT)).expect("a time-out");
        socket
    }

    /// The status and the text of one answer; `headers` end with CRLF each.
    fn ask(&self, first: &str, headers: &str) -> (u16, String) {
        let mut socket = self.connect();
        write!(socket, "{first} HTTP/1.1\r\n{headers}connection: close\r\n\r\n").expect("written");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer that ends");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{answer}")), answer)
    }

    fn host(&self) -> String {
        format!("host: {}\r\n", self.address)
    }

    /// What happens once its backends serve, and the state then.
    fn events(&self) -> (Events, Value) {
        let mut socket = self.connect();
        write!(socket, "GET /events HTTP/1.1\r\n{}\r\n", self.host()).expect("written");
        let mut events = Events(BufReader::new(socket));
        let state = events.within(START_WAIT, "state", |state| condition(state, 3) == "serves");
        (events, state)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Its children end with it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Events(BufReader<TcpStream>);

impl Events {
    fn until(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.within(WAIT, name, wanted)
    }

    /// The first event `name` for which `wanted` holds.
    fn within(&mut self, wait: Duration, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let limit = Instant::now() + wait;
        let mut named = false;
        let mut line = String::new();
        while Instant::now() < limit {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("a line in time") > 0, "the stream ended");
            if let Some(event) = line.strip_prefix("event: ") {
                named = event.trim() == name;
            }
            if let (true, Some(data)) = (named, line.strip_prefix("data: ")) {
                let value = serde_json::from_str(data).expect("JSON");
                if wanted(&value) {
                    return value;
                }
            }
        }
        panic!("no such {name} within {wait:?}");
    }
}

fn condition(state: &Value, host: usize) -> &str {
    state["backends"][host - 1]["condition"].as_str().unwrap_or_default()
}

#[test]
fn a_post_kills_a_backend_whose_share_goes_to_0_and_comes_back() {
    let lab = Lab::start();
    let (mut events, state) = lab.events();
    let killed = state["backends"][1]["ip"].as_str().expect("an address").to_owned();
    let calls = |tick: &Value| tick["by_backend"][&killed].as_u64().unwrap_or(0);
    events.until("tick", |tick| calls(tick) > 5);

    assert_eq!(lab.ask("POST /backends/2/kill", &lab.host()).0, 202);
    events.until("mark", |mark| mark["what"] == format!("kill -9 of {killed}"));
    events.until("state", |state| condition(state, 2) == "dead" && state["busy"].is_null());
    let tick = events.until("tick", |tick| calls(tick) == 0);
    assert_eq!(tick["by_backend"].as_object().expect("a map").len(), 2, "{tick}");

    assert_eq!(lab.ask("POST /backends/2/restart", &lab.host()).0, 202);
    events.until("tick", |tick| calls(tick) > 5);
    let even = |tick: &Value| {
        let checks = tick["checks"].as_array().expect("a list");
        checks.iter().any(|check| check["id"] == "live.even_shares" && check["holds"] == true)
    };
    events.until("tick", even);
}

#[test]
fn each_process_has_a_page_for_prometheus_and_the_lab_lists_them() {
    let lab = Lab::start();
    let (mut events, _) = lab.events();
    events.until("tick", |tick| tick["by_backend"].as_object().is_some_and(|of| of.len() == 3));
    let (status, answer) = lab.ask("GET /targets", &lab.host());
    assert_eq!(status, 200, "{answer}");
    let list: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).expect("a body"))
        .expect("Prometheus's HTTP service discovery is JSON");
    let mut jobs = Vec::new();
    for target in list.as_array().expect("a list") {
        let at = target["targets"][0].as_str().expect("an address");
        let mut page = String::new();
        let mut socket = TcpStream::connect(at).expect("it listens");
        socket.set_read_timeout(Some(WAIT)).expect("a time-out");
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("written");
        socket.read_to_string(&mut page).expect("an answer that ends");
        let job = target["labels"]["job"].as_str().expect("a job");
        let counter = if job == "client" { "grpc_client_attempt" } else { "grpc_server_call" };
        assert!(page.contains(&format!("{counter}_started_total{{")), "{job}: {page}");
        jobs.push(job);
    }
    assert_eq!(jobs, ["greeter", "greeter", "greeter", "client"]);
}

#[test]
fn a_backend_that_fails_or_cuts_its_calls_is_well_again_on_a_wish() {
    let lab = Lab::start();
    let (mut events, _) = lab.events();
    for (deed, condition_then) in [("fail", "fails"), ("cut", "cuts calls")] {
        assert_eq!(lab.ask(&format!("POST /backends/2/{deed}"), &lab.host()).0, 202);
        events.until("state", |state| condition(state, 2) == condition_then);
        events.until("tick", |tick| tick["fail"].as_u64() > Some(0));
    }
    assert_eq!(lab.ask("POST /source/silence", &lab.host()).0, 202);
    events.until("state", |state| state["is_silent"] == true && state["source"] == "DNS");
    assert_eq!(lab.ask("POST /source/answer", &lab.host()).0, 202);
    events.until("state", |state| state["is_silent"] == false);
    assert_eq!(lab.ask("POST /backends/2/restart", &lab.host()).0, 202);
    events.until("state", |state| condition(state, 2) == "serves" && state["busy"].is_null());
    events.until("tick", |tick| {
        let checks = tick["checks"].as_array().expect("a list");
        checks.iter().any(|check| check["id"] == "live.none_failed" && check["holds"] == true)
    });
}

#[test]
fn foreign_names_and_foreign_pages_are_refused_and_nothing_happens() {
    let lab = Lab::start();
    assert!(lab.address.ip().is_loopback() && lab.address.is_ipv4());
    let (mut events, _) = lab.events();
    let (own, port) = (lab.host(), lab.address.port());
    let foreign = [
        format!("host: lab.example:{port}\r\n"),
        "host: 127.0.0.1\r\n".to_owned(),
        format!("{own}origin: http://lab.example\r\n"),
        format!("{own}origin: null\r\n"),
    ];
    for headers in &foreign {
        assert_eq!(lab.ask("POST /backends/1/kill", headers).0, 403, "{headers}");
    }
    for headers in &foreign[..2] {
        assert_eq!(lab.ask("GET /", headers).0, 403, "{headers}");
    }
    for (first, wanted) in [
        ("GET /", 200),
        ("GET /../Cargo.toml", 404),
        ("POST /backends/9/eat", 404),
        ("POST /", 404),
        ("PUT /backends/1/kill", 405),
        ("OPTIONS /backends/1/kill", 405),
    ] {
        let (status, answer) = lab.ask(first, &own);
        assert_eq!(status, wanted, "{first}");
        assert!(answer.contains("content-security-policy: default-src 'none'"), "{answer}");
        assert!(!answer.contains("access-control-allow"), "{answer}");
    }
    // A wish that is granted comes after all that were refused.
    let same = format!("{own}origin: http://{}\r\n", lab.address);
    assert_eq!(lab.ask("POST /backends/3/kill", &same).0, 202);
    let after = events.until("state", |state| condition(state, 3) == "dead");
    assert_eq!(condition(&after, 1), "serves");
}

#[test]
fn an_example_without_its_envoy_is_not_begun_with_and_one_is_told_why() {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["serve", "envoy-static", "--port", "0", "--envoy", "/nowhere"])
        .output()
        .expect("the lab starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere"));

    let lab = Lab::start();
    let (mut events, _) = lab.events();
    assert_eq!(lab.ask("POST /example/envoy-static", &lab.host()).0, 202);
    events.until("trouble", |of| of["what"].as_str().is_some_and(|w| w.contains("/nowhere")));
}

#[test]
fn sigterm_ends_it_with_0_and_a_page_that_is_open_does_not_keep_it() {
    let lab = Lab::start();
    let (mut events, _) = lab.events();
    let pid = Pid::from_raw(lab.child.id().cast_signed()).expect("a pid");
    kill_process(pid, Signal::TERM).expect("it runs");
    // The page stays open on our side until the end.
    let (tell, told) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut lab = lab;
        tell.send(lab.child.wait().expect("it ends")).ok();
    });
    let ended = told.recv_timeout(WAIT).expect("it ends in time");
    assert_eq!(ended.code(), Some(0));
    let mut rest = Vec::new();
    events.0.read_to_end(&mut rest).ok();
}
