//! Our grpclb client against balancers that `reference.py` does not play: every mode and knob of
//! `peer balancer`, and grpc-go's own test balancer, which knows nothing of it.
//!
//! Each case has balancers of its own and three backends that all share: `.1` and `.2` for lists,
//! `.3` as the resolver's own, so that a call to `.3` is one in fallback.

use super::block::Block;
use super::error::Error;
use super::facility::Facility;
use super::process::{self, Started};
use super::row::Row;
use super::scenario::LOOKASIDE;
use futures_util::{StreamExt as _, stream};
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{ChildStdout, Command};
use tokio::sync::mpsc::Sender;

/// The peers that this needs.
pub(crate) const TOOLS: &[&str] = &["peer", "interop-fake_grpclb"];

/// How long a peer may take to start, and to answer a command.
const PEER_LIMIT: Duration = Duration::from_secs(10);
/// The longest client runs 12 s.
const CLIENT_LIMIT: Duration = Duration::from_secs(60);
/// Cases side by side: most of each is waiting.
const AT_ONCE: usize = 5;
/// Where the balancers of the first case listen.
const PORT_FIRST: u16 = 9_100;
/// Ports of one case: balancers, and as many for their commands.
const PORTS_PER_CASE: u16 = 8;
/// The one port that grpc-go's balancer gives to its backends.
const FAKE_BACKEND_PORT: u16 = 443;

/// One case. `{1}` is the address of backend 1.
struct Case {
    name: &'static str,
    /// The flags of each balancer, in the order in which the client has them; of none: nobody
    /// listens there.
    balancers: &'static [&'static [&'static str]],
    client: &'static [&'static str],
    /// What the first balancer is told, and when, in milliseconds after the client's start.
    says: &'static [(u64, &'static str)],
}

const SHORT: &[&str] = &["--rps", "50", "--duration", "3s", "--wait-for-ready"];
const LONG: &[&str] = &["--rps", "20", "--duration", "12s", "--wait-for-ready", "--timeout", "20s"];
const COUNTED: &[&str] = &["--count", "400", "--warmup", "2s"];
const BOTH: &str = "{1},{2}";

const CASES: &[Case] = &[
    Case {
        name: "initial response 1.5 s late",
        balancers: &[&["--server", BOTH, "--delay-initial", "1500ms"]],
        client: SHORT,
        says: &[],
    },
    Case {
        name: "list 1.5 s after the initial response",
        balancers: &[&["--server", BOTH, "--delay-list", "1500ms"]],
        client: SHORT,
        says: &[],
    },
    Case {
        name: "no initial response",
        balancers: &[&["--server", BOTH, "--mode", "no-initial"]],
        client: SHORT,
        says: &[],
    },
    Case {
        name: "list before the initial response",
        balancers: &[&["--server", BOTH, "--mode", "list-first", "--interval", "200ms"]],
        client: COUNTED,
        says: &[],
    },
    Case {
        name: "initial response only",
        balancers: &[&["--mode", "initial-only"]],
        client: LONG,
        says: &[],
    },
    Case {
        name: "fallback response only",
        balancers: &[&["--mode", "fallback"]],
        client: SHORT,
        says: &[],
    },
    Case {
        name: "stream ends after the initial response",
        balancers: &[&["--mode", "close-after-initial"]],
        client: SHORT,
        says: &[],
    },
    Case {
        name: "every stream is UNIMPLEMENTED",
        balancers: &[&["--mode", "error", "--error-code", "12"]],
        client: SHORT,
        says: &[],
    },
    Case {
        name: "IPv4 addresses in 16 bytes",
        balancers: &[&["--server", "[::ffff:{net}.1]:8000,[::ffff:{net}.2]:8000"]],
        client: COUNTED,
        says: &[],
    },
    Case {
        name: "duplicates, 3 to 1",
        balancers: &[&["--server", "{1},{1},{2},{1}"]],
        client: COUNTED,
        says: &[],
    },
    Case {
        name: "token changes, address stays",
        balancers: &[&["--server", "{4}@old"]],
        client: SHORT,
        says: &[(1_500, "list {4}@new")],
    },
    Case {
        name: "only drops",
        balancers: &[&["--server", "drop@a,drop@b", "--interval", "200ms"]],
        client: &["--count", "400"],
        says: &[],
    },
    Case {
        name: "bad addresses and ports",
        balancers: &[&["--server", "hex:0102:8000,{net}.2:0,{net}.2:70000,{1}"]],
        client: COUNTED,
        says: &[],
    },
    Case {
        name: "messages that say nothing, a second initial response",
        balancers: &[&["--server", BOTH, "--interval", "200ms"]],
        client: SHORT,
        says: &[(1_000, "raw {}"), (1_100, "initial"), (1_200, "raw {}")],
    },
    Case {
        name: "connection age 1 s at the balancer",
        balancers: &[&["--server", BOTH, "--max-age", "1s"]],
        client: SHORT,
        says: &[],
    },
    Case {
        name: "reports add up",
        balancers: &[&["--server", "{1},drop@lb,{2},{1}", "--interval", "100ms"]],
        client: COUNTED,
        says: &[],
    },
    Case {
        name: "the first of two balancers is not there",
        balancers: &[&[], &["--server", BOTH]],
        client: SHORT,
        says: &[],
    },
    Case {
        name: "the first of two balancers never answers",
        balancers: &[&["--mode", "never"], &["--server", BOTH]],
        client: LONG,
        says: &[],
    },
];

/// A running `peer`; its output is read as long as it lives.
struct Peer {
    lines: Lines<BufReader<ChildStdout>>,
    control: String,
    _process: Started,
}

/// Runs all cases with `client`, a command as a shell splits it.
pub(crate) async fn run(
    facility: &Facility,
    client: &str,
    block: &Block,
    rows: &Sender<Row>,
) -> Result<(), Error> {
    eprintln!("on {}: {LOOKASIDE}", block.net());
    let shared: Vec<String> = (1..=3).map(|number| block.backend(number)).collect();
    let control = format!("{}.110:{PORT_FIRST}", block.net());
    let listen = ["server", "--listen", &shared.join(",")];
    let _shared = Peer::start(facility, &listen, control).await?;
    let cases = stream::iter(CASES.iter().enumerate()).map(|(number, case)| async move {
        send(rows, case.name, play(facility, client, block, number, case).await).await;
    });
    cases.buffer_unordered(AT_ONCE).collect::<()>().await;
    for (case, flags) in [
        ("interop-fake_grpclb", &[][..]),
        ("interop-fake_grpclb that ends each stream", &["-short_stream"]),
    ] {
        send(rows, case, fake(facility, client, block, flags).await).await;
    }
    Ok(())
}

/// A case that did not run is a row too: one that fails and says why.
async fn send(rows: &Sender<Row>, case: &str, result: Result<Value, Error>) {
    let result = result.unwrap_or_else(|error| json!({"error": error.to_string()}));
    // Without a receiver the run is ending.
    let _ = rows.send(Row::new(LOOKASIDE, case, result)).await;
}

impl Peer {
    async fn start(facility: &Facility, args: &[&str], control: String) -> Result<Self, Error> {
        let mut command = Command::new(facility.tool("peer"));
        command.args(args).args(["--control", &control]);
        let mut process = Started::spawn(&mut command, Signal::TERM)?;
        let lines = process.lines().expect("nobody took the lines of a child just started");
        let mut peer = Self { lines, control, _process: process };
        peer.event("listening").await?;
        Ok(peer)
    }

    /// The next event of this name.
    async fn event(&mut self, name: &str) -> Result<Value, Error> {
        let find = async {
            while let Ok(Some(line)) = self.lines.next_line().await {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["event"] == name {
                    return Some(event);
                }
            }
            None
        };
        let found = tokio::time::timeout(PEER_LIMIT, find).await;
        found.ok().flatten().ok_or_else(|| {
            Error::Process(format!("expected the event {name} of peer, it did not come"))
        })
    }

    async fn tell(&self, command: &str) -> Result<(), Error> {
        let socket = TcpStream::connect(&self.control).await;
        let mut socket = socket.map_err(Error::io(format!("connect to {}", self.control)))?;
        let line = format!("{command}\n");
        socket.write_all(line.as_bytes()).await.map_err(Error::io("command to peer"))
    }

    /// What it counted.
    async fn counted(&mut self, command: &str) -> Result<Value, Error> {
        self.tell(command).await?;
        self.event(command).await
    }
}

async fn play(
    facility: &Facility,
    client: &str,
    block: &Block,
    number: usize,
    case: &Case,
) -> Result<Value, Error> {
    let first = PORT_FIRST + PORTS_PER_CASE * (1 + number as u16);
    let fill = |text: &str| {
        let numbered = (1..=4).map(|n| (format!("{{{n}}}"), block.backend(n)));
        let names = numbered.chain([("{net}".to_owned(), block.net().to_owned())]);
        names.fold(text.to_owned(), |text, (name, value)| text.replace(&name, &value))
    };
    let mut own = None;
    if case.balancers.iter().flat_map(|flags| *flags).any(|flag| flag.contains("{4}")) {
        let control = format!("{}.111:{first}", block.net());
        let listen = ["server", "--listen", &block.backend(4)];
        own = Some(Peer::start(facility, &listen, control).await?);
    }
    let mut balancers = Vec::new();
    let mut addresses = Vec::new();
    for (port, flags) in (first..).zip(case.balancers) {
        let address = format!("{}.100:{port}", block.net());
        if !flags.is_empty() {
            let control = format!("{}.110:{port}", block.net());
            let flags: Vec<String> = flags.iter().map(|flag| fill(flag)).collect();
            let mut args = vec!["balancer", "--listen", &address];
            args.extend(flags.iter().map(String::as_str));
            balancers.push(Peer::start(facility, &args, control).await?);
        }
        addresses.push(address);
    }
    let target = format!("static:///{}", block.backend(3));
    let mut args = vec!["--target", &target, "--policy", "grpclb", "--no-stdin"];
    let balancer_list = addresses.join(",");
    args.extend(["--balancers", &balancer_list]);
    args.extend(case.client);
    let says = async {
        let mut passed = 0;
        for (at_ms, what) in case.says {
            tokio::time::sleep(Duration::from_millis(at_ms - passed)).await;
            passed = *at_ms;
            balancers[0].tell(&fill(what)).await?;
        }
        Ok(())
    };
    let (line, said) = tokio::join!(run_client(client, &args), says);
    let (mut result, ()) = (line?, said?);
    let mut streams = 0;
    for balancer in &mut balancers {
        let totals = balancer.counted("totals").await?;
        streams += totals["streams_ever"].as_u64().unwrap_or_default();
        result.insert("reported".into(), reported(&totals));
    }
    result.insert("streams".into(), json!(streams));
    if let Some(own) = &mut own {
        let stats = own.counted("stats").await?;
        let server = &stats["servers"][block.backend(4)];
        result.insert("lb_tokens".into(), server["lb_tokens"].clone());
        result.insert("connections".into(), server["connections"].clone());
    }
    Ok(Value::Object(result))
}

/// What a balancer's reports add up to.
fn reported(totals: &Value) -> Value {
    let number = |key: &str| totals[key].as_u64().unwrap_or_default();
    json!({
        "reports": number("reports"),
        "started": number("num_calls_started"),
        "finished": number("num_calls_finished"),
        "failed_to_send": number("num_calls_finished_with_client_failed_to_send"),
        "known_received": number("num_calls_finished_known_received"),
        "drops": totals["drops"],
    })
}

async fn run_client(client: &str, args: &[&str]) -> Result<Map<String, Value>, Error> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {client} \"$@\""), "sh"]).args(args);
    let finished = process::run(&mut command, CLIENT_LIMIT).await?;
    let line = finished.stdout.lines().last().unwrap_or_default();
    let all: Map<String, Value> = serde_json::from_str(line).map_err(|e| {
        Error::Process(format!(
            "expected one JSON line, got {line:?} ({e}), {}: {}",
            finished.status,
            finished.stderr.trim()
        ))
    })?;
    let kept = ["calls", "ok", "fail", "by_backend", "by_code", "errors", "refused"];
    let mut result = Map::new();
    for key in kept.into_iter().chain(["first_ok_s", "first_fail_s", "longest_run"]) {
        if let Some(value) = all.get(key) {
            result.insert(key.to_owned(), value.clone());
        }
    }
    Ok(result)
}

/// grpc-go's test balancer: it serves one name, and only backends on port 443.
async fn fake(
    facility: &Facility,
    client: &str,
    block: &Block,
    flags: &[&str],
) -> Result<Value, Error> {
    let port = PORT_FIRST - 1;
    let backend = format!("{}.6:{FAKE_BACKEND_PORT}", block.net());
    let control = format!("{}.112:{port}", block.net());
    let listen = ["server", "--listen", &backend];
    let _server = Peer::start(facility, &listen, control).await?;
    let mut command = Command::new(facility.tool("interop-fake_grpclb"));
    command.args(["-port", &port.to_string(), "-service_name", "greeter"]);
    command.args(["-backend_addrs", &backend]).args(flags);
    let _balancer = Started::spawn(&mut command, Signal::TERM)?;
    let address = format!("127.0.0.1:{port}");
    let answers = async {
        while TcpStream::connect(&address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PEER_LIMIT, answers).await.map_err(|_| {
        Error::Process(format!("expected interop-fake_grpclb on {address}, it does not listen"))
    })?;
    let target = format!("static:///{}", block.backend(3));
    let named = [
        "--target",
        &target,
        "--policy",
        "grpclb",
        "--no-stdin",
        "--balancers",
        &address,
        "--policy-config",
        r#"{"serviceName":"greeter"}"#,
    ];
    run_client(client, &[&named[..], SHORT].concat()).await.map(Value::Object)
}
