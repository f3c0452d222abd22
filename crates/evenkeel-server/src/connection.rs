//! One connection's task: hyper serves it, the lifecycle and the server's phase end it.

use std::{future::poll_fn, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::Extensions;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tonic::{
    service::Routes,
    transport::server::{Connected as _, TcpConnectInfo},
};
use tracing::{debug, warn};

use crate::{
    call::CallService,
    config::{CONNECTION_WINDOW_BYTES, ERROR_RESETS_MAX, STREAM_WINDOW_BYTES, Settings},
    drain::Phase,
    lifecycle::{Action, Activity, Lifecycle, Spans},
    observe::{Event, Reporter},
    secure::{Secure, Secured, Transport},
    socket::{Facts, Socket},
    streams::Streams,
    view::ServerView,
};

/// How a connection's task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// By its client, or after the last call that followed GOAWAY.
    Closed,
    /// By the server, with this many calls running.
    Cut {
        /// Calls whose response was not complete.
        streams: usize,
    },
}

/// A connection to serve.
pub(crate) struct Connection {
    pub(crate) routes: Routes,
    pub(crate) settings: Arc<Settings>,
    pub(crate) reporter: Reporter,
    pub(crate) secure: Option<Arc<dyn Secure>>,
    pub(crate) age: Option<Duration>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) view: ServerView,
}

impl Connection {
    /// Serves `tcp` until it ends.
    pub(crate) async fn run(mut self, tcp: TcpStream) -> ConnectionEnd {
        let began = Instant::now();
        let info: TcpConnectInfo = tcp.connect_info();
        let peer = info.remote_addr;
        let (transport, extensions) = match self.open(tcp, peer).await {
            Ok(open) => open,
            Err(end) => return end,
        };
        let streams = Streams::new(self.reporter.clone(), self.settings.max_response_stall);
        let entry = self.view.enter(&info, &streams);
        let (socket, facts) = Socket::new(transport, &self.settings, &streams);
        let service = self.service(info, extensions, &streams);
        let mut connection = pin!(
            protocol(&self.settings, &streams).serve_connection(TokioIo::new(socket), service)
        );
        // TLS and preface share one timeout; age and idleness begin with HTTP/2.
        let handshake = self.settings.handshake_timeout.saturating_sub(began.elapsed());
        let spans = Spans {
            handshake,
            age: self.age,
            grace: self.settings.age_grace,
            idle: self.settings.idle,
        };
        let mut life = Lifecycle::new(Instant::now(), spans);
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut seen = Phase::Serving;
        loop {
            let next = life.next();
            if let Some(next) = next.filter(|next| timer.deadline() != *next) {
                timer.as_mut().reset(next);
            }
            tokio::select! {
                biased;
                result = poll_fn(|cx| { facts.begin_turn(); connection.as_mut().poll(cx) }) => {
                    if let Some(event) = facts.broken() {
                        self.reporter.record(event);
                        let reason = event.name();
                        debug!(?peer, reason, "connection closed: its client's fault");
                    } else if let Err(error) = result {
                        debug!(?peer, %error, "connection ended with an error");
                    }
                    return ConnectionEnd::Closed;
                }
                now_in = advance(&mut self.phase, seen) => {
                    seen = now_in;
                    if seen == Phase::Cut {
                        self.reporter.record(Event::ConnectionCut);
                        return ConnectionEnd::Cut { streams: streams.open() };
                    }
                    entry.drains();
                    connection.as_mut().graceful_shutdown();
                    life.drained(Instant::now());
                }
                () = timer.as_mut(), if next.is_some() => {
                    match life.due(Instant::now(), activity(&facts, &streams)) {
                        Action::Wait => {}
                        Action::GoAway(event) => {
                            self.reporter.record(event);
                            entry.drains();
                            connection.as_mut().graceful_shutdown();
                        }
                        Action::Close(event, reason) => {
                            self.reporter.record(event);
                            return cut(peer, reason, streams.open());
                        }
                    }
                }
            }
        }
    }

    fn service(
        &self,
        info: TcpConnectInfo,
        extensions: Option<Extensions>,
        streams: &Streams,
    ) -> CallService {
        CallService::new(self.routes.clone(), info, extensions, streams.clone(), &self.settings)
    }

    /// The bytes for HTTP/2, and what a secure connection adds to each request.
    async fn open(
        &self,
        tcp: TcpStream,
        peer: Option<SocketAddr>,
    ) -> Result<(Transport, Option<Extensions>), ConnectionEnd> {
        let Some(secure) = self.secure.clone() else { return Ok((Transport::Plain(tcp), None)) };
        let Secured { stream, extensions } = self.shake_hands(secure, tcp, peer).await?;
        Ok((Transport::Secure(stream), Some(extensions)))
    }

    /// What comes before HTTP/2, within the handshake timeout that they share.
    async fn shake_hands(
        &self,
        secure: Arc<dyn Secure>,
        tcp: TcpStream,
        peer: Option<SocketAddr>,
    ) -> Result<Secured, ConnectionEnd> {
        let mut phase = self.phase.clone();
        let handshake = timeout(self.settings.handshake_timeout, secure.secure(tcp));
        let done = tokio::select! {
            biased;
            _ = advance(&mut phase, Phase::Draining) => {
                self.reporter.record(Event::ConnectionCut);
                return Err(ConnectionEnd::Cut { streams: 0 });
            }
            done = handshake => done,
        };
        match done {
            Ok(Ok(secured)) => Ok(secured),
            Ok(Err(reason)) => {
                self.reporter.record(Event::TlsHandshakeFailed);
                debug!(?peer, reason, "connection closed");
                Err(ConnectionEnd::Closed)
            }
            Err(_) => {
                self.reporter.record(Event::HandshakeTimeout);
                Err(cut(peer, "no TLS handshake within the handshake timeout", 0))
            }
        }
    }
}

fn activity(facts: &Facts, streams: &Streams) -> Activity {
    Activity {
        greeted: facts.greeted(),
        streams_open: streams.open(),
        idle_since: streams.idle_since(),
    }
}

fn cut(peer: Option<SocketAddr>, reason: &str, streams: usize) -> ConnectionEnd {
    if streams > 0 {
        warn!(?peer, streams, reason, "connection closed with calls running");
    } else {
        debug!(?peer, reason, "connection closed");
    }
    ConnectionEnd::Cut { streams }
}

fn protocol(settings: &Settings, streams: &Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        // gRPC has no use for the date, and every response would carry it.
        .auto_date_header(false)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_pending_accept_reset_streams(settings.max_pending_resets)
        .max_local_error_reset_streams(ERROR_RESETS_MAX)
        .max_header_list_size(settings.max_header_list_bytes)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

/// Waits for a phase after `seen`.
async fn advance(phase: &mut watch::Receiver<Phase>, seen: Phase) -> Phase {
    if let Ok(phase) = phase.wait_for(|phase| *phase > seen).await {
        return *phase;
    }
    // The server is gone without a drain; its drop ends this task.
    std::future::pending().await
}
