//! What there is to see: services, endpoints, clients and their sums as JSON for people and the
//! lab, and the same as metrics. Addresses and names are shown as they are, so a page of it belongs
//! where operators come and nobody else.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    control::{Control, Service, SourceStatus},
    grpclb::{ClientTotals, Grpclb, endpoint_token},
    key::ServiceKey,
    metrics::{Kind, Page},
    observe::{Refusal, Warning},
    peer::Peer,
    snapshot::{Endpoint, EndpointState, Policy, Published},
    xds::{self, LoadTotals, Xds},
};

/// The most clients that are shown.
pub const CLIENTS_SHOWN_MAX: usize = 1_000;

/// Everything.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Every service has had a snapshot.
    pub synced: bool,
    /// By name.
    pub sources: BTreeMap<String, SourceStatus>,
    /// By key.
    pub services: Vec<ServiceStatus>,
    /// Clients with streams, up to [`CLIENTS_SHOWN_MAX`].
    pub clients: Vec<ClientView>,
    /// How many there are.
    pub clients_total: usize,
    /// What is said over xDS, and to whom; `None` where it is not served.
    pub xds: Option<XdsStatus>,
    /// Streams refused or ended, by reason; those that happened.
    pub refused: BTreeMap<&'static str, u64>,
    /// What was wrong with what clients sent, by kind; those that happened.
    pub warnings: BTreeMap<&'static str, u64>,
}

/// Clients of xDS and what they reported.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct XdsStatus {
    /// Clients with streams, up to [`CLIENTS_SHOWN_MAX`], each with what it was sent of each type
    /// and what it said to that.
    pub clients: Vec<xds::ClientView>,
    /// How many there are.
    pub clients_total: usize,
    /// Open streams, load reports among them.
    pub streams: usize,
    /// Sums of the load that clients reported.
    pub loads: LoadTotals,
}

/// A service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Which.
    pub service: ServiceKey,
    /// Of the newest snapshot; 0 before the first.
    pub version: u64,
    /// Of the newest snapshot.
    pub endpoints: Vec<EndpointStatus>,
    /// Endpoints over the limit.
    pub left_out: usize,
    /// What the configuration says.
    pub policy: Policy,
    /// Open streams.
    pub streams: usize,
    /// Streams so far.
    pub streams_total: u64,
    /// Lists that were sent.
    pub lists_sent: u64,
    /// What clients reported.
    pub client_stats: ClientTotals,
}

/// An endpoint and its token.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// What clients send with their calls to it.
    pub token: String,
}

/// A client with a stream, while it has one.
#[derive(Debug)]
pub struct ClientStatus {
    pub(crate) id: u64,
    address: Option<SocketAddr>,
    identity: Option<String>,
    name: String,
    service: ServiceKey,
    slot: u32,
    since: Instant,
    zone: OnceLock<Arc<str>>,
    version: AtomicU64,
    entries: AtomicU64,
    pub(crate) reports: AtomicU64,
}

/// A client at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ClientView {
    /// Counts streams from 1.
    pub id: u64,
    /// Where it comes from.
    pub address: Option<SocketAddr>,
    /// The names in its certificate.
    pub identity: Option<String>,
    /// What it asked for.
    pub name: String,
    /// What it got.
    pub service: ServiceKey,
    /// Its zone, where that is known.
    pub zone: Option<String>,
    /// Its number among the service's clients, which says where its list begins.
    pub slot: u32,
    /// How long its stream is open, in seconds.
    pub connected_s: f64,
    /// The version of the last list that was begun for it; 0 before the first.
    pub version: u64,
    /// Entries of that list.
    pub entries: u64,
    /// Reports that came.
    pub reports: u64,
}

impl ClientStatus {
    pub(crate) fn new(id: u64, peer: &Peer, name: &str, service: ServiceKey, slot: u32) -> Self {
        Self {
            id,
            address: peer.address,
            identity: peer.names.as_ref().map(ToString::to_string),
            name: name.to_owned(),
            service,
            slot,
            since: Instant::now(),
            zone: OnceLock::new(),
            version: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            reports: AtomicU64::new(0),
        }
    }

    pub(crate) fn found(&self, zone: &Arc<str>) {
        self.zone.get_or_init(|| zone.clone());
    }

    pub(crate) fn told(&self, version: u64, entries: usize) {
        self.version.store(version, Ordering::Relaxed);
        self.entries.store(entries as u64, Ordering::Relaxed);
    }

    /// As it is now.
    #[must_use]
    pub fn view(&self) -> ClientView {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        ClientView {
            id: self.id,
            address: self.address,
            identity: self.identity.clone(),
            name: self.name.clone(),
            service: self.service.clone(),
            zone: self.zone.get().map(ToString::to_string),
            slot: self.slot,
            connected_s: self.since.elapsed().as_secs_f64(),
            version: load(&self.version),
            entries: load(&self.entries),
            reports: load(&self.reports),
        }
    }
}

impl Status {
    /// Looks at everything.
    #[must_use]
    pub fn of(control: &Control, grpclb: &Grpclb) -> Self {
        let (clients, clients_total) = grpclb.clients(CLIENTS_SHOWN_MAX);
        let (refusals, warnings) = (&control.inner.refusals, &control.inner.warnings);
        let refused = Refusal::ALL.iter().map(|why| (why.name(), refusals.of(*why)));
        let warned = Warning::ALL.iter().map(|kind| (kind.name(), warnings.of(*kind)));
        let happened = |(_, count): &(&str, u64)| *count > 0;
        Self {
            synced: *control.synced().borrow(),
            sources: control.sources(),
            services: control.directory().services.values().map(|one| of_service(one)).collect(),
            clients: clients.iter().map(|client| client.view()).collect(),
            clients_total,
            xds: None,
            refused: refused.filter(happened).collect(),
            warnings: warned.filter(happened).collect(),
        }
    }

    /// The same with what is said over xDS.
    #[must_use]
    pub fn with_xds(self, xds: &Xds) -> Self {
        Self { xds: Some(XdsStatus::of(xds)), ..self }
    }
}

impl XdsStatus {
    fn of(xds: &Xds) -> Self {
        let (clients, clients_total) = xds.clients(CLIENTS_SHOWN_MAX);
        Self { clients, clients_total, streams: xds.streams(), loads: xds.loads() }
    }
}

fn of_service(service: &Service) -> ServiceStatus {
    let published = service.current();
    let snapshot = published.snapshot();
    let endpoints = snapshot.map_or(&[][..], |snapshot| &snapshot.endpoints);
    let with_token = |endpoint: &Endpoint| EndpointStatus {
        token: endpoint_token(endpoint.address),
        endpoint: endpoint.clone(),
    };
    ServiceStatus {
        service: service.key.clone(),
        version: snapshot.map_or(0, |snapshot| snapshot.version),
        endpoints: endpoints.iter().map(with_token).collect(),
        left_out: service.left_out(),
        policy: snapshot.map(|snapshot| Policy::clone(&snapshot.policy)).unwrap_or_default(),
        streams: service.open_streams(),
        streams_total: service.streams_total.load(Ordering::Relaxed),
        lists_sent: service.lists_sent.load(Ordering::Relaxed),
        client_stats: service.totals(),
    }
}

/// Writes the balancer's metrics, named `evenkeel_balancer_…`.
pub fn write_metrics(page: &mut Page, control: &Control, grpclb: &Grpclb) {
    of_process(page, control, grpclb);
    let services: Vec<_> = control.directory().services.values().cloned().collect();
    let services: Vec<(String, Arc<Service>)> =
        services.into_iter().map(|service| (service.key.to_string(), service)).collect();
    of_services(page, &services);
    of_reports(page, &services);
}

fn of_process(page: &mut Page, control: &Control, grpclb: &Grpclb) {
    let synced = f64::from(u8::from(*control.synced().borrow()));
    let gauge = |page: &mut Page, name, help, value| {
        page.metric(Kind::Gauge, name, help, [([], value)]);
    };
    gauge(page, "evenkeel_balancer_synced", "1 once every service has had endpoints.", synced);
    let streams = grpclb.streams() as f64;
    gauge(page, "evenkeel_balancer_open_streams", "Open BalanceLoad streams.", streams);
    let located = control.places().borrow().len() as f64;
    let help = "Addresses of clients whose zone is known.";
    gauge(page, "evenkeel_balancer_clients_located", help, located);
    let sources = control.sources();
    let good =
        sources.iter().map(|(name, s)| ([("source", &name[..])], f64::from(u8::from(s.good))));
    let help = "1 while the source says what is true now; 0: what it said last is served.";
    page.metric(Kind::Gauge, "evenkeel_balancer_source_good", help, good);
    let failures = sources.iter().map(|(name, s)| ([("source", &name[..])], s.failures as f64));
    let help = "How often a source turned bad.";
    page.metric(Kind::Counter, "evenkeel_balancer_source_failures_total", help, failures);
    let (refusals, warnings) = (&control.inner.refusals, &control.inner.warnings);
    let refused = Refusal::ALL.map(|why| ([("reason", why.name())], refusals.of(why) as f64));
    let help = "Streams that were refused, or ended because of what their client did.";
    page.metric(Kind::Counter, "evenkeel_balancer_refused_total", help, refused);
    let warned = Warning::ALL.map(|kind| ([("kind", kind.name())], warnings.of(kind) as f64));
    let help = "What was wrong with what clients sent, without ending their streams.";
    page.metric(Kind::Counter, "evenkeel_balancer_warnings_total", help, warned);
}

type Named = (String, Arc<Service>);

fn of_services(page: &mut Page, services: &[Named]) {
    let mut each = |kind, name: &str, help: &str, value: &dyn Fn(&Service) -> f64| {
        let samples = services.iter().map(|(key, one)| ([("service", &key[..])], value(one)));
        page.metric(kind, name, help, samples);
    };
    let version = |service: &Service| service.current().snapshot().map_or(0, |s| s.version) as f64;
    let help = "Version of the newest snapshot; 0: none yet.";
    each(Kind::Gauge, "evenkeel_balancer_snapshot_version", help, &version);
    let help = "Endpoints over the limit, which clients do not get.";
    let left_out = |service: &Service| service.left_out() as f64;
    each(Kind::Gauge, "evenkeel_balancer_endpoints_left_out", help, &left_out);
    let streams = |service: &Service| service.open_streams() as f64;
    each(Kind::Gauge, "evenkeel_balancer_streams", "Open streams by service.", &streams);
    let total = |service: &Service| service.streams_total.load(Ordering::Relaxed) as f64;
    each(Kind::Counter, "evenkeel_balancer_streams_total", "Streams by service.", &total);
    let lists = |service: &Service| service.lists_sent.load(Ordering::Relaxed) as f64;
    each(Kind::Counter, "evenkeel_balancer_lists_sent_total", "Lists begun to be sent.", &lists);

    let states = [
        (EndpointState::Serving, "serving"),
        (EndpointState::Draining, "draining"),
        (EndpointState::Unhealthy, "unhealthy"),
    ];
    let counts = services.iter().flat_map(|(key, service)| {
        let published = service.current();
        states.map(|(state, name)| {
            let labels = [("service", &key[..]), ("state", name)];
            (labels, endpoints_in(&published, state) as f64)
        })
    });
    let help = "Endpoints of the newest snapshot.";
    page.metric(Kind::Gauge, "evenkeel_balancer_endpoints", help, counts);
}

fn endpoints_in(published: &Published, state: EndpointState) -> usize {
    let endpoints = published.snapshot().map_or(&[][..], |snapshot| &snapshot.endpoints);
    endpoints.iter().filter(|endpoint| endpoint.state == state).count()
}

fn of_reports(page: &mut Page, services: &[Named]) {
    let totals: Vec<(&str, ClientTotals)> =
        services.iter().map(|(key, service)| (&key[..], service.totals())).collect();
    let mut each = |name: &str, help: &str, value: &dyn Fn(&ClientTotals) -> u64| {
        let samples = totals.iter().map(|(key, sums)| ([("service", *key)], value(sums) as f64));
        page.metric(Kind::Counter, name, help, samples);
    };
    each("evenkeel_balancer_client_reports_total", "Reports of clients.", &|t| t.reports);
    let help = "Calls that clients started.";
    each("evenkeel_balancer_client_calls_started_total", help, &|t| t.started);
    let help = "Calls that clients finished.";
    each("evenkeel_balancer_client_calls_finished_total", help, &|t| t.finished);
    let help = "Calls that finished without reaching a server, drops apart.";
    each("evenkeel_balancer_client_calls_failed_to_send_total", help, &|t| t.failed_to_send);
    let help = "Calls that finished and are known to have reached a server.";
    each("evenkeel_balancer_client_calls_known_received_total", help, &|t| t.known_received);
    let drops = totals.iter().flat_map(|(key, sums)| {
        let of = |(token, count): (&'_ String, &u64)| (token.clone(), *count as f64);
        sums.dropped.iter().map(of).map(move |(token, count)| (*key, token, count))
    });
    let drops: Vec<(&str, String, f64)> = drops.collect();
    let samples =
        drops.iter().map(|(key, token, count)| ([("service", *key), ("token", token)], *count));
    let help = "Calls that clients dropped, by token.";
    page.metric(Kind::Counter, "evenkeel_balancer_client_calls_dropped_total", help, samples);
}
