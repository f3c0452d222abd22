//! grpc-go by the peers' load client, one run for each slice: it has its own warm-up, and counts
//! calls, wall time and CPU after it.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{process::Command, time::timeout};

use crate::clock::Slice;

/// What it may take to start, warm up and end.
const EXTRA: Duration = Duration::from_secs(30);

/// The built program, where the peers' `build` puts it.
pub fn program() -> Option<PathBuf> {
    let cache = std::env::var_os("CLUSTER_CACHE").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/cluster"));
    let program = cache.or_else(home)?.join("bin/peer");
    program.is_file().then_some(program)
}

#[derive(Deserialize)]
struct Report {
    ok: u64,
    fail: u64,
    wall_s: f64,
    cpu_s: f64,
}

/// A closed loop of `callers` callers for `length`.
///
/// # Errors
///
/// The program fails, or prints no report.
pub async fn load(
    program: &PathBuf,
    backends: &[SocketAddr],
    callers: usize,
    length: Duration,
) -> Result<Slice, String> {
    let list: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
    let mut command = Command::new(program);
    command
        .args(["client", "--no-stdin", "--policy", "round_robin", "--warmup", "10s"])
        .args(["--warmup-calls", "500"])
        .arg(format!("--target=static:///{}", list.join(",")))
        .arg(format!("--concurrency={callers}"))
        .arg(format!("--duration={}ms", length.as_millis()))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(length + EXTRA, command.output())
        .await
        .map_err(|_| format!("peer client did not end within {:?}", length + EXTRA))?
        .map_err(|e| format!("peer client: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Report = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| format!("peer client: expected a report, got {text:?}"))?;
    let Report { ok, fail, wall_s, cpu_s } = report;
    Ok(Slice { count: ok, failed: fail, wall_s, cpu_s })
}
