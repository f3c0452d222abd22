//! Memory of idle connections: what the process's resident set grows by from before it has any to
//! when all are open and each was used once.

use std::{fs, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::callers::{Caller, Candidate};

/// Given to what still connects; then all of them have been called in turn.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// One candidate with idle connections.
#[derive(Debug, Deserialize, Serialize)]
pub struct MemoryCost {
    /// Whose.
    pub candidate: Candidate,
    /// Connections.
    pub connections: usize,
    /// Growth for each, in KiB.
    pub kib: f64,
}

/// Connects to each backend, calls twice as often as there are backends, and looks.
///
/// # Errors
///
/// It can't connect to all, a call fails, or the system does not tell.
pub async fn measure(candidate: Candidate, backends: &[SocketAddr]) -> Result<MemoryCost, String> {
    let before = resident_kib()?;
    let mut caller = Caller::connect(candidate, backends).await?;
    let settle = async {
        while sockets()? < backends.len() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok::<_, String>(())
    };
    tokio::time::timeout(SETTLE_LIMIT, settle)
        .await
        .map_err(|_| format!("not all connected within {SETTLE_LIMIT:?}"))??;
    for _ in 0..backends.len() * 2 {
        caller.call().await?;
    }
    let grown = resident_kib()?.saturating_sub(before);
    let connections = backends.len();
    Ok(MemoryCost { candidate, connections, kib: grown as f64 / connections as f64 })
}

/// Open sockets of this process.
fn sockets() -> Result<usize, String> {
    let entries = fs::read_dir("/proc/self/fd").map_err(|e| format!("/proc/self/fd: {e}"))?;
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count())
}

fn resident_kib() -> Result<u64, String> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
        .ok_or_else(|| format!("{path}: expected a line VmRSS: N kB"))
}
