//! One connection's task: hyper serves it, the lifecycle and the server's phase end it.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::{
    service::Routes,
    transport::server::{Connected as _, TcpConnectInfo},
};
use tracing::{debug, warn};

use crate::{
    call::CallService,
    config::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Settings},
    drain::Phase,
    lifecycle::{Action, Lifecycle},
    streams::Streams,
};

/// The length of HTTP/2's client connection preface (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

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

/// Serves `socket` until it ends.
pub(crate) async fn run(
    socket: TcpStream,
    routes: Routes,
    settings: Arc<Settings>,
    age: Option<Duration>,
    mut phase: watch::Receiver<Phase>,
) -> ConnectionEnd {
    let info: TcpConnectInfo = socket.connect_info();
    let peer = info.remote_addr;
    let (socket, received) = Received::watch(socket);
    let streams = Streams::default();
    let mut connection = pin!(
        protocol(&settings, &streams)
            .serve_connection(TokioIo::new(socket), CallService::new(routes, info))
    );
    let mut life =
        Lifecycle::new(Instant::now(), settings.handshake_timeout, age, settings.age_grace);
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut seen = Phase::Serving;
    loop {
        let next = life.next();
        if let Some(next) = next.filter(|next| timer.deadline() != *next) {
            timer.as_mut().reset(next);
        }
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(?peer, %error, "connection ended with an error");
                }
                return ConnectionEnd::Closed;
            }
            now_in = advance(&mut phase, seen) => {
                seen = now_in;
                if seen == Phase::Cut {
                    return ConnectionEnd::Cut { streams: streams.open() };
                }
                connection.as_mut().graceful_shutdown();
                life.drained(Instant::now());
            }
            () = timer.as_mut(), if next.is_some() => {
                let greeted = received.bytes() >= PREFACE_BYTES;
                match life.due(Instant::now(), greeted, streams.open()) {
                    Action::Wait => {}
                    Action::GoAway => connection.as_mut().graceful_shutdown(),
                    Action::Close(reason) => {
                        return cut(peer, reason, streams.open());
                    }
                }
            }
        }
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

/// The number of bytes that came from a socket; hyper does not tell when its handshake is over.
struct Received {
    count: Arc<AtomicUsize>,
}

impl Received {
    fn watch(socket: TcpStream) -> (Watched, Self) {
        let count = Arc::new(AtomicUsize::new(0));
        (Watched { socket, count: Arc::clone(&count) }, Self { count })
    }

    fn bytes(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// A socket that counts what it receives, up to the preface.
struct Watched {
    socket: TcpStream,
    count: Arc<AtomicUsize>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if self.count.load(Ordering::Relaxed) < PREFACE_BYTES {
            self.count.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
