//! All connections of a server: admits, counts, tells them the phase, and waits for their end.

use std::{sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tonic::service::Routes;
use tracing::{debug, error, warn};

use crate::{
    age::Ages,
    config::{Settings, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_RETRIES},
    connection::{Connection, ConnectionEnd},
    drain::{DrainReport, Phase},
    observe::{Event, Reporter},
    secure::Secure,
    view::ServerView,
};

/// The connections' tasks. Dropping it ends them all.
pub(crate) struct Connections {
    tasks: JoinSet<ConnectionEnd>,
    phase: watch::Sender<Phase>,
    routes: Routes,
    settings: Arc<Settings>,
    reporter: Reporter,
    view: ServerView,
    secure: Option<Arc<dyn Secure>>,
    ages: Ages,
    full: bool,
}

impl Connections {
    pub(crate) fn new(
        settings: Arc<Settings>,
        routes: Routes,
        reporter: Reporter,
        view: ServerView,
        secure: Option<Arc<dyn Secure>>,
    ) -> Self {
        Self {
            tasks: JoinSet::new(),
            phase: watch::Sender::new(Phase::Serving),
            routes,
            ages: Ages::new(settings.age, settings.seed),
            settings,
            reporter,
            view,
            secure,
            full: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Serves a new connection, or closes it when there are too many.
    pub(crate) fn admit(&mut self, socket: TcpStream) {
        let full = self.tasks.len() >= self.settings.max_connections;
        if full {
            self.reporter.record(Event::ConnectionRefused);
            // Once per episode: a flood of connections must not become a flood of log lines.
            if !self.full {
                let max = self.settings.max_connections;
                warn!(max, "too many connections: closing new ones; raise max_connections?");
            }
            self.full = true;
            return;
        }
        self.full = false;
        self.reporter.record(Event::ConnectionAccepted);
        configure(&socket, self.settings.tcp_keepalive);
        let connection = Connection {
            routes: self.routes.clone(),
            settings: Arc::clone(&self.settings),
            reporter: self.reporter.clone(),
            secure: self.secure.clone(),
            age: self.ages.next(),
            phase: self.phase.subscribe(),
            view: self.view.clone(),
        };
        self.tasks.spawn(connection.run(socket));
    }

    /// Waits for the end of any connection; pending for ever when there is none.
    pub(crate) async fn reap(&mut self) -> ConnectionEnd {
        match self.tasks.join_next().await {
            Some(result) => self.ended(result),
            None => std::future::pending().await,
        }
    }

    /// Sends GOAWAY to all, gives them `grace` to end, then cuts what is left.
    pub(crate) async fn drain(&mut self, grace: Duration) -> DrainReport {
        while let Some(result) = self.tasks.try_join_next() {
            self.ended(result);
        }
        let started = Instant::now();
        let mut report = DrainReport { connections: self.tasks.len(), ..DrainReport::default() };
        self.phase.send_replace(Phase::Draining);
        while !self.is_empty() && timeout_at(started + grace, self.reap()).await.is_ok() {}
        self.phase.send_replace(Phase::Cut);
        while !self.is_empty() {
            if let ConnectionEnd::Cut { streams } = self.reap().await {
                report.connections_cut += 1;
                report.streams_cut += streams;
            }
        }
        report.took = started.elapsed();
        report
    }

    fn ended(&self, result: Result<ConnectionEnd, JoinError>) -> ConnectionEnd {
        self.reporter.record(Event::ConnectionEnded);
        result.unwrap_or_else(|failure| {
            error!(%failure, "a connection's task panicked; this is a bug in evenkeel-server");
            ConnectionEnd::Closed
        })
    }
}

/// Best effort: a client that is gone already makes these fail, and its connection ends anyway.
fn configure(socket: &TcpStream, keepalive: Duration) {
    let keepalive = TcpKeepalive::new()
        .with_time(keepalive)
        .with_interval(TCP_KEEPALIVE_INTERVAL)
        .with_retries(TCP_KEEPALIVE_RETRIES);
    let result =
        socket.set_nodelay(true).and_then(|()| SockRef::from(socket).set_tcp_keepalive(&keepalive));
    if let Err(error) = result {
        debug!(%error, "could not set TCP_NODELAY and keepalive");
    }
}
