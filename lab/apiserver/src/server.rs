//! The listener, its connections, and what can be done to it from outside.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    answer::{self, Body, Refused},
    fault::{Fault, StreamingLists},
    routes::{self, Route},
    slice::SliceSpec,
    store::Store,
};

/// More requests than these are answered, and not remembered.
pub const REQUESTS_KEPT_MAX: usize = 1_000_000;
/// More connections than these wait in the listen queue.
const CONNECTIONS_MAX: usize = 20_000;
/// The listen queue.
const BACKLOG: u32 = 4_096;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All objects that are selected.
    List,
    /// Changes since a version.
    Watch,
    /// All objects and then the changes.
    StreamingList,
    /// One object.
    Get,
    /// Create, replace, delete.
    Write,
}

/// A request that came.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// What for.
    pub kind: Kind,
}

/// A running API server; dropping it closes its listener and every connection.
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinSet<()>>,
}

pub(crate) struct Shared {
    store: Mutex<Store>,
    /// The store has changed.
    pub(crate) changed: Notify,
    settings: Mutex<Settings>,
    seen: Mutex<Vec<Seen>>,
    /// Every connection ends.
    breaking: Notify,
    connections: AtomicUsize,
}

#[derive(Default)]
struct Settings {
    fault: Option<Fault>,
    streaming_lists: StreamingLists,
    token: Option<String>,
}

impl ApiServer {
    /// Serves on `address`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// The address can't be bound.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new()),
            changed: Notify::new(),
            settings: Mutex::default(),
            seen: Mutex::default(),
            breaking: Notify::new(),
            connections: AtomicUsize::new(0),
        });
        let mut server = Self { shared, address, accepting: None };
        server.accept(listener);
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig with which clients reach it, in the namespace `default`.
    pub fn kubeconfig(&self) -> String {
        let token = lock(&self.shared.settings).token.clone();
        let user = token.map_or("{}".to_owned(), |token| format!("{{token: {token:?}}}"));
        let lines = [
            "apiVersion: v1".to_owned(),
            "kind: Config".to_owned(),
            "current-context: double".to_owned(),
            "contexts:".to_owned(),
            "- name: double".to_owned(),
            "  context: {cluster: double, user: double, namespace: default}".to_owned(),
            "clusters:".to_owned(),
            "- name: double".to_owned(),
            format!("  cluster: {{server: \"http://{}\"}}", self.address),
            "users:".to_owned(),
            "- name: double".to_owned(),
            format!("  user: {user}"),
        ];
        lines.join("\n") + "\n"
    }

    /// Creates or replaces a slice, past any fault.
    pub fn apply(&self, slice: &SliceSpec) {
        let name = slice.name.clone();
        self.shared.store().put(&slice.namespace, name, slice.object());
        self.shared.changed.notify_waiters();
    }

    /// Deletes a slice, past any fault; false when there is none.
    pub fn delete(&self, namespace: &str, name: &str) -> bool {
        let deleted = self.shared.store().delete(namespace, name).is_ok();
        self.shared.changed.notify_waiters();
        deleted
    }

    /// Forgets all changes so far: watches from before the last one get 410 Gone, those that run go
    /// on.
    pub fn compact(&self) {
        self.shared.store().compact();
    }

    /// The newest version.
    pub fn version(&self) -> u64 {
        self.shared.store().version()
    }

    /// What happens to requests from now on; those that are answered already go on.
    pub fn fault(&self, fault: Option<Fault>) {
        lock(&self.shared.settings).fault = fault;
    }

    /// How streaming lists are answered from now on.
    pub fn streaming_lists(&self, how: StreamingLists) {
        lock(&self.shared.settings).streaming_lists = how;
    }

    /// Wants this bearer token from now on; others get 401.
    pub fn require_token(&self, token: Option<&str>) {
        lock(&self.shared.settings).token = token.map(str::to_owned);
    }

    /// Closes every connection, and goes on to listen.
    pub fn break_connections(&self) {
        self.shared.breaking.notify_waiters();
    }

    /// Closes the listener and every connection; connecting is refused until
    /// [`ApiServer::resume`].
    pub async fn stop(&mut self) {
        if let Some(mut accepting) = self.accepting.take() {
            accepting.shutdown().await;
        }
    }

    /// Listens again at the same address, with the same objects.
    ///
    /// # Errors
    ///
    /// The address can't be bound.
    pub fn resume(&mut self) -> io::Result<()> {
        let listener = listen(self.address)?;
        self.accept(listener);
        Ok(())
    }

    /// The requests so far, in their order.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How many connections there are now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many requests of this kind there were.
    pub fn count(&self, kind: Kind) -> usize {
        lock(&self.shared.seen).iter().filter(|seen| seen.kind == kind).count()
    }

    fn accept(&mut self, listener: TcpListener) {
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, self.shared.clone()));
        self.accepting = Some(accepting);
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    pub(crate) fn streaming_lists(&self) -> StreamingLists {
        lock(&self.settings).streaming_lists
    }

    fn note(&self, kind: Kind) {
        let mut seen = lock(&self.seen);
        if seen.len() < REQUESTS_KEPT_MAX {
            seen.push(Seen { at: Instant::now(), kind });
        }
    }

    fn admits<B>(&self, request: &Request<B>) -> bool {
        let settings = lock(&self.settings);
        let Some(token) = &settings.token else { return true };
        let given = request.headers().get(http::header::AUTHORIZATION);
        given.is_some_and(|given| given.as_bytes() == format!("Bearer {token}").as_bytes())
    }
}

/// The address of one that was just stopped can be taken at once.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        // Fails only for this one caller: it is gone already, or too many files are open.
        let Ok((socket, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let shared = shared.clone();
        connections.spawn(async move {
            serve(socket, shared).await;
            drop(slot);
        });
    }
}

/// Counts a connection while it lives.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let _counted = Counted(shared.clone());
    socket.set_nodelay(true).ok();
    let breaking = shared.clone();
    let service = service_fn(|request| respond(shared.clone(), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        // A client that breaks off is none of our business.
        _ = connection => {}
        () = breaking.breaking.notified() => {}
    }
}

/// An error closes the connection.
async fn respond(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let route = match Route::of(&request) {
        Ok(route) => route,
        Err(refused) => return Ok(refused.response()),
    };
    let kind = route.kind(request.method());
    shared.note(kind);
    let fault = lock(&shared.settings).fault.clone();
    let is_watch = matches!(kind, Kind::Watch | Kind::StreamingList);
    match fault {
        Some(Fault::Status { code, retry_after_s }) => {
            let refused = refusal(code, retry_after_s, request.method(), kind, &route);
            return Ok(refused.response());
        }
        Some(Fault::Slow(time)) => sleep(time).await,
        Some(Fault::Hang) => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
        Some(Fault::Close) => return Err(io::Error::other("a fault closes the connection")),
        Some(Fault::EndWatches) if is_watch => return Ok(answer::stream(text(""))),
        Some(Fault::Garbage) if is_watch => return Ok(answer::stream(text("{\"type\":\n"))),
        Some(Fault::EndWatches | Fault::Garbage) | None => {}
    }
    if !shared.admits(&request) {
        let refused = refusal(401, None, request.method(), kind, &route);
        return Ok(refused.response());
    }
    let answered = routes::answer(&shared, route, request).await;
    Ok(answered.unwrap_or_else(|refused| refused.response()))
}

/// Worded as kube-apiserver's.
fn refusal(
    code: u16,
    retry_after_s: Option<u64>,
    method: &Method,
    kind: Kind,
    route: &Route,
) -> Refused {
    let verb = match kind {
        Kind::List => "list",
        Kind::Watch | Kind::StreamingList => "watch",
        Kind::Get => "get",
        Kind::Write if method == Method::POST => "create",
        Kind::Write if method == Method::DELETE => "delete",
        Kind::Write => "update",
    };
    let (reason, message) = match code {
        401 => ("Unauthorized", "Unauthorized".to_owned()),
        403 => (
            "Forbidden",
            format!(
                "endpointslices.discovery.k8s.io is forbidden: User \"double\" cannot {verb} \
                 resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \
                 \"{}\"",
                route.namespace()
            ),
        ),
        410 => ("Expired", "too old resource version".to_owned()),
        429 => ("TooManyRequests", "too many requests, please try again later".to_owned()),
        _ => ("InternalError", format!("a fault answers {code}")),
    };
    Refused { code, reason, message, retry_after_s }
}

fn text(text: &'static str) -> Body {
    use http_body_util::{BodyExt as _, Full};

    Full::new(bytes::Bytes::from_static(text.as_bytes()))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// No code that holds these locks can panic; should it ever, the data is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
