//! The service as tonic's `Routes` mount it: below tonic's codec, which copies every message into a
//! buffer of its own. It reads requests with the codec and writes responses as the shared pieces
//! that they are.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_proto::grpc::lb::v1::LoadBalanceRequest;
use http::{Request, Response};
use tonic::{Status, body::Body, server::NamedService};

use super::stream::Client;
use crate::{
    control::{Control, lock},
    status::ClientStatus,
    stream::Streams,
    wire,
};

/// The service's name.
pub const SERVICE_NAME: &str = "grpc.lb.v1.LoadBalancer";
/// How often clients are asked to report, unless set.
pub const DEFAULT_CLIENT_STATS_INTERVAL: Duration = Duration::from_secs(10);

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GrpclbSettings {
    /// How often clients report; zero: never.
    pub client_stats_interval: Duration,
    /// Where in the list the first client begins, from 0 to 1; random, so that replicas differ.
    pub phase: f64,
}

impl Default for GrpclbSettings {
    fn default() -> Self {
        Self { client_stats_interval: DEFAULT_CLIENT_STATS_INTERVAL, phase: fastrand::f64() }
    }
}

/// The service, for [`tonic::service::Routes::add_service`]; clones are the same.
#[derive(Clone)]
pub struct Grpclb {
    shared: Arc<Shared>,
}

/// What all streams have in common.
pub(crate) struct Shared {
    pub(super) control: Control,
    pub(super) settings: GrpclbSettings,
    streams: Streams,
    clients: Mutex<BTreeMap<u64, Arc<ClientStatus>>>,
    ids: AtomicU64,
}

impl Grpclb {
    /// Serves what `control` has.
    #[must_use]
    pub fn new(control: Control, settings: GrpclbSettings) -> Self {
        let shared = Shared {
            streams: Streams::new(control.clone()),
            control,
            settings,
            clients: Mutex::default(),
            ids: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Ends all streams, each within [`super::DRAIN_SPREAD`], with UNAVAILABLE; clients keep their
    /// lists and turn to another balancer. To be called when connections have had their GOAWAY, or
    /// clients come back on the same one.
    pub fn end_streams(&self) {
        self.shared.streams.end();
    }

    /// Up to `max` clients that have streams, those first who came first; and how many there are.
    #[must_use]
    pub fn clients(&self, max: usize) -> (Vec<Arc<ClientStatus>>, usize) {
        let clients = lock(&self.shared.clients);
        (clients.values().take(max).cloned().collect(), clients.len())
    }

    /// Open streams, also those that have not asked for a service yet.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.shared.streams.open()
    }

    fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let path = request.uri().path();
        if wire::method(&request) != "BalanceLoad" {
            return Err(Status::unimplemented(format!(
                "expected /{SERVICE_NAME}/BalanceLoad, got {path}"
            )));
        }
        self.shared.streams.respond::<LoadBalanceRequest, Client>(request, &self.shared)
    }
}

impl fmt::Debug for Grpclb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Grpclb");
        debug.field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl NamedService for Grpclb {
    const NAME: &'static str = SERVICE_NAME;
}

impl tower_service::Service<Request<Body>> for Grpclb {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(self.answer(request).unwrap_or_else(Status::into_http)))
    }
}

impl Shared {
    pub(super) fn new_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn enter(&self, client: Arc<ClientStatus>) {
        lock(&self.clients).insert(client.id, client);
    }

    pub(super) fn leave(&self, id: u64) {
        lock(&self.clients).remove(&id);
    }
}
