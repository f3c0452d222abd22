//! One Envoy as a child process. It says on no pipe when it serves, as our own services do: its
//! admin port is asked until it calls itself LIVE. That port is the kernel's choice, told in a
//! file, so that Envoys of several phases and labs never meet.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::Stats;
use crate::{
    clock::unix_s,
    error::LabError,
    http,
    process::Process,
    run::{Run, tail},
};

/// From the start to LIVE. It takes 0.3 s; many at once on two busy processors take longer.
const READY_LIMIT_S: u64 = 20;
const POLL: Duration = Duration::from_millis(20);
/// Envoy ends at once on SIGTERM; it has no drain of its own without hot restart.
const EXIT_LIMIT_S: u64 = 10;

/// How an Envoy is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// The name of its files in the run's folder, unique in the run.
    pub(crate) name: &'a str,
    /// The bootstrap, as text.
    pub(crate) config: &'a str,
    /// Worker threads.
    pub(crate) concurrency: u16,
}

/// An Envoy that was started.
pub(crate) struct Starting {
    name: String,
    process: Process,
    log: PathBuf,
    admin: PathBuf,
}

/// An Envoy that serves; dropping it kills it.
pub(crate) struct Envoy {
    name: String,
    process: Process,
    log: PathBuf,
    admin: SocketAddr,
}

impl Envoy {
    /// Starts an Envoy and waits until it serves: its listeners listen, its clusters have their
    /// first endpoints. Several start side by side with [`Envoy::spawn`].
    ///
    /// # Errors
    ///
    /// When there is no Envoy, or it ends, or it is not LIVE within 20 s.
    pub(crate) async fn start(run: &Run, setup: Setup<'_>) -> Result<Self, LabError> {
        Self::spawn(run, setup)?.ready().await
    }

    /// Starts an Envoy.
    ///
    /// # Errors
    ///
    /// When there is none, or its files or the process can't be made.
    pub(crate) fn spawn(run: &Run, setup: Setup<'_>) -> Result<Starting, LabError> {
        let Setup { name, config, concurrency } = setup;
        let program = run.envoy()?.path.clone();
        let file = |end: &str| run.path(&format!("{name}{end}"));
        let (bootstrap, admin, log) = (file(".yaml"), file(".admin"), file(".log"));
        fs::write(&bootstrap, config)
            .map_err(LabError::io(format!("can't write {}", bootstrap.display())))?;
        // One that is started again has another port.
        if let Err(error) = fs::remove_file(&admin)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(LabError::io(format!("can't remove {}", admin.display()))(error));
        }
        let said = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::io(format!("can't create {}", log.display())))?;
        let mut command = run.tied(&program);
        command
            .arg("--config-path")
            .arg(&bootstrap)
            .arg("--admin-address-path")
            .arg(&admin)
            .args(["--concurrency", &concurrency.to_string()])
            // Shared memory and a socket by number, which two Envoys would fight for.
            .arg("--disable-hot-restart")
            .args(["--log-level", "warning"]);
        let says = said.try_clone().map_err(LabError::io("can't share a log"))?;
        command.stdin(Stdio::null()).stdout(says).stderr(said);
        let spawned = run.nursery().spawn(name, &mut command);
        let what = format!("can't start {name} ({})", program.display());
        let process = spawned.map_err(LabError::io(what))?.process;
        Ok(Starting { name: name.to_owned(), process, log, admin })
    }

    /// What it counts.
    ///
    /// # Errors
    ///
    /// When its admin port does not answer as it should.
    pub(crate) async fn stats(&self) -> Result<Stats, LabError> {
        self.read("/stats?format=json").await
    }

    async fn read(&self, path: &str) -> Result<Stats, LabError> {
        let text = self.admin(path).await?;
        let what = format!("the statistics of {} can't be read", self.name);
        Stats::parse(&text).map_err(|error| LabError::io(what)(error.into()))
    }

    /// Waits until `wanted` holds for its counters, of which it reads those with `filter` in their
    /// names, and returns when that was seen; `None` after `limit`. It is asked again and again:
    /// Envoy tells nobody of a change.
    ///
    /// # Errors
    ///
    /// When its admin port does not answer as it should.
    pub(crate) async fn until(
        &self,
        filter: &str,
        wanted: impl Fn(&Stats) -> bool,
        limit: Duration,
    ) -> Result<Option<f64>, LabError> {
        let end = Instant::now() + limit;
        let path = format!("/stats?format=json&filter={filter}");
        loop {
            if wanted(&self.read(&path).await?) {
                return Ok(Some(unix_s()));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            sleep(POLL).await;
        }
    }

    /// The answer of its admin port to `GET path`.
    ///
    /// # Errors
    ///
    /// When it does not answer within 5 s, or not with 200.
    pub(crate) async fn admin(&self, path: &str) -> Result<String, LabError> {
        let what = format!("http://{}{path} of {}", self.admin, self.name);
        http::get(self.admin, path).await.map_err(LabError::io(what))
    }

    /// Its process id, for what the kernel knows of it.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends `signal`; `false` when it is gone.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.process.signal(signal)
    }

    /// Waits until it, which was sent `signal_name`, has ended. Returns its status and when that
    /// was.
    ///
    /// # Errors
    ///
    /// When it lingers for 10 s.
    pub(crate) async fn gone(
        self,
        signal_name: &'static str,
    ) -> Result<(ExitStatus, f64), LabError> {
        match self.process.exited(Duration::from_secs(EXIT_LIMIT_S)).await {
            Some(status) => Ok((status, unix_s())),
            None => Err(LabError::Lingers {
                name: self.name,
                limit_s: EXIT_LIMIT_S,
                signal: signal_name,
                log: tail(&self.log),
            }),
        }
    }

    /// Fails when it has ended, which nobody asked for.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with its last log lines.
    pub(crate) fn alive(&self) -> Result<(), LabError> {
        self.process.status().map_or(Ok(()), |status| Err(ended(&self.name, status, &self.log)))
    }

    /// The first line of its log that calls something deprecated.
    pub(crate) fn deprecation(&self) -> Option<String> {
        deprecation(&fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Starting {
    /// Waits until it serves.
    ///
    /// # Errors
    ///
    /// When it ends, or is not LIVE within 20 s.
    pub(crate) async fn ready(self) -> Result<Envoy, LabError> {
        let limit = Instant::now() + Duration::from_secs(READY_LIMIT_S);
        loop {
            if let Some(status) = self.process.status() {
                return Err(ended(&self.name, status, &self.log));
            }
            if let Some(admin) = address(&self.admin)
                && http::get(admin, "/ready").await.is_ok_and(|body| body.trim() == "LIVE")
            {
                let Self { name, process, log, .. } = self;
                return Ok(Envoy { name, process, log, admin });
            }
            if Instant::now() >= limit {
                let (name, log) = (self.name, tail(&self.log));
                return Err(LabError::NotReady { name, limit_s: READY_LIMIT_S, log });
            }
            sleep(POLL).await;
        }
    }
}

fn ended(name: &str, status: ExitStatus, log: &Path) -> LabError {
    LabError::Ended { name: name.to_owned(), status: status.to_string(), log: tail(log) }
}

/// The address in `file`, once it is wholly there.
fn address(file: &Path) -> Option<SocketAddr> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Envoy warns of a field that its next versions may not have.
fn deprecation(log: &str) -> Option<String> {
    log.lines().find(|line| line.to_ascii_lowercase().contains("deprecated")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_address_is_read_when_it_is_whole() {
        let file = std::env::temp_dir().join(format!("lab-admin-{}", std::process::id()));
        assert_eq!(address(&file), None);
        fs::write(&file, "127.0.0.1:").unwrap();
        assert_eq!(address(&file), None);
        fs::write(&file, "127.0.0.1:4711").unwrap();
        assert_eq!(address(&file), Some("127.0.0.1:4711".parse().unwrap()));
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_deprecated_field_is_found_in_the_log_and_ordinary_warnings_are_not() {
        let calm = "[warning][main] caught ENVOY_SIGTERM\n";
        assert_eq!(deprecation(calm), None);
        let line = "[warning][misc] Deprecated field: type envoy.config.cluster.v3.Cluster";
        assert_eq!(deprecation(&format!("{calm}{line}\n{calm}")).as_deref(), Some(line));
    }
}
