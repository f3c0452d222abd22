//! What a service does on SIGTERM and SIGINT: drain at the first, end at once at the second,
//! because whoever sends a second one does not want to wait.

use std::io;

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{info, warn};

use crate::{
    drain::DrainReport,
    server::{ServeError, Server},
};

/// A shell reports a process that a signal ended as this plus the signal's number.
const EXIT_CODE_OF_SIGNALS: u8 = 128;

/// Catches SIGTERM and SIGINT from [`Termination::install`] on.
#[derive(Debug)]
pub struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

/// How a served process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// By a drain, whatever it had to cut.
    Drained(DrainReport),
    /// By a second signal, during the drain.
    Forced {
        /// The second signal's number.
        signal: i32,
    },
}

impl Ended {
    /// 0 after a drain; 128 plus the signal's number when a second signal cut it short.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Drained(_) => 0,
            Self::Forced { signal } => {
                EXIT_CODE_OF_SIGNALS.saturating_add(u8::try_from(*signal).unwrap_or(u8::MAX))
            }
        }
    }
}

impl Termination {
    /// Starts to catch the signals. Call it before the process says that it is ready.
    ///
    /// # Errors
    ///
    /// The kernel's, when a handler can't be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Serves until the first signal, drains, and returns; at a second signal it closes everything
    /// and returns at once. The process is the caller's to end, with [`Ended::exit_code`].
    ///
    /// # Errors
    ///
    /// Those of [`Server::serve`].
    pub async fn serve(
        mut self,
        server: Server,
        listeners: impl IntoIterator<Item = TcpListener>,
    ) -> Result<Ended, ServeError> {
        let shutdown = server.shutdown_handle();
        let twice = async {
            let signal = self.next().await;
            info!(signal, "signal received; a second one ends the process at once");
            shutdown.drain();
            let signal = self.next().await;
            warn!(signal, "second signal received; closing everything");
            signal
        };
        tokio::select! {
            report = server.serve(listeners) => report.map(Ended::Drained),
            signal = twice => Ok(Ended::Forced { signal }),
        }
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}
