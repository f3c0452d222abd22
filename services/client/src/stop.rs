//! Ends a run early in two steps: first no call is started any more and those in flight finish,
//! then they are given up. Cancelling at once would count calls as failed that only the user's
//! Ctrl-C broke.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

/// How long calls in flight may go on after the first signal.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Run,
    Drain,
    Cut,
}

/// Tells a run to end. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Stop {
    phase: Arc<watch::Sender<Phase>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Run)) }
    }
}

impl Stop {
    /// No call is started from now on.
    pub fn drain(&self) {
        self.raise(Phase::Drain);
    }

    /// Calls in flight are given up as well.
    pub fn cut(&self) {
        self.raise(Phase::Cut);
    }

    /// Whether the run is to end.
    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Drain
    }

    /// Returns when the run is to end.
    pub async fn draining(&self) {
        self.wait(Phase::Drain).await;
    }

    /// Returns when calls in flight are to be given up.
    pub async fn cut_off(&self) {
        self.wait(Phase::Cut).await;
    }

    /// Ends the run on SIGINT or SIGTERM; a second signal, or `grace` later, gives up the calls in
    /// flight.
    ///
    /// # Errors
    ///
    /// The signal handlers can't be installed.
    pub fn on_signals(&self, grace: Duration) -> io::Result<JoinHandle<()>> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = self.clone();
        Ok(tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stop.drain();
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                // Either signal ends this wait.
                _ = tokio::time::sleep(grace) => {}
            }
            stop.cut();
        }))
    }

    fn raise(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let raised = to > *phase;
            *phase = to.max(*phase);
            raised
        });
    }

    async fn wait(&self, for_phase: Phase) {
        let mut phase = self.phase.subscribe();
        // An error would mean that the sender is gone, which `self` holds.
        let _ = phase.wait_for(|phase| *phase >= for_phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cutting_implies_draining_and_never_goes_back() {
        let stop = Stop::default();
        assert!(!stop.is_draining());
        stop.cut();
        stop.drain();
        stop.draining().await;
        stop.cut_off().await;
        assert!(stop.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_alone_cuts_nothing_off() {
        let stop = Stop::default();
        stop.drain();
        let cut = tokio::time::timeout(Duration::from_secs(60), stop.cut_off()).await;
        assert!(cut.is_err());
    }
}
