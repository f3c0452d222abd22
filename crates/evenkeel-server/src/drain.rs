//! The end of a server: who asks for it, and what it reports.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

/// Where all connections of a server are. Only ever advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Connections live until their age or their client ends them.
    Serving,
    /// GOAWAY is sent; what runs may end.
    Draining,
    /// The grace is over; what runs is cut.
    Cut,
}

/// Starts the drain of a server. Clones start the same drain; dropping them does nothing.
#[derive(Debug, Clone)]
pub struct ShutdownHandle {
    requested: Arc<watch::Sender<bool>>,
}

impl ShutdownHandle {
    pub(crate) fn new() -> Self {
        Self { requested: Arc::new(watch::Sender::new(false)) }
    }

    /// Asks for the drain. It runs inside [`crate::Server::serve`]; asking again has no effect.
    pub fn drain(&self) {
        self.requested.send_replace(true);
    }

    /// Waits until somebody asked for the drain.
    pub async fn draining(&self) {
        let mut receiver = self.requested.subscribe();
        // `self` keeps the sender, so the wait can't fail.
        let _ = receiver.wait_for(|requested| *requested).await;
    }
}

/// What a drain found and what it had to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// Connections that were open when GOAWAY was sent.
    pub connections: usize,
    /// Connections that were still open when the grace was over.
    pub connections_cut: usize,
    /// Calls that still ran on them: a call counts until its response is handed to the connection.
    pub streams_cut: usize,
    /// Time from GOAWAY to the last connection's end.
    pub took: Duration,
}
