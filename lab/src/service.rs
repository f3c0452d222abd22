//! A server as a child process: a greeter or a balancer. Both say on stdout when they accept, and
//! both keep their log in the run's folder.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{ChildStdout, Command},
    sync::oneshot,
};

use crate::{
    clock::unix_s,
    error::LabError,
    process::{Process, Spawned},
    run::{Run, tail},
};

const READY_LIMIT_S: u64 = 10;
/// A server drains for at most its grace of 10 s; see [`crate::fleet::Fleet::new`].
const EXIT_LIMIT: Duration = Duration::from_secs(15);

/// One that accepts connections; dropping it kills it.
pub(crate) struct Service {
    name: String,
    process: Process,
    log: PathBuf,
    pub(crate) ready_unix_s: f64,
}

/// One that was started.
pub(crate) struct Starting {
    name: String,
    process: Process,
    log: PathBuf,
    ready: oneshot::Receiver<f64>,
}

impl Starting {
    /// Starts `command` under `name`.
    ///
    /// # Errors
    ///
    /// When its log or the process can't be made.
    pub(crate) fn spawn(run: &Run, name: String, mut command: Command) -> Result<Self, LabError> {
        let log = run.path(&format!("{name}.log"));
        // Appending: one that returns on its address continues its log.
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::io(format!("can't create {}", log.display())))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let Spawned { process, stdout, .. } = run
            .nursery()
            .spawn(&name, &mut command)
            .map_err(LabError::io(format!("can't start {name}")))?;
        let (said, ready) = oneshot::channel();
        if let Some(stdout) = stdout {
            tokio::spawn(watch_stdout(stdout, said));
        }
        Ok(Self { name, process, log, ready })
    }

    /// Waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// When it ends, or does not within 10 s.
    pub(crate) async fn ready(self) -> Result<Service, LabError> {
        let Self { name, process, log, ready } = self;
        let limit = Duration::from_secs(READY_LIMIT_S);
        if let Ok(Ok(ready_unix_s)) = tokio::time::timeout(limit, ready).await {
            return Ok(Service { name, process, log, ready_unix_s });
        }
        // Its stdout closes a moment before it can be reaped.
        let status = process.exited(Duration::from_millis(200)).await;
        let log = tail(&log);
        Err(match status {
            Some(status) => LabError::Ended { name, status: status.to_string(), log },
            None => LabError::NotReady { name, limit_s: READY_LIMIT_S, log },
        })
    }
}

impl Service {
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
    /// When it lingers for 15 s.
    pub(crate) async fn gone(
        self,
        signal_name: &'static str,
    ) -> Result<(ExitStatus, f64), LabError> {
        match self.process.exited(EXIT_LIMIT).await {
            Some(status) => Ok((status, unix_s())),
            None => Err(LabError::Lingers {
                name: self.name,
                limit_s: EXIT_LIMIT.as_secs(),
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
        match self.process.status() {
            Some(status) => {
                let (name, status) = (self.name.clone(), status.to_string());
                Err(LabError::Ended { name, status, log: tail(&self.log) })
            }
            None => Ok(()),
        }
    }
}

/// Tells when the server accepts connections, and reads on so that its pipe never fills.
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
