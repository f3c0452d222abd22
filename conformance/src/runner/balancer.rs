//! Other people's grpclb clients against our balancer: grpc-go's and C-core's, which find it by SRV
//! and know nothing of us. Backends and DNS are the peers', so that nothing of ours is on both
//! sides.

use super::block::Block;
use super::error::Error;
use super::facility::Facility;
use super::process::{self, Finished, Started};
use super::row::Row;
use super::scenario::BALANCER;
use super::strangers::output;
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};

/// The peers that this needs.
pub(crate) const TOOLS: &[&str] = &["peer", "peers-python", "grpcurl", "grpc-health-probe"];

/// How long a process may take until it listens, and a client until it has a list.
const START_LIMIT: Duration = Duration::from_secs(15);
const CLIENT_LIMIT: Duration = Duration::from_secs(60);
/// How long a client may take to find another balancer.
const MOVE_LIMIT: Duration = Duration::from_secs(15);
/// A slot of a client's timeline, in seconds.
const SLOT_S: f64 = 0.25;
/// Between two looks at a balancer's status.
const LOOK: Duration = Duration::from_millis(20);

/// Runs all cases with each client.
pub(crate) async fn run(
    facility: &Facility,
    balancer: &Path,
    block: &Block,
    rows: &Sender<Row>,
) -> Result<(), Error> {
    eprintln!("on {}: {BALANCER}", block.net());
    let go = vec![facility.tool("peer"), "client".into()];
    let core = vec![facility.tool("peers-python"), facility.client_py()];
    for (name, client) in [("grpc-go", go), ("C-core", core)] {
        let stage = Stage::new(facility, balancer, block, client).await?;
        let cases = [
            ("weights and drops", stage.weights_and_drops().await),
            ("list changed, balancer killed and back", stage.changed_and_killed().await),
            ("one balancer of two drains", stage.drained().await),
            ("a name that is not served", stage.unknown_name().await),
        ];
        for (case, result) in cases {
            // A case that did not run is a row too: one that fails and says why.
            let result = result.unwrap_or_else(|error| json!({"error": error.to_string()}));
            // Without a receiver the run is ending.
            let row = Row::new(BALANCER, &format!("{name} client: {case}"), result);
            let _ = rows.send(row).await;
        }
        if name == "C-core" {
            let result = stage.tools(facility).await;
            let result = result.unwrap_or_else(|error| json!({"error": error.to_string()}));
            let _ = rows.send(Row::new(BALANCER, "grpcurl and grpc-health-probe", result)).await;
        }
    }
    Ok(())
}

/// Backends and DNS, and what is needed for the rest.
struct Stage<'a> {
    balancer: &'a Path,
    block: &'a Block,
    client: Vec<PathBuf>,
    folder: Folder,
    _peers: [Started; 2],
}

/// Our balancer at `N.10` or `N.11`, its status one port above.
struct Balancer {
    admin: String,
    process: Started,
}

impl<'a> Stage<'a> {
    async fn new(
        facility: &Facility,
        balancer: &'a Path,
        block: &'a Block,
        client: Vec<PathBuf>,
    ) -> Result<Self, Error> {
        let net = block.net();
        let backends = (1..=4).map(|n| block.backend(n)).collect::<Vec<_>>().join(",");
        let peer = facility.tool("peer");
        let server = listening(Command::new(&peer).args(["server", "--listen", &backends])).await?;
        let records = [
            // The fourth backend is what clients fall back to.
            format!("greeter.test. A 5 {net}.4"),
            "_grpclb._tcp.greeter.test. SRV 5 0 0 9000 lb1.test.,0 0 9000 lb2.test.".to_owned(),
            format!("lb1.test. A 5 {net}.10"),
            format!("lb2.test. A 5 {net}.11"),
        ];
        let mut dns = Command::new(&peer);
        dns.args(["dns", "--listen", &format!("{net}.53:5353")]);
        dns.args(records.iter().flat_map(|record| ["--set", record]));
        let dns = listening(&mut dns).await?;
        let folder = Folder::new(net)?;
        Ok(Self { balancer, block, client, folder, _peers: [server, dns] })
    }

    fn services(&self, name: &str, backends: &[(u8, u32)], more: &str) -> Result<(), Error> {
        let endpoints: Vec<String> = backends
            .iter()
            .map(|(n, weight)| {
                format!("{{address: \"{}\", weight: {weight}}}", self.block.backend(*n))
            })
            .collect();
        let endpoints = endpoints.join(", ");
        let service = format!("- name: {name}\n  aliases: [{name}.test]");
        self.folder.write(&format!("services:\n{service}\n  endpoints: [{endpoints}]\n{more}"))
    }

    async fn balancer(&self, number: u8) -> Result<Balancer, Error> {
        let net = self.block.net();
        let (listen, admin) = (format!("{net}.{number}:9000"), format!("{net}.{number}:9001"));
        let mut command = Command::new(self.balancer);
        command.args(["--listen", &listen, "--admin-listen", &admin]);
        command.args(["--client-stats-interval", "1s", "--drain-delay", "0s"]);
        command.arg("--config").arg(self.folder.file());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        let mut process = Started::spawn(&mut command, Signal::TERM)?;
        first_line(&mut process, "Started server on port").await?;
        Ok(Balancer { admin, process })
    }

    /// Runs the client, with `meanwhile` beside it.
    async fn client<T>(
        &self,
        rps: u32,
        seconds: u32,
        meanwhile: impl Future<Output = Result<T, Error>>,
    ) -> Result<(Map<String, Value>, T), Error> {
        let target = format!("dns://{}.53:5353/greeter.test:8000", self.block.net());
        let mut client = Command::new(&self.client[0]);
        client
            .args(&self.client[1..])
            .args(["--target", &target, "--policy", "grpclb", "--no-stdin"])
            .args(["--rps", &rps.to_string(), "--duration", &format!("{seconds}s")])
            .args(["--timeout", "20s", "--timeline", &format!("{SLOT_S}s")]);
        let (finished, done) = tokio::join!(process::run(&mut client, CLIENT_LIMIT), meanwhile);
        Ok((report(&finished?)?, done?))
    }

    async fn weights_and_drops(&self) -> Result<Value, Error> {
        let drops = "  drops: [{category: overload, percent: 30}]\n";
        self.services("greeter", &[(1, 1), (2, 2), (3, 1)], drops)?;
        let balancer = self.balancer(10).await?;
        let (report, ()) = self.client(1000, 10, async { Ok(()) }).await?;
        let status = balancer.status_when(|status| status["clients_total"] == 0).await?;
        let stats = &status["services"][0]["client_stats"];
        let count = |value: &Value| value.as_f64().unwrap_or_default();
        let (calls, ok, fail) =
            (count(&report["calls"]), count(&report["ok"]), count(&report["fail"]));
        let share = |n: u8| 100.0 * self.calls_of(&report["by_backend"], n) / ok;
        let dropped = count(&stats["dropped"]["drop-overload"]);
        let (started, finished) = (count(&stats["started"]), count(&stats["finished"]));
        let accounted = count(&stats["known_received"]) + count(&stats["failed_to_send"]) + dropped;
        Ok(json!({
            "impl": report["impl"], "calls": calls, "ok": ok, "fail": fail,
            "by_backend": report["by_backend"], "share_1": share(1), "share_2": share(2),
            "share_3": share(3), "share_4": share(4),
            "dropped_percent": 100.0 * fail / calls,
            "reported_dropped_percent": 100.0 * dropped / started,
            "reports": stats["reports"], "reported_started": started,
            "not_yet_reported": calls - started,
            "finished_unaccounted": finished - accounted,
            "warnings": status["warnings"], "refused": status["refused"],
        }))
    }

    /// The third backend goes from the list, the balancer dies, and comes back with the third.
    async fn changed_and_killed(&self) -> Result<Value, Error> {
        self.services("greeter", &[(1, 1), (2, 1), (3, 1)], "")?;
        let balancer = self.balancer(10).await?;
        let meanwhile = async {
            balancer.status_when(|status| status["clients"][0]["version"] == 1).await?;
            let begun = Instant::now();
            sleep(Duration::from_secs(2)).await;
            self.services("greeter", &[(1, 1), (2, 1)], "")?;
            let changed = begun.elapsed().as_secs_f64();
            balancer.status_when(|status| status["clients"][0]["version"] == 2).await?;
            sleep(Duration::from_secs(2)).await;
            let Balancer { process, .. } = balancer;
            process.kill();
            drop(process);
            sleep(Duration::from_secs(2)).await;
            self.services("greeter", &[(1, 1), (2, 1), (3, 1)], "")?;
            let back = self.balancer(10).await?;
            let restarted = begun.elapsed().as_secs_f64();
            Ok((changed, restarted, back))
        };
        let (report, (changed, restarted, _back)) = self.client(200, 20, meanwhile).await?;
        let timeline = report["timeline"].as_array().cloned().unwrap_or_default();
        let third = |slot: &&Value| self.calls_of(&slot["by_backend"], 3) > 0.0;
        let after = |slot: &&Value, t: f64| slot["t"].as_f64().is_some_and(|at| at >= t);
        // The client's clock begins with its first call, which is with its first list.
        let gone = timeline.iter().find(|slot| after(slot, changed) && !third(slot));
        let came = timeline.iter().find(|slot| after(slot, restarted) && third(slot));
        let since =
            |slot: Option<&Value>, t: f64| slot.and_then(|s| s["t"].as_f64()).map(|at| at - t);
        Ok(json!({
            "impl": report["impl"], "calls": report["calls"], "ok": report["ok"],
            "fail": report["fail"], "by_backend": report["by_backend"], "errors": report["errors"],
            "gone_s": since(gone, changed), "back_s": since(came, restarted),
        }))
    }

    async fn drained(&self) -> Result<Value, Error> {
        self.services("greeter", &[(1, 1), (2, 1), (3, 1)], "")?;
        let (first, second) = (self.balancer(10).await?, self.balancer(11).await?);
        let meanwhile = async {
            let (mut drained, other) = loop {
                if first.status().await?["clients_total"] == 1 {
                    break (first, second);
                }
                if second.status().await?["clients_total"] == 1 {
                    break (second, first);
                }
                sleep(LOOK).await;
            };
            sleep(Duration::from_secs(2)).await;
            let begun = Instant::now();
            drained.process.ask();
            let exit = timeout(START_LIMIT, drained.process.wait()).await;
            let exit = exit.map_err(|_| Error::Process("a balancer does not drain".into()))??;
            let has_it = |status: &Value| status["clients"][0]["version"] == 1;
            timeout(MOVE_LIMIT, other.status_when(has_it))
                .await
                .map_err(|_| Error::Process("the client found no other balancer".into()))??;
            Ok((exit.code(), begun.elapsed().as_secs_f64(), other))
        };
        let (report, (exit, moved_s, _other)) = self.client(200, 15, meanwhile).await?;
        Ok(json!({
            "impl": report["impl"], "calls": report["calls"], "ok": report["ok"],
            "fail": report["fail"], "errors": report["errors"], "by_backend": report["by_backend"],
            "exit": exit, "moved_s": moved_s,
        }))
    }

    async fn unknown_name(&self) -> Result<Value, Error> {
        self.services("other", &[(1, 1)], "")?;
        let balancer = self.balancer(10).await?;
        let (report, ()) = self.client(20, 14, async { Ok(()) }).await?;
        let status = balancer.status().await?;
        Ok(json!({
            "impl": report["impl"], "calls": report["calls"], "ok": report["ok"],
            "fail": report["fail"], "errors": report["errors"], "by_backend": report["by_backend"],
            "first_ok_s": report["first_ok_s"], "refused": status["refused"],
        }))
    }

    /// A person at a terminal: what is there, a list, and whether it is ready.
    async fn tools(&self, facility: &Facility) -> Result<Value, Error> {
        self.services("greeter", &[(1, 1), (2, 1)], "")?;
        let _balancer = self.balancer(10).await?;
        let address = format!("{}.10:9000", self.block.net());
        let grpcurl = facility.tool("grpcurl");
        let services = output(&grpcurl, &["-plaintext", &address, "list"]).await?;
        let services: Vec<&str> = services.lines().collect();
        let ask = r#"{"initialRequest": {"name": "greeter"}}"#;
        let method = "grpc.lb.v1.LoadBalancer/BalanceLoad";
        let told = output(&grpcurl, &["-plaintext", "-d", ask, &address, method]).await?;
        let probe = facility.tool("grpc-health-probe");
        let mut result = json!({"services": services, "told": told});
        for name in ["", "readiness", "liveness", "sources"] {
            let mut command = Command::new(&probe);
            command.args(["-addr", &address, "-service", name]);
            let finished = process::run(&mut command, START_LIMIT).await?;
            let key = if name.is_empty() { "overall_exit".into() } else { format!("{name}_exit") };
            result[key] = json!(finished.status.code());
        }
        Ok(result)
    }

    fn calls_of(&self, by_backend: &Value, number: u8) -> f64 {
        let name = format!("{}.{number}", self.block.net());
        by_backend[name].as_f64().unwrap_or_default()
    }
}

impl Balancer {
    /// What it shows, over HTTP/1.1.
    async fn status(&self) -> Result<Value, Error> {
        let failed = || Error::io(format!("the status of a balancer at {}", self.admin));
        let mut socket = TcpStream::connect(&self.admin).await.map_err(failed())?;
        let head = "GET /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.write_all(head.as_bytes()).await.map_err(failed())?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await.map_err(failed())?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body)
            .map_err(|e| Error::Process(format!("expected a status in JSON, got {text:?}: {e}")))
    }

    async fn status_when(&self, is_so: impl Fn(&Value) -> bool) -> Result<Value, Error> {
        let look = async {
            loop {
                let status = self.status().await?;
                if is_so(&status) {
                    return Ok(status);
                }
                sleep(LOOK).await;
            }
        };
        timeout(START_LIMIT, look).await.map_err(|_| {
            Error::Process(format!("the balancer at {} is not as expected in time", self.admin))
        })?
    }
}

/// Starts a peer and waits for the line that says that it listens.
async fn listening(command: &mut Command) -> Result<Started, Error> {
    let mut process = Started::spawn(command, Signal::TERM)?;
    first_line(&mut process, "\"listening\"").await?;
    Ok(process)
}

async fn first_line(process: &mut Started, wanted: &str) -> Result<(), Error> {
    let mut lines = process.lines().expect("nobody took the lines of a child just started");
    let said = timeout(START_LIMIT, lines.next_line()).await;
    if !matches!(&said, Ok(Ok(Some(line))) if line.contains(wanted)) {
        return Err(Error::Process(format!("expected a line with {wanted:?}, got {said:?}")));
    }
    // A child that says more must neither block on a full pipe nor meet a closed one.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(())
}

fn report(finished: &Finished) -> Result<Map<String, Value>, Error> {
    let line = finished.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|e| {
        Error::Process(format!(
            "expected one JSON line, got {line:?} ({e}), {}: {}",
            finished.status,
            finished.stderr.trim()
        ))
    })
}

/// A folder that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new(net: &str) -> Result<Self, Error> {
        let name = format!("conformance-{}-{net}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).map_err(Error::io(format!("{}", folder.display())))?;
        Ok(Self(folder))
    }

    fn file(&self) -> PathBuf {
        self.0.join("grpclb.yaml")
    }

    fn write(&self, text: &str) -> Result<(), Error> {
        let new = self.0.join(".grpclb.yaml");
        let failed = || Error::io(format!("write {}", self.file().display()));
        std::fs::write(&new, text).map_err(failed())?;
        std::fs::rename(new, self.file()).map_err(failed())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
