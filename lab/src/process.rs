//! Child processes that can't outlive the lab.
//!
//! `tokio::process::Child` alone signals by pid, which may belong to somebody else once the child
//! is reaped, and its drop does not wait. Here each child has a pidfd, which names this process
//! and no other, and a task that reaps it; the [`Nursery`] knows when the last one is gone.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{oneshot, watch},
};

/// Starts children and waits until all are gone.
#[derive(Debug)]
pub(crate) struct Nursery {
    alive: watch::Sender<()>,
    living: Living,
}

/// The names of those that are not reaped yet, by pid.
#[derive(Clone, Debug, Default)]
struct Living(Arc<Mutex<BTreeMap<u32, String>>>);

/// One running child; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<ExitStatus>>,
    _leash: oneshot::Sender<()>,
}

/// A child with the ends of its pipes, as far as the command asked for them.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) process: Process,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Nursery {
    pub(crate) fn new() -> Self {
        Self { alive: watch::Sender::new(()), living: Living::default() }
    }

    /// Starts `command` under `name` in a process group of its own, so that a terminal's Ctrl-C
    /// reaches the lab alone and the lab decides in which order things end.
    pub(crate) fn spawn(&self, name: &str, command: &mut Command) -> io::Result<Spawned> {
        let mut child = command.kill_on_drop(true).process_group(0).spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        // Not reaped yet, so the pid still names this child.
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| io::Error::other("the child ended before it was watched"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let (leash, released) = oneshot::channel();
        let (exited, exit) = watch::channel(None);
        let process = Process { pid, pidfd, exit, _leash: leash };
        self.living.insert(process.pid(), name);
        let living = self.living.clone();
        let (number, alive) = (process.pid(), self.alive.subscribe());
        tokio::spawn(async move {
            reap(child, released, exited, alive).await;
            living.remove(number);
        });
        Ok(Spawned { process, stdin, stdout, stderr })
    }

    /// Those that run and whose names begin with `start`: what follows it, and the pid. Only for
    /// looking at `/proc`: one of them may be gone at any time.
    pub(crate) fn named(&self, start: &str) -> Vec<(String, u32)> {
        let living = self.living.lock();
        let named = |(pid, name): (&u32, &String)| Some((name.strip_prefix(start)?.into(), *pid));
        living.iter().filter_map(named).collect()
    }

    /// Completes when no child is left.
    pub(crate) async fn empty(&self) {
        self.alive.closed().await;
    }
}

impl Living {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, pid: u32, name: &str) {
        self.lock().insert(pid, name.to_owned());
    }

    fn remove(&self, pid: u32) {
        self.lock().remove(&pid);
    }
}

impl Process {
    /// The process id, for looking at `/proc`; signals go by the pidfd.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends `signal`; `false` when the process is gone.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.exit.borrow().is_none() && pidfd_send_signal(&self.pidfd, signal).is_ok()
    }

    /// The exit status as soon as there is one, or `None` after `limit`.
    pub(crate) async fn exited(&self, limit: Duration) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        let gone = exit.wait_for(Option::is_some);
        tokio::time::timeout(limit, gone).await.ok()?.ok().and_then(|status| *status)
    }

    /// The exit status if the process has ended.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }
}

async fn reap(
    mut child: Child,
    released: oneshot::Receiver<()>,
    exited: watch::Sender<Option<ExitStatus>>,
    _alive: watch::Receiver<()>,
) {
    let status = tokio::select! {
        status = child.wait() => status,
        _ = released => {
            // SIGKILL also ends a process that SIGSTOP holds; it fails only if the child is gone.
            child.start_kill().ok();
            child.wait().await
        }
    };
    exited.send_replace(status.ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("60");
        command
    }

    #[tokio::test]
    async fn dropping_a_process_kills_even_a_stopped_one_and_empties_the_nursery() {
        let nursery = Nursery::new();
        let child = nursery.spawn("sleeper", &mut sleeper()).unwrap().process;
        assert!(child.signal(Signal::STOP));
        assert_eq!(nursery.named("sle"), [("eper".to_owned(), child.pid())]);
        assert_eq!(nursery.named("eper"), []);
        drop(child);
        tokio::time::timeout(LIMIT, nursery.empty()).await.expect("the child is reaped");
    }

    #[tokio::test]
    async fn tells_the_exit_status_and_refuses_signals_to_the_dead() {
        let nursery = Nursery::new();
        let child = nursery.spawn("sleeper", &mut sleeper()).unwrap().process;
        assert!(child.status().is_none());
        assert!(child.signal(Signal::TERM));
        let status = child.exited(LIMIT).await.expect("SIGTERM ends sleep");
        assert!(!status.success());
        assert!(!child.signal(Signal::KILL));
    }
}
