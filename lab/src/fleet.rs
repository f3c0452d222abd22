//! The backends of one phase: real greeter processes, each on an address of its own.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::ChildStdout,
    sync::oneshot,
};

use crate::{
    blocks::Block,
    clock::unix_s,
    error::LabError,
    process::{Process, Spawned},
    run::{Run, tail},
};

const READY_LIMIT_S: u64 = 10;
/// A greeter drains for at most its grace of 10 s; see [`Fleet::new`].
const EXIT_LIMIT: Duration = Duration::from_secs(15);

/// The backends of a phase by their number in the block (127.x.y.N).
pub(crate) struct Fleet {
    run: Arc<Run>,
    phase: String,
    block: Arc<Block>,
    settings: Vec<(&'static str, String)>,
    backends: BTreeMap<u8, Backend>,
}

/// One running greeter.
struct Backend {
    name: String,
    process: Process,
    log: PathBuf,
    ready_unix_s: f64,
}

impl Fleet {
    /// A fleet without backends. `settings` are environment variables of every greeter, by the
    /// names of services/greeter/README.md; they override the lab's own drain settings.
    pub(crate) fn new(
        run: Arc<Run>,
        phase: &str,
        block: Arc<Block>,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let lab = [("GREETER_DRAIN_DELAY", "0s"), ("GREETER_DRAIN_GRACE", "10s")];
        let settings =
            lab.iter().chain(settings).map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { run, phase: phase.to_owned(), block, settings, backends: BTreeMap::new() }
    }

    /// The address of backend `host`.
    pub(crate) fn address(&self, host: u8) -> SocketAddrV4 {
        self.block.backend(host)
    }

    /// The IPs of `hosts`.
    pub(crate) fn ips(&self, hosts: &[u8]) -> Vec<Ipv4Addr> {
        hosts.iter().map(|host| *self.address(*host).ip()).collect()
    }

    /// The IPs of `hosts` as the replies name them.
    pub(crate) fn names(&self, hosts: &[u8]) -> Vec<String> {
        self.ips(hosts).iter().map(Ipv4Addr::to_string).collect()
    }

    /// The addresses of `hosts` as the client's events name them.
    pub(crate) fn addresses(&self, hosts: &[u8]) -> Vec<String> {
        hosts.iter().map(|host| self.address(*host).to_string()).collect()
    }

    /// When backend `host` said that it accepts connections; 0 when it does not run.
    pub(crate) fn ready_unix_s(&self, host: u8) -> f64 {
        self.backends.get(&host).map_or(0.0, |backend| backend.ready_unix_s)
    }

    /// Starts the backends `hosts` at once and waits until each accepts connections.
    ///
    /// # Errors
    ///
    /// When one can't be started or is not ready within 10 s.
    pub(crate) async fn start(&mut self, hosts: &[u8]) -> Result<(), LabError> {
        let mut starting = Vec::new();
        for host in hosts {
            starting.push((*host, self.spawn(*host)?));
        }
        for (host, (name, log, process, ready)) in starting {
            let ready_unix_s = self.ready(&name, &log, &process, ready).await?;
            self.backends.insert(host, Backend { name, process, log, ready_unix_s });
        }
        Ok(())
    }

    fn spawn(&self, host: u8) -> Result<Starting, LabError> {
        let address = self.address(host);
        let name = format!("{}-{}", self.phase, address.ip());
        let log = self.run.path(&format!("{name}.log"));
        // Appending: a backend that returns on its address continues its log.
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::io(format!("can't create {}", log.display())))?;
        let mut command = self.run.command("greeter");
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        command
            .env("GREETER_LISTEN", address.to_string())
            .env("MY_POD_IP", address.ip().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let Spawned { process, stdout, .. } = self
            .run
            .nursery()
            .spawn(&mut command)
            .map_err(LabError::io(format!("can't start the greeter {name}")))?;
        let (said, ready) = oneshot::channel();
        if let Some(stdout) = stdout {
            tokio::spawn(watch_stdout(stdout, said));
        }
        Ok((name, log, process, ready))
    }

    async fn ready(
        &self,
        name: &str,
        log: &Path,
        process: &Process,
        ready: oneshot::Receiver<f64>,
    ) -> Result<f64, LabError> {
        if let Ok(Ok(at)) = tokio::time::timeout(Duration::from_secs(READY_LIMIT_S), ready).await {
            return Ok(at);
        }
        // Its stdout closes a moment before it can be reaped.
        let status = process.exited(Duration::from_millis(200)).await;
        let (name, log) = (name.to_owned(), tail(log));
        Err(match status {
            Some(status) => LabError::Ended { name, status: status.to_string(), log },
            None => LabError::NotReady { name, limit_s: READY_LIMIT_S, log },
        })
    }

    /// Sends `signal` to backend `host` and returns when.
    ///
    /// # Errors
    ///
    /// [`LabError::Gone`] when it does not run.
    pub(crate) fn signal(
        &self,
        host: u8,
        signal: Signal,
        signal_name: &'static str,
    ) -> Result<f64, LabError> {
        let at = unix_s();
        let sent = self.backends.get(&host).is_some_and(|backend| backend.process.signal(signal));
        if sent {
            Ok(at)
        } else {
            let name = format!("{} backend {}", self.phase, self.address(host));
            Err(LabError::Gone { name, signal: signal_name })
        }
    }

    /// Waits until backend `host`, which was sent `signal_name`, has ended, and forgets it.
    /// Returns its status and when that was.
    ///
    /// # Errors
    ///
    /// When it does not run, or lingers for 15 s.
    pub(crate) async fn gone(
        &mut self,
        host: u8,
        signal_name: &'static str,
    ) -> Result<(ExitStatus, f64), LabError> {
        let Some(backend) = self.backends.remove(&host) else {
            let name = format!("{} backend {}", self.phase, self.address(host));
            return Err(LabError::Gone { name, signal: signal_name });
        };
        match backend.process.exited(EXIT_LIMIT).await {
            Some(status) => Ok((status, unix_s())),
            None => Err(LabError::Lingers {
                name: backend.name,
                limit_s: EXIT_LIMIT.as_secs(),
                signal: signal_name,
                log: tail(&backend.log),
            }),
        }
    }

    /// Fails when a backend that nobody ended has ended.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with the backend's last log lines.
    pub(crate) fn all_alive(&self) -> Result<(), LabError> {
        for backend in self.backends.values() {
            if let Some(status) = backend.process.status() {
                let (name, status) = (backend.name.clone(), status.to_string());
                return Err(LabError::Ended { name, status, log: tail(&backend.log) });
            }
        }
        Ok(())
    }
}

type Starting = (String, PathBuf, Process, oneshot::Receiver<f64>);

/// Tells when the greeter accepts connections, and reads on so that its pipe never fills.
async fn watch_stdout(stdout: ChildStdout, said: oneshot::Sender<f64>) {
    let mut said = Some(said);
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("Started server on port")
            && let Some(said) = said.take()
        {
            // The phase may have been given up meanwhile.
            said.send(unix_s()).ok();
        }
    }
}
