//! The server: accepts until it is told to drain, then drains in the order that loses no call.

use std::{fmt, future::Future, io, pin::pin, sync::Arc};

use tokio::{net::TcpListener, time::sleep};
use tonic::service::Routes;
use tracing::{info, warn};

use crate::{
    accept::{Acceptor, Listeners},
    config::{Builder, Settings},
    connections::Connections,
    drain::{DrainReport, ShutdownHandle},
    health::Health,
    observe::{Reporter, ServerStats},
    orca::Reporting,
    secure::Secure,
    view::ServerView,
};

/// Why a server could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// There is nothing to accept from.
    #[error("expected at least one listener, got none; bind an address and pass its listener")]
    NoListener,
    /// Accepting failed for so long that the listener counts as broken.
    #[error("could not accept connections any more: {0}; restart the process")]
    Accept(#[from] io::Error),
}

/// The services whose streams have no end of their own, so that a drain has to end them.
pub(crate) struct Endless {
    pub(crate) health: Option<Health>,
    pub(crate) reporting: Option<Reporting>,
}

impl Endless {
    async fn end(&self) {
        if let Some(health) = &self.health {
            health.end_watches().await;
        }
        if let Some(reporting) = &self.reporting {
            reporting.end();
        }
    }
}

/// A gRPC server over HTTP/2, with TLS or without, for any tonic routes.
#[must_use = "a server does nothing unless it is served"]
pub struct Server {
    settings: Arc<Settings>,
    routes: Routes,
    endless: Endless,
    reporter: Reporter,
    view: ServerView,
    secure: Option<Arc<dyn Secure>>,
    shutdown: ShutdownHandle,
}

impl Server {
    /// Settings with their defaults.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        settings: Settings,
        routes: Routes,
        endless: Endless,
        reporter: Reporter,
        view: ServerView,
        secure: Option<Arc<dyn Secure>>,
    ) -> Self {
        let shutdown = ShutdownHandle::new();
        Self { settings: Arc::new(settings), routes, endless, reporter, view, secure, shutdown }
    }

    /// Starts the drain from outside.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown.clone()
    }

    /// Sets what the health service answers, if it was asked for.
    #[must_use]
    pub fn health(&self) -> Option<Health> {
        self.endless.health.clone()
    }

    /// The server's counters, also while it serves and after it.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.reporter.stats()
    }

    /// Serves connections from all `listeners` until [`ShutdownHandle::drain`], then drains: health
    /// NOT_SERVING → drain delay → stop accepting and GOAWAY to all → what runs ends, within the
    /// grace → done. Dropping the future closes everything at once.
    ///
    /// A call has its client's `grpc-timeout` and `tonic::Request::local_addr`/`remote_addr`; a
    /// handler that panics answers INTERNAL and leaves its connection alone.
    ///
    /// # Errors
    ///
    /// [`ServeError`], when it can't accept; connections that run then are closed.
    pub async fn serve(
        self,
        listeners: impl IntoIterator<Item = TcpListener>,
    ) -> Result<DrainReport, ServeError> {
        let listeners: Vec<_> = listeners.into_iter().collect();
        if listeners.is_empty() {
            return Err(ServeError::NoListener);
        }
        let _serving = self.view.serve(&listeners);
        let mut acceptor = Acceptor::new(Listeners::new(listeners));
        let mut connections = Connections::new(
            Arc::clone(&self.settings),
            self.routes,
            self.reporter,
            self.view,
            self.secure,
        );
        if let Some(health) = &self.endless.health {
            health.publish().await;
        }
        accept_until(self.shutdown.draining(), &mut acceptor, &mut connections).await?;

        let delay = self.settings.drain_delay;
        info!(?delay, grace = ?self.settings.drain_grace, "draining");
        if let Some(health) = &self.endless.health {
            health.start_drain().await;
        }
        accept_until(sleep(delay), &mut acceptor, &mut connections).await?;
        for socket in acceptor.sweep() {
            connections.admit(socket);
        }
        drop(acceptor);
        self.endless.end().await;
        let report = connections.drain(self.settings.drain_grace).await;
        log(&report);
        Ok(report)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Server");
        debug.field("settings", &self.settings).field("reporter", &self.reporter);
        debug.finish_non_exhaustive()
    }
}

async fn accept_until(
    stop: impl Future<Output = ()>,
    acceptor: &mut Acceptor<Listeners>,
    connections: &mut Connections,
) -> io::Result<()> {
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            // Before accepting, so that ended connections don't count against the limit.
            _ = connections.reap(), if !connections.is_empty() => {}
            accepted = acceptor.accept() => connections.admit(accepted?),
        }
    }
}

fn log(report: &DrainReport) {
    let DrainReport { connections, connections_cut, streams_cut, took } = *report;
    if connections_cut == 0 {
        info!(connections, ?took, "drained");
    } else {
        warn!(connections, connections_cut, streams_cut, ?took, "drained, and cut what still ran");
    }
}
