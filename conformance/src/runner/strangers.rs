//! Other people's clients and tools against our greeter: clients of grpc-go and C-core under
//! connection age, and grpcurl, grpc-health-probe and ghz as their users call them. What grpcurl
//! reads of our client's channel is beside it, in `channelz`.

use super::block::Block;
use super::channelz;
use super::connections::count_during;
use super::error::Error;
use super::facility::Facility;
use super::process::{self, Finished, Started};
use super::row::Row;
use super::scenario::GREETER;
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc::Sender;

/// How long the greeter may take until it says that it accepts.
const START_LIMIT: Duration = Duration::from_secs(10);
/// A client of 20 s, with its start and what it still has in flight.
const CLIENT_LIMIT: Duration = Duration::from_secs(60);
pub(super) const TOOL_LIMIT: Duration = Duration::from_secs(30);
const SERVICE: &str = "helloworld.Greeter";
const GHZ_CALLS: &str = "2000";

/// Greeters whose load is worth a weight: 4 calls at once, and reports of what that comes to.
const ORCA: [(&str, &str); 3] =
    [("GREETER_ORCA", "true"), ("GREETER_ORCA_OOB_MIN", "200ms"), ("GREETER_CAPACITY", "4")];
/// Both ways in which a client gets the reports; its own periods are far longer than a test.
const WEIGHTED: [(&str, &str); 2] = [
    (
        "grpc-go weighted_round_robin, reports in trailers",
        r#"{"blackoutPeriod":"0.1s","weightUpdatePeriod":"0.1s"}"#,
    ),
    (
        "grpc-go weighted_round_robin, reports out of band",
        r#"{"blackoutPeriod":"0.1s","weightUpdatePeriod":"0.1s",
            "enableOobLoadReport":true,"oobReportingPeriod":"0.2s"}"#,
    ),
];

/// The peers that this needs.
pub(crate) const TOOLS: &[&str] = &["peer", "peers-python", "grpcurl", "grpc-health-probe", "ghz"];

/// A running greeter; its output is read as long as it lives.
struct Greeter {
    address: String,
    _process: Started,
}

/// Runs all of them, one after the other.
pub(crate) async fn run(
    facility: &Facility,
    greeter: &Path,
    block: &Block,
    rows: &Sender<Row>,
) -> Result<(), Error> {
    eprintln!("on {}: {GREETER}", block.net());
    let mut aged = Vec::new();
    for number in 1..=3 {
        aged.push(
            start(greeter, block.backend(number), &[("GRPC_MAX_CONNECTION_AGE", "1s")]).await?,
        );
    }
    let clients: [(&str, Vec<PathBuf>); 2] = [
        ("grpc-go client, connection age 1s", vec![facility.tool("peer"), "client".into()]),
        (
            "C-core client, connection age 1s",
            // Of a target with several addresses C-core makes the authority `a:p,b:p`, which is
            // none (RFC 3986), and h2 refuses it. A name in DNS is its own authority.
            vec![
                facility.tool("peers-python"),
                facility.client_py(),
                "--authority".into(),
                "greeter.test".into(),
            ],
        ),
    ];
    for (case, command) in clients {
        send(rows, case, client_under_age(&command, &aged).await).await;
    }
    drop(aged);
    let mut weighed = Vec::new();
    for (number, delay) in (1..).zip(["10ms", "10ms", "20ms"]) {
        let settings = [ORCA.as_slice(), &[("GREETER_DELAY", delay)]].concat();
        weighed.push(start(greeter, block.backend(number), &settings).await?);
    }
    for (case, config) in WEIGHTED {
        send(rows, case, weighted_client(&facility.tool("peer"), &weighed, config).await).await;
    }
    drop(weighed);
    let plain = start(greeter, block.backend(4), &[]).await?;
    send(rows, "grpcurl", grpcurl(facility, &plain.address).await).await;
    let shown = channelz::run(facility, &plain.address, &block.backend(5)).await;
    send(rows, "grpcurl, channelz", shown).await;
    send(rows, "grpc-health-probe", health_probe(facility, &plain.address).await).await;
    send(rows, "ghz", ghz(facility, &plain.address).await).await;
    Ok(())
}

/// A tool that did not run is a row too: one that fails and says why.
async fn send(rows: &Sender<Row>, case: &str, result: Result<Value, Error>) {
    let result = result.unwrap_or_else(|error| json!({"error": error.to_string()}));
    // Without a receiver the run is ending.
    let _ = rows.send(Row::new(GREETER, case, result)).await;
}

async fn start(
    program: &Path,
    address: String,
    settings: &[(&str, &str)],
) -> Result<Greeter, Error> {
    let mut command = Command::new(program);
    // Draining slowly is for Kubernetes; nobody sends calls here any more.
    command.args(["--listen", &address, "--drain-delay", "0s"]).env_remove("MY_POD_IP");
    if std::env::var_os("RUST_LOG").is_none() {
        command.env("RUST_LOG", "warn");
    }
    command.env_remove("GRPC_MAX_CONNECTION_AGE").envs(settings.iter().copied());
    let mut process = Started::spawn(&mut command, Signal::TERM)?;
    let mut lines = process.lines().expect("nobody took the lines of a child just started");
    let said = tokio::time::timeout(START_LIMIT, lines.next_line()).await;
    let started = matches!(&said, Ok(Ok(Some(line))) if line.starts_with("Started server on port"));
    if !started {
        return Err(Error::Process(format!(
            "expected `Started server on port …` from {} on {address}, got {said:?}",
            program.display()
        )));
    }
    // A greeter that says more must neither block on a full pipe nor meet a closed one.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(Greeter { address, _process: process })
}

fn target(greeters: &[Greeter]) -> String {
    let addresses: Vec<&str> = greeters.iter().map(|greeter| greeter.address.as_str()).collect();
    format!("static:///{}", addresses.join(","))
}

async fn client_under_age(command: &[PathBuf], greeters: &[Greeter]) -> Result<Value, Error> {
    let listeners: Vec<SocketAddrV4> =
        greeters.iter().filter_map(|greeter| greeter.address.parse().ok()).collect();
    let target = target(greeters);
    let mut client = Command::new(&command[0]);
    client
        .args(&command[1..])
        .args(["--target", &target, "--policy", "round_robin", "--no-stdin"])
        .args(["--rps", "1000", "--duration", "20s", "--warmup", "5s"]);
    let (finished, connections) =
        count_during(&listeners, process::run(&mut client, CLIENT_LIMIT)).await;
    let mut result = client_result(&finished?)?;
    result.insert("connections".to_owned(), json!(connections));
    Ok(Value::Object(result))
}

/// grpc-go's weights come from what our greeters report, so the one at half speed gets half.
async fn weighted_client(peer: &Path, greeters: &[Greeter], config: &str) -> Result<Value, Error> {
    let mut client = Command::new(peer);
    client
        .args(["client", "--target", &target(greeters), "--no-stdin"])
        .args(["--policy", "weighted_round_robin", "--policy-config", config])
        .args(["--rps", "300", "--duration", "8s", "--warmup", "5s"]);
    client_result(&process::run(&mut client, CLIENT_LIMIT).await?).map(Value::Object)
}

/// What rows keep of a client's line.
fn client_result(finished: &Finished) -> Result<Map<String, Value>, Error> {
    let line = finished.stdout.lines().last().unwrap_or_default();
    let all: Map<String, Value> = serde_json::from_str(line).map_err(|e| {
        Error::Process(format!(
            "expected one JSON line, got {line:?} ({e}), {}: {}",
            finished.status,
            finished.stderr.trim()
        ))
    })?;
    let kept = ["impl", "calls", "ok", "fail", "shed", "by_backend", "by_code", "errors"];
    let mut result = Map::new();
    for key in kept.into_iter().chain(["rps", "wall_s", "latency_ms"]) {
        result.insert(key.to_owned(), all.get(key).cloned().unwrap_or_default());
    }
    Ok(result)
}

/// Standard output of a tool that has to end well.
pub(super) async fn output(tool: &Path, args: &[&str]) -> Result<String, Error> {
    let finished = process::run(Command::new(tool).args(args), TOOL_LIMIT).await?;
    if finished.status.success() {
        return Ok(finished.stdout);
    }
    Err(Error::Process(format!(
        "{} {}: {}, {}{}",
        tool.file_name().unwrap_or_default().display(),
        args.join(" "),
        finished.status,
        finished.stdout.trim(),
        finished.stderr.trim()
    )))
}

async fn grpcurl(facility: &Facility, address: &str) -> Result<Value, Error> {
    let tool = facility.tool("grpcurl");
    let list = output(&tool, &["-plaintext", address, "list"]).await?;
    let services: Vec<&str> = list.lines().collect();
    let describe = output(&tool, &["-plaintext", address, "describe", SERVICE]).await?;
    let call = ["-plaintext", "-d", r#"{"name":"you"}"#, address, "helloworld.Greeter/SayHello"];
    let reply: Value = serde_json::from_str(&output(&tool, &call).await?)
        .map_err(|e| Error::Process(format!("expected a JSON reply from grpcurl: {e}")))?;
    Ok(json!({"services": services, "describe": describe, "reply": reply["message"]}))
}

async fn health_probe(facility: &Facility, address: &str) -> Result<Value, Error> {
    let tool = facility.tool("grpc-health-probe");
    let mut result = Map::new();
    for (key, service) in [("overall", ""), ("greeter", SERVICE), ("unknown", "no.such.Service")] {
        let mut probe = Command::new(&tool);
        let finished =
            process::run(probe.args(["-addr", address, "-service", service]), TOOL_LIMIT).await?;
        // The probe says its verdict on standard error.
        let said = format!("{}{}", finished.stdout, finished.stderr).trim().to_owned();
        result.insert(key.to_owned(), json!(said));
        result.insert(format!("{key}_exit"), json!(finished.status.code()));
    }
    Ok(Value::Object(result))
}

async fn ghz(facility: &Facility, address: &str) -> Result<Value, Error> {
    let args = ["--insecure", "--call", "helloworld.Greeter/SayHello", "-d", r#"{"name":"you"}"#];
    let load = ["-n", GHZ_CALLS, "-c", "10", "--format", "json", address];
    let text = output(&facility.tool("ghz"), &[&args[..], &load].concat()).await?;
    let report: Value = serde_json::from_str(&text)
        .map_err(|e| Error::Process(format!("expected a JSON report from ghz: {e}")))?;
    let calls = report["count"].as_u64().unwrap_or_default();
    let ok = report["statusCodeDistribution"]["OK"].as_u64().unwrap_or_default();
    Ok(json!({
        "calls": calls, "ok": ok, "fail": calls.saturating_sub(ok),
        "by_code": report["errorDistribution"], "rps": report["rps"],
    }))
}
