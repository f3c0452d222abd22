//! What there is to see of a server: its sockets and what became of their streams, for a service
//! like channelz. A connection enters and leaves under a lock, once each; calls touch their own
//! connection's counters and nothing else.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, time::Instant};
use tonic::transport::server::TcpConnectInfo;

use crate::streams::Streams;

/// Streams of a connection or of a whole server, each of which is one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCounts {
    /// Calls that reached the routes.
    pub started: u64,
    /// Responses that were written to their end, whatever their status: it is not looked at.
    pub answered: u64,
    /// Streams that were reset, by the client or for its stalling.
    pub reset: u64,
}

/// A socket that the server accepts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerSnapshot {
    /// Unique among the servers and sockets of the process.
    pub id: u64,
    /// Where it listens, if the kernel says so.
    pub local: Option<SocketAddr>,
}

/// One connection at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionSnapshot {
    /// Unique among the servers and sockets of the process.
    pub id: u64,
    /// Our end.
    pub local: Option<SocketAddr>,
    /// The client's end.
    pub peer: Option<SocketAddr>,
    /// Since it was accepted.
    pub age: Duration,
    /// GOAWAY was sent.
    pub draining: bool,
    /// Calls that run.
    pub streams_open: usize,
    /// Calls so far.
    pub streams: StreamCounts,
}

/// A server at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerSnapshot {
    /// Unique among the servers and sockets of the process.
    pub id: u64,
    /// What it accepts from.
    pub listeners: Vec<ListenerSnapshot>,
    /// How many connections are open.
    pub connections: usize,
    /// Calls of all its connections, also of those that are gone.
    pub streams: StreamCounts,
}

/// One server, while it serves; see [`crate::Builder::view`]. Clones show the same one. It holds
/// neither the server nor its connections.
#[derive(Clone)]
pub struct ServerView {
    shared: Arc<Shared>,
}

struct Shared {
    id: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: Option<Vec<ListenerSnapshot>>,
    connections: BTreeMap<u64, Entered>,
    gone: StreamCounts,
}

struct Entered {
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    began: Instant,
    draining: Arc<AtomicBool>,
    streams: Streams,
}

/// A connection in a view; leaves when dropped.
pub(crate) struct Entry {
    view: ServerView,
    id: u64,
    draining: Arc<AtomicBool>,
}

/// A server that serves; it is no longer shown when this is dropped.
pub(crate) struct Serving(ServerView);

impl Default for ServerView {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { id: next_id(), state: Mutex::default() }) }
    }
}

impl ServerView {
    /// A view that shows nothing until a server serves in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The server, if it serves or drains now.
    #[must_use]
    pub fn snapshot(&self) -> Option<ServerSnapshot> {
        let state = self.lock();
        let listeners = state.listeners.clone()?;
        let mut streams = state.gone;
        state.connections.values().for_each(|entered| streams.add(entered.counts()));
        let connections = state.connections.len();
        Some(ServerSnapshot { id: self.shared.id, listeners, connections, streams })
    }

    /// Up to `max` connections whose id is at least `start_id`, by id, and whether that is all.
    #[must_use]
    pub fn connections(&self, start_id: u64, max: usize) -> (Vec<ConnectionSnapshot>, bool) {
        let state = self.lock();
        let mut rest = state.connections.range(start_id..);
        let shown = rest.by_ref().take(max).map(|(id, entered)| entered.show(*id)).collect();
        (shown, rest.next().is_none())
    }

    /// The connection with this id.
    #[must_use]
    pub fn connection(&self, id: u64) -> Option<ConnectionSnapshot> {
        self.lock().connections.get(&id).map(|entered| entered.show(id))
    }

    pub(crate) fn serve(&self, listeners: &[TcpListener]) -> Serving {
        let listeners = listeners.iter();
        let shown =
            |one: &TcpListener| ListenerSnapshot { id: next_id(), local: one.local_addr().ok() };
        self.lock().listeners = Some(listeners.map(shown).collect());
        Serving(self.clone())
    }

    pub(crate) fn enter(&self, info: &TcpConnectInfo, streams: &Streams) -> Entry {
        let (id, draining) = (next_id(), Arc::<AtomicBool>::default());
        let entered = Entered {
            local: info.local_addr,
            peer: info.remote_addr,
            began: Instant::now(),
            draining: Arc::clone(&draining),
            streams: streams.clone(),
        };
        self.lock().connections.insert(id, entered);
        Entry { view: self.clone(), id, draining }
    }

    /// No code that holds this lock can panic; should it ever, the state is whole all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ServerView {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ServerView").field("server", &self.snapshot()).finish()
    }
}

impl Entered {
    fn counts(&self) -> StreamCounts {
        let Self { streams, .. } = self;
        let (started, answered, reset) = (streams.opened(), streams.answered(), streams.broken());
        StreamCounts { started, answered, reset }
    }

    fn show(&self, id: u64) -> ConnectionSnapshot {
        ConnectionSnapshot {
            id,
            local: self.local,
            peer: self.peer,
            age: self.began.elapsed(),
            draining: self.draining.load(Ordering::Relaxed),
            streams_open: self.streams.open(),
            streams: self.counts(),
        }
    }
}

impl StreamCounts {
    fn add(&mut self, other: Self) {
        self.started += other.started;
        self.answered += other.answered;
        self.reset += other.reset;
    }
}

impl Entry {
    /// GOAWAY is sent.
    pub(crate) fn drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.view.lock();
        if let Some(entered) = state.connections.remove(&self.id) {
            state.gone.add(entered.counts());
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.lock().listeners = None;
    }
}

/// A number that no other server or socket of a server has in this process.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
