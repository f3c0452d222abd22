//! The life of one connection: connect, wait for the server's SETTINGS, carry streams, keep alive,
//! drain. One task runs it from the first SYN to the last stream's end.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use evenkeel_core::{Address, Status, SubchannelId};
use h2::client::{self, SendRequest};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use super::{
    Names, SlotQueue, Transport,
    keepalive::Pings,
    tap::{Seen, Tap},
};
use crate::{
    builder::Keepalive,
    connector::{BoxedIo, Connector, Secure},
};

/// Window that each stream starts with, in bytes: enough for a 1 MiB message in flight.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Window of the whole connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// What unread small DATA frames may cost beyond their bytes, as h2 counts it: 256 bytes each,
/// less what they carry. One stream that nobody reads may fill its window with messages of 10
/// bytes; h2's own limit, half the connection's window, would end the connection for that.
const SMALL_FRAMES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Request bytes that one stream may have in h2's buffer beyond what the socket took: with less, a
/// large message goes out in more and smaller steps.
const SEND_BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// How often a connection that is woken stands back once more before it writes. The first call's
/// frames wake it before the calls behind that one in the scheduler's queue have run; letting those
/// go first puts the frames of many into one write. Measured at 16 and 64 callers: 0.73 and 0.54
/// writes a call without, 0.35 and 0.18 with.
const GATHER_TURNS: u32 = 2;
/// The largest header block that a response may have, in bytes.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;

/// A connection that ends sooner than this after it became READY, without an answer to any call,
/// was of no use. See [`End::useless`].
const USEFUL_LIFE_MIN: Duration = Duration::from_millis(100);

/// Settings of all connections of a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransportOptions {
    pub(crate) connect_timeout: Duration,
    pub(crate) keepalive: Option<Keepalive>,
}

/// What a connection tells the driver. `number` tells the connections of one subchannel apart.
pub(crate) struct ConnectionEvent {
    pub(crate) id: SubchannelId,
    pub(crate) number: u64,
    pub(crate) kind: EventKind,
}

pub(crate) enum EventKind {
    Ready(Arc<Transport>),
    Failed(Status),
    /// GOAWAY: streams run on, no new ones.
    Draining {
        end: End,
    },
    /// A GOAWAY, the first or a later one, complained about our keepalive.
    TooManyPings,
    Closed {
        streams_open: u32,
        end: End,
    },
}

/// How a connection that was READY came to take no more calls.
pub(crate) struct End {
    pub(crate) reason: String,
    /// It ended at once and served nobody: a server that greets and hangs up must not be connected
    /// to in a tight loop, though each time it becomes READY.
    pub(crate) useless: bool,
}

/// One connection to make.
pub(crate) struct Connection {
    pub(crate) id: SubchannelId,
    pub(crate) number: u64,
    pub(crate) address: Address,
    pub(crate) options: TransportOptions,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) secure: Option<Arc<dyn Secure>>,
    pub(crate) queue: Arc<SlotQueue>,
    pub(crate) events: mpsc::Sender<ConnectionEvent>,
    /// Becomes true when a shutdown's grace is over.
    pub(crate) cut: watch::Receiver<bool>,
}

type Http2 = client::Connection<Tap<BoxedIo>, Bytes>;

impl Connection {
    /// Runs until the connection is closed. Events that nobody receives any more are dropped.
    pub(crate) async fn run(self) {
        let seen = Arc::new(Seen::default());
        let (send, http2) = match self.establish(&seen).await {
            Ok(established) => established,
            Err(reason) => {
                let status =
                    Status::unavailable(format!("cannot connect to {}: {reason}", self.address));
                return self.tell(EventKind::Failed(status)).await;
            }
        };
        let ready_at = Instant::now();
        let transport = Arc::new(Transport {
            address: self.address.clone(),
            seen: seen.clone(),
            names: Names::default(),
            send,
            queue: self.queue.clone(),
        });
        // Weak: the connection closes when nobody can send on it any more.
        let offered = Arc::downgrade(&transport);
        self.tell(EventKind::Ready(transport)).await;
        self.carry(http2, &seen, &offered, ready_at).await;
        let streams_open = seen.open_at_end();
        self.tell(EventKind::Closed { streams_open, end: End::new(&seen, ready_at) }).await;
    }

    async fn tell(&self, kind: EventKind) {
        let event = ConnectionEvent { id: self.id, number: self.number, kind };
        self.events.send(event).await.ok();
    }

    /// TCP, TLS, HTTP/2 preface, the server's first SETTINGS: a port that accepts and says nothing
    /// is not a server, and must not make the backoff start anew.
    async fn establish(&self, seen: &Arc<Seen>) -> Result<(SendRequest<Bytes>, Http2), String> {
        let limit = self.options.connect_timeout;
        let mut waits_for = "connection";
        let attempt = async {
            let socket = self.connector.connect(&self.address).await.map_err(|e| e.to_string())?;
            let Some(secure) = &self.secure else {
                waits_for = "HTTP/2 SETTINGS from the server";
                return greet(socket, seen).await;
            };
            waits_for = "end of the TLS handshake";
            let socket = secure.secure(socket).await?;
            waits_for = "HTTP/2 SETTINGS from the server";
            greet(socket, seen).await.map_err(|e| secure.explain(e))
        };
        let in_time = timeout(limit, attempt).await;
        in_time.unwrap_or_else(|_| Err(format!("no {waits_for} within {limit:?}")))
    }

    /// Runs the connection until it ends; `seen` knows why.
    async fn carry(
        &self,
        mut http2: Http2,
        seen: &Seen,
        transport: &Weak<Transport>,
        ready_at: Instant,
    ) {
        let mut pings = (http2.ping_pong().zip(self.options.keepalive))
            .map(|(ping_pong, keepalive)| Pings::new(ping_pong, keepalive, seen));
        let mut cut = std::pin::pin!(told(self.cut.clone()));
        let (mut draining, mut complained) = (false, false);
        let mut gathered = 0;
        loop {
            let step = poll_fn(|cx| {
                if gathered < GATHER_TURNS && seen.open() > 1 {
                    gathered += 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                gathered = 0;
                match Pin::new(&mut http2).poll(cx) {
                    Poll::Ready(Ok(())) if seen.goaway() => {
                        seen.end_unused("the server sent GOAWAY, all is done");
                    }
                    Poll::Ready(Ok(())) => seen.end_unused("no longer used"),
                    Poll::Ready(Err(e)) => seen.end(|| format!("connection lost: {e}")),
                    Poll::Pending => {}
                }
                if cut.as_mut().poll(cx).is_ready() {
                    seen.end(|| "the channel was shut down and its grace is over".into());
                }
                if seen.take_max_streams_changed()
                    && let Some(transport) = transport.upgrade()
                {
                    self.queue.offer_free(&transport);
                }
                // First, so that whoever connects again after the end knows of it.
                if !complained && seen.too_many_pings() {
                    return Poll::Ready(Step::Complaint);
                }
                let ended = seen.end_reason().is_some();
                if !draining && (seen.goaway() || seen.retired() && !ended) {
                    return Poll::Ready(Step::Drain);
                }
                // Not h2's word for it: after the server's end h2 still tries to write, which a
                // full socket lets it do forever.
                if ended {
                    return Poll::Ready(Step::Ended);
                }
                match pings.as_mut().map(|p| p.poll(cx, seen)) {
                    Some(Poll::Ready(())) => Poll::Ready(Step::Ended),
                    _ => Poll::Pending,
                }
            });
            match step.await {
                Step::Ended => return,
                Step::Complaint => {
                    complained = true;
                    self.tell(EventKind::TooManyPings).await;
                }
                Step::Drain => {
                    draining = true;
                    self.tell(EventKind::Draining { end: End::new(seen, ready_at) }).await;
                    if seen.end_reason().is_some() {
                        return;
                    }
                }
            }
        }
    }
}

enum Step {
    Ended,
    Complaint,
    Drain,
}

impl End {
    fn new(seen: &Seen, ready_at: Instant) -> Self {
        let reason = match seen.end_reason() {
            Some(reason) => reason.to_owned(),
            None if seen.goaway() => "the server sent GOAWAY".to_owned(),
            None => "its stream ids are used up".to_owned(),
        };
        Self { reason, useless: !seen.served() && ready_at.elapsed() < USEFUL_LIFE_MIN }
    }
}

/// Ready when the value becomes true. A driver that is gone tells nothing any more: then the
/// connection drains for as long as its calls take.
async fn told(mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|cut| *cut).await.is_err() {
        std::future::pending().await
    }
}

/// HTTP/2's beginning, up to the server's first SETTINGS.
async fn greet(socket: BoxedIo, seen: &Arc<Seen>) -> Result<(SendRequest<Bytes>, Http2), String> {
    let (send, mut http2) = client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .data_frame_budget(SMALL_FRAMES_BYTES_MAX)
        // h2 counts each answer that comes long after its call was cancelled, and would end the
        // connection at the 1,024th. A slow server and short deadlines make thousands.
        .max_local_error_reset_streams(None)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .enable_push(false)
        .handshake(Tap::new(socket, seen.clone()))
        .await
        .map_err(|e| explain(seen, &e.to_string()))?;
    poll_fn(|cx| match Pin::new(&mut http2).poll(cx) {
        Poll::Ready(Err(e)) => Poll::Ready(Err(explain(seen, &e.to_string()))),
        // It greeted and said goodbye before we looked: a short life, but no failure to connect.
        Poll::Ready(Ok(())) if seen.settings() && seen.goaway() => Poll::Ready(Ok(())),
        Poll::Ready(Ok(())) => Poll::Ready(Err(explain(seen, "the server closed the connection"))),
        Poll::Pending if seen.settings() => Poll::Ready(Ok(())),
        // h2 lets another frame come first, and would wait for SETTINGS until the timeout.
        Poll::Pending if seen.not_http2().is_some() => Poll::Ready(Err(explain(seen, ""))),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    Ok((send, http2))
}

/// Puts what the server's first bytes tell in front of what h2 makes of them.
fn explain(seen: &Seen, error: &str) -> String {
    match (seen.not_http2(), seen.end_reason()) {
        (Some(what), _) => format!("expected HTTP/2 SETTINGS, but {what}; is this a gRPC port?"),
        (None, Some(reason)) if seen.settings() => format!("{reason} right after its SETTINGS"),
        (None, Some(reason)) => format!("{reason} before its HTTP/2 SETTINGS"),
        (None, None) => error.to_owned(),
    }
}
