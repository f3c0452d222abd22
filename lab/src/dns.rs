//! The cluster's DNS, played by an authoritative hickory server for `svc.cluster.local`.
//!
//! It answers as CoreDNS does for a headless Service: one A record per ready pod, TTL 5 s
//! (the `kubernetes` plugin's default), NOERROR without data for AAAA of an IPv4 Service, and
//! NXDOMAIN when no pod is ready (kubernetes/dns#245). It also notes when each question came, so
//! that a timeline can tell a wait for the TTL from a wait for the answer.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hickory_server::{
    Server,
    net::runtime::{Time, TokioRuntimeProvider},
    proto::{
        op::{Header, HeaderCounts, MessageType, Metadata},
        rr::{
            LowerName, Name, RData, RecordSet, RecordType, RrKey,
            rdata::{A, SOA, SRV},
        },
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};

use crate::{clock::unix_s, error::LabError};

#[cfg(test)]
mod tests;

/// The Service that every client of the lab asks for.
pub(crate) const SERVICE: &str = "greeter.default.svc.cluster.local";
/// The TTL of every answer, in seconds: CoreDNS's default.
pub(crate) const TTL_S: u32 = 5;

const ZONE: &str = "svc.cluster.local.";
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_RESPONSE_BUFFER: usize = 16;
/// Enough for minutes of lookups each second; later questions are answered but not noted.
const QUESTIONS_MAX: usize = 10_000;
const PORT_TRIES_MAX: usize = 16;

type Zone = InMemoryZoneHandler<TokioRuntimeProvider>;

/// A running DNS server; dropping it closes its sockets.
pub(crate) struct Dns {
    address: SocketAddrV4,
    zone: Arc<Zone>,
    name: Name,
    questions: Arc<Questions>,
    is_silent: Arc<AtomicBool>,
    _server: Server<Noting>,
}

impl Dns {
    /// Serves the zone on a free port of `ip`, over UDP and TCP, with no record yet.
    ///
    /// # Errors
    ///
    /// When no port is free for both, or `ip` can't be used.
    pub(crate) async fn start(ip: Ipv4Addr) -> Result<Self, LabError> {
        let (udp, tcp, address) =
            bind(ip).await.map_err(LabError::io(format!("DNS server on {ip}")))?;
        let origin = Name::from_ascii(ZONE).expect("a constant name is valid");
        let name = Name::from_ascii(format!("{SERVICE}.")).expect("a constant name is valid");
        let zone = Arc::new(Zone::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny));
        let soa = soa_of(&origin);
        zone.records_mut().await.insert(key(&origin, RecordType::SOA), Arc::new(soa));
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::from(&origin), vec![Arc::clone(&zone) as _]);
        let questions = Arc::new(Questions::new());
        let is_silent = Arc::default();
        let noting = Noting { catalog, service: LowerName::from(&name), questions, is_silent };
        let (questions, is_silent) = (noting.questions.clone(), noting.is_silent.clone());
        let mut server = Server::new(noting);
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_RESPONSE_BUFFER);
        Ok(Self { address, zone, name, questions, is_silent, _server: server })
    }

    /// The address of the server.
    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// From now on no question is answered, or each again.
    pub(crate) fn silence(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Replaces the A records of the Service; an empty list makes the name NXDOMAIN. Returns when
    /// the change was made.
    pub(crate) async fn publish(&self, addresses: &[Ipv4Addr]) -> f64 {
        let mut records = self.zone.records_mut().await;
        let key = key(&self.name, RecordType::A);
        if addresses.is_empty() {
            records.remove(&key);
        } else {
            let mut set = RecordSet::with_ttl(self.name.clone(), RecordType::A, TTL_S);
            for address in addresses {
                set.add_rdata(RData::A(A(*address)));
            }
            records.insert(key, Arc::new(set));
        }
        unix_s()
    }

    /// Publishes balancers for the Service: SRV records `_grpclb._tcp` with a name of its own for
    /// each address, as a headless Service with a port named `grpclb` has them for its pods.
    pub(crate) async fn publish_balancers(&self, addresses: &[SocketAddrV4]) {
        let name = |text: String| Name::from_ascii(text).expect("made of constants and a number");
        let asked = name(format!("_grpclb._tcp.{SERVICE}."));
        let mut services = RecordSet::with_ttl(asked.clone(), RecordType::SRV, TTL_S);
        let mut records = self.zone.records_mut().await;
        for (number, address) in (1..).zip(addresses) {
            let host = name(format!("grpclb-{number}.grpclb.default.{ZONE}"));
            services.add_rdata(RData::SRV(SRV::new(0, 100, address.port(), host.clone())));
            let mut set = RecordSet::with_ttl(host.clone(), RecordType::A, TTL_S);
            set.add_rdata(RData::A(A(*address.ip())));
            records.insert(key(&host, RecordType::A), Arc::new(set));
        }
        records.insert(key(&asked, RecordType::SRV), Arc::new(services));
    }

    /// Waits at most `limit` for the next A question for the Service and returns when it came.
    pub(crate) async fn next_question(&self, limit: Duration) -> Option<f64> {
        let mut asked = self.questions.last.subscribe();
        tokio::time::timeout(limit, asked.changed()).await.ok()?.ok()?;
        Some(*asked.borrow())
    }

    /// When the last A question for the Service before `unix_s` came.
    pub(crate) fn last_question_before(&self, unix_s: f64) -> Option<f64> {
        let noted = self.questions.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.iter().copied().rfind(|at| *at < unix_s)
    }

    /// When the first A question for the Service at or after `unix_s` came.
    pub(crate) fn first_question_since(&self, unix_s: f64) -> Option<f64> {
        let noted = self.questions.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.iter().copied().find(|at| *at >= unix_s)
    }
}

async fn bind(ip: Ipv4Addr) -> std::io::Result<(UdpSocket, TcpListener, SocketAddrV4)> {
    let mut last = std::io::Error::other("nothing tried");
    for _ in 0..PORT_TRIES_MAX {
        let udp = UdpSocket::bind((ip, 0)).await?;
        let port = udp.local_addr()?.port();
        match TcpListener::bind((ip, port)).await {
            Ok(tcp) => return Ok((udp, tcp, SocketAddrV4::new(ip, port))),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn key(name: &Name, record_type: RecordType) -> RrKey {
    RrKey::new(LowerName::from(name), record_type)
}

/// The start of authority; its last number bounds how long a negative answer may be cached.
fn soa_of(origin: &Name) -> RecordSet {
    let server = Name::from_ascii("ns.dns.cluster.local.").expect("a constant name is valid");
    let mail = Name::from_ascii("hostmaster.cluster.local.").expect("a constant name is valid");
    let mut set = RecordSet::with_ttl(origin.clone(), RecordType::SOA, TTL_S);
    set.add_rdata(RData::SOA(SOA::new(server, mail, 1, 7200, 1800, 86400, TTL_S)));
    set
}

/// When the Service's A records were asked for.
struct Questions {
    noted: Mutex<Vec<f64>>,
    last: watch::Sender<f64>,
}

impl Questions {
    fn new() -> Self {
        Self { noted: Mutex::new(Vec::new()), last: watch::Sender::new(0.0) }
    }

    fn note(&self, unix_s: f64) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < QUESTIONS_MAX {
            noted.push(unix_s);
        }
        drop(noted);
        self.last.send_replace(unix_s);
    }
}

/// The catalog with a note of each question, taken after the answer was made: a record that is
/// changed on seeing the note is surely not in that answer.
struct Noting {
    catalog: Catalog,
    service: LowerName,
    questions: Arc<Questions>,
    is_silent: Arc<AtomicBool>,
}

impl RequestHandler for Noting {
    // The trait is declared with `async_trait`; this is the signature that it expands to.
    fn handle_request<'life0, 'life1, 'async_trait, R, T>(
        &'life0 self,
        request: &'life1 Request,
        response_handle: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        R: ResponseHandler + 'async_trait,
        T: Time + 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let came = unix_s();
            if self.is_silent.load(Ordering::Relaxed) {
                return unanswered(request);
            }
            let info = self.catalog.handle_request::<R, T>(request, response_handle).await;
            if let Ok(asked) = request.request_info()
                && asked.query.query_type() == RecordType::A
                && asked.query.name() == &self.service
            {
                self.questions.note(came);
            }
            info
        })
    }
}

/// What the server's log has of a question that got no answer.
fn unanswered(request: &Request) -> ResponseInfo {
    let Metadata { id, op_code, .. } = request.metadata;
    let metadata = Metadata::new(id, MessageType::Response, op_code);
    ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
}

/// The target that makes a client ask this server for the Service.
pub(crate) fn target(server: SocketAddr, port: u16) -> String {
    format!("dns://{server}/{SERVICE}:{port}")
}
