//! What the lab does to backends, in the order in which Kubernetes does it.
//!
//! A pod leaves DNS when it is deleted, at the same time as or before SIGTERM reaches it, and
//! enters DNS when it is ready: each function here keeps that order, so that no example is judged
//! on something a cluster would not do. A pod that crashes or hangs stays published, as it does
//! until its readiness probe has failed several times.

use rustix::process::Signal;

use crate::{error::LabError, stage::Stage};

/// What a control plane has an Envoy do to calls, instead of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallFault {
    /// Nothing.
    None,
    /// Half of them end with ABORTED.
    Abort,
    /// Each waits for 100 ms.
    Delay,
}

/// A pod that was deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deleted {
    /// When its process had ended.
    pub(crate) gone_unix_s: f64,
    /// Whether it ended with status 0: drained in time.
    pub(crate) clean: bool,
}

impl Stage {
    /// Starts pods `hosts` and publishes them once they are ready. Returns when they were
    /// published.
    ///
    /// # Errors
    ///
    /// When one is not ready in time.
    pub(crate) async fn scale_up(&mut self, hosts: &[u8]) -> Result<f64, LabError> {
        self.fleet.start(hosts).await?;
        Ok(self.publish(hosts).await)
    }

    /// Deletes pods `hosts` at once: out of DNS, SIGTERM, and waits until they have drained.
    ///
    /// # Errors
    ///
    /// When one does not run or does not end.
    pub(crate) async fn delete(&mut self, hosts: &[u8]) -> Result<Vec<Deleted>, LabError> {
        self.unpublish(hosts).await;
        self.terminate(hosts).await
    }

    /// Puts `new`, which run, into the place of `old` in one change of DNS, and deletes `old` at
    /// once: SIGTERM to all, and waits until they have drained.
    ///
    /// # Errors
    ///
    /// When one of `old` does not run or does not end.
    pub(crate) async fn replace(
        &mut self,
        old: &[u8],
        new: &[u8],
    ) -> Result<Vec<Deleted>, LabError> {
        self.exchange(old, new).await;
        self.terminate(old).await
    }

    async fn terminate(&mut self, hosts: &[u8]) -> Result<Vec<Deleted>, LabError> {
        for host in hosts {
            self.fleet.signal(*host, Signal::TERM, "SIGTERM")?;
        }
        let mut deleted = Vec::new();
        for host in hosts {
            let (status, gone_unix_s) = self.fleet.gone(*host, "SIGTERM").await?;
            deleted.push(Deleted { gone_unix_s, clean: status.success() });
            self.forget(&[*host]);
        }
        Ok(deleted)
    }

    /// Kills pod `host` without warning; it stays published. Returns when.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub(crate) async fn kill_9(&mut self, host: u8) -> Result<f64, LabError> {
        let at = self.fleet.signal(host, Signal::KILL, "SIGKILL")?;
        self.fleet.gone(host, "SIGKILL").await?;
        Ok(at)
    }

    /// Stops pod `host` where it is: its sockets stay open and nothing answers. Returns when.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub(crate) fn hang(&self, host: u8) -> Result<f64, LabError> {
        self.fleet.signal(host, Signal::STOP, "SIGSTOP")
    }

    /// Lets a pod that [`Stage::hang`] stopped go on. Returns when.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub(crate) fn resume(&self, host: u8) -> Result<f64, LabError> {
        self.fleet.signal(host, Signal::CONT, "SIGCONT")
    }
}
