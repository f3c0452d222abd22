//! gRPC's interop cases in both directions: our channel against grpc-go's server, and grpc-go's
//! client against a server on `evenkeel-server`. Each case is a process of its own, as everybody
//! runs them, so that its exit code is the verdict of its author.

use super::certificates::{Certificates, SERVER_NAME};
use super::error::Error;
use super::facility::Facility;
use super::process::{self, Started};
use super::row::Row;
use super::scenario::INTEROP;
use crate::interop::{Case, NOT_SUPPORTED};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufRead, Lines};
use tokio::process::Command;
use tokio::sync::mpsc::Sender;

/// How long a server may take until it says its port.
const START_LIMIT: Duration = Duration::from_secs(10);
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// grpc-go's server listens on all addresses; it gets calls on this one only.
const HOST: &str = "127.0.0.1";

/// The peers that this needs.
pub(crate) const TOOLS: &[&str] = &["interop-client", "interop-server"];

/// Cases that only grpc-go's client has, since only its channel has the policy that they need.
const ORCA_CASES: [&str; 2] = ["orca_per_rpc", "orca_oob"];
const ORCA_POLICY: &str = r#"{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}"#;

const OURS_TO_THEIRS: &str = "our client, grpc-go server";
const THEIRS_TO_OURS: &str = "grpc-go client, our server";

/// Our half of it.
pub(crate) struct Programs {
    /// `conformance-interop`.
    pub(crate) client: PathBuf,
    /// `conformance-server`.
    pub(crate) server: PathBuf,
}

/// A running server; what it says is read as long as it lives.
struct Server {
    port: u16,
    _process: Started,
}

/// Runs all cases, one after the other: in plaintext, then over TLS.
pub(crate) async fn run(
    facility: &Facility,
    programs: &Programs,
    rows: &Sender<Row>,
) -> Result<(), Error> {
    eprintln!("on {HOST}: {INTEROP}");
    let certificates = Certificates::new()?;
    for tls in [None, Some(&certificates)] {
        both_ways(facility, programs, tls, rows).await?;
    }
    for (case, why) in NOT_SUPPORTED {
        for direction in directions(case) {
            send(rows, case, direction, Ok(json!({"refused": why}))).await;
        }
    }
    Ok(())
}

async fn both_ways(
    facility: &Facility,
    programs: &Programs,
    tls: Option<&Certificates>,
    rows: &Sender<Row>,
) -> Result<(), Error> {
    let over = |case: &str| match tls {
        None => case.to_owned(),
        Some(_) => format!("{case} over TLS"),
    };
    let theirs = start_theirs(&facility.tool("interop-server"), tls).await?;
    let client = Client { program: &programs.client, dashes: "--", port: theirs.port, tls };
    for case in Case::ALL.into_iter().filter(|case| meant_for_theirs(*case)) {
        let case = case.name();
        send(rows, &over(case), OURS_TO_THEIRS, client.run(case, &[]).await).await;
    }
    drop(theirs);
    let ours = start_ours(&programs.server, tls).await?;
    let tool = facility.tool("interop-client");
    let client = Client { program: &tool, dashes: "-", port: ours.port, tls };
    for case in Case::ALL.map(Case::name) {
        send(rows, &over(case), THEIRS_TO_OURS, client.run(case, &[]).await).await;
    }
    for case in ORCA_CASES {
        let config = ("service_config_json", ORCA_POLICY.to_owned());
        send(rows, &over(case), THEIRS_TO_OURS, client.run(case, &[config]).await).await;
    }
    Ok(())
}

/// grpc-go's server has no id, which pick_first_unary asks for.
fn meant_for_theirs(case: Case) -> bool {
    case != Case::PickFirstUnary
}

/// Where grpc-go has the case: its server ignores what is asked about compression, so only a client
/// can have that, and nothing of it is cacheable.
fn directions(case: &str) -> &'static [&'static str] {
    match case {
        "cacheable_unary" => &[],
        _ => &[OURS_TO_THEIRS],
    }
}

async fn send(rows: &Sender<Row>, case: &str, direction: &str, result: Result<Value, Error>) {
    let result = result.unwrap_or_else(|error| json!({"error": error.to_string()}));
    // Without a receiver the run is ending.
    let _ = rows.send(Row::new(INTEROP, &format!("{case}: {direction}"), result)).await;
}

/// An interop client and the server that it is pointed at.
struct Client<'a> {
    program: &'a Path,
    /// What its flags begin with.
    dashes: &'static str,
    port: u16,
    tls: Option<&'a Certificates>,
}

impl Client<'_> {
    async fn run(&self, case: &str, further: &[(&str, String)]) -> Result<Value, Error> {
        let flags = [
            ("server_host", HOST.to_owned()),
            ("server_port", self.port.to_string()),
            ("test_case", case.to_owned()),
        ];
        let mut command = Command::new(self.program);
        let tls = self.tls.map(|certificates| {
            [
                ("use_tls", "true".to_owned()),
                ("use_test_ca", "true".to_owned()),
                ("ca_file", certificates.ca().display().to_string()),
                ("server_host_override", SERVER_NAME.to_owned()),
            ]
        });
        let flags = flags.into_iter().chain(tls.into_iter().flatten());
        let flags = flags.chain(further.iter().cloned());
        command.args(flags.map(|(flag, value)| format!("{}{flag}={value}", self.dashes)));
        let began = Instant::now();
        let finished = process::run(&mut command, CASE_LIMIT).await?;
        let took_ms = began.elapsed().as_secs_f64() * 1e3;
        let said: Vec<&str> = finished.stderr.lines().collect();
        let errors = if finished.status.success() { &[] } else { &said[..] };
        Ok(json!({"exit": finished.status.code(), "took_ms": took_ms, "errors": errors}))
    }
}

/// What makes a server speak TLS; with two dashes for ours, which grpc-go's takes as well.
fn server_flags(tls: Option<&Certificates>) -> Vec<String> {
    let Some(certificates) = tls else { return Vec::new() };
    vec![
        "--use_tls=true".to_owned(),
        format!("--tls_cert_file={}", certificates.chain().display()),
        format!("--tls_key_file={}", certificates.key().display()),
    ]
}

async fn start_theirs(program: &Path, tls: Option<&Certificates>) -> Result<Server, Error> {
    let mut command = Command::new(program);
    // It tells its port on this level only.
    command.arg("-port=0").env("GRPC_GO_LOG_SEVERITY_LEVEL", "info").stderr(Stdio::piped());
    command.args(server_flags(tls));
    let mut process = Started::spawn(&mut command, Signal::TERM)?;
    let lines = process.error_lines().expect("nobody took the lines of a child just started");
    let port = port(program, lines, "interop server listening on ").await?;
    Ok(Server { port, _process: process })
}

async fn start_ours(program: &Path, tls: Option<&Certificates>) -> Result<Server, Error> {
    let mut command = Command::new(program);
    command.args(["--host", HOST, "--port", "0"]).args(server_flags(tls));
    let mut process = Started::spawn(&mut command, Signal::TERM)?;
    let lines = process.lines().expect("nobody took the lines of a child just started");
    let port = port(program, lines, "Started server on port ").await?;
    Ok(Server { port, _process: process })
}

/// Waits for the line that has `mark`, and takes the port from its end.
async fn port<R>(program: &Path, mut lines: Lines<R>, mark: &str) -> Result<u16, Error>
where
    R: AsyncBufRead + Unpin + Send + 'static,
{
    let mut said = Vec::new();
    let search = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(port) = port_of(&line, mark) {
                return Some(port);
            }
            said.push(line);
        }
        None
    };
    let found = tokio::time::timeout(START_LIMIT, search).await;
    let Ok(Some(port)) = found else {
        return Err(Error::Process(format!(
            "expected `{mark}…` from {} within {START_LIMIT:?}, got {said:?}",
            program.display()
        )));
    };
    // A server that says more must neither block on a full pipe nor meet a closed one.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(port)
}

fn port_of(line: &str, mark: &str) -> Option<u16> {
    let (_, address) = line.split_once(mark)?;
    address.rsplit(':').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_port_that_a_server_says() {
        let line = "2026/11/25 INFO: [interop] interop server listening on [::]:46823";
        assert_eq!(port_of(line, "interop server listening on "), Some(46_823));
        let line = "Started server on port 38013";
        assert_eq!(port_of(line, "Started server on port "), Some(38_013));
        assert_eq!(port_of(line, "listening on "), None);
    }

    #[tokio::test]
    async fn a_server_that_does_not_start_is_an_error_that_tells_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no port is free"]);
        let mut process = Started::spawn(&mut command, Signal::TERM).unwrap();
        let lines = process.lines().unwrap();
        let error = port(Path::new("server"), lines, "listening on ").await.unwrap_err();
        assert!(error.to_string().contains("no port is free"), "{error}");
    }
}
