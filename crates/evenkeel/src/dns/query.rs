//! One question to one DNS server, through a hickory resolver that lives as long as the question:
//! nothing is cached, and no task or connection of it is left when the answer is here or no longer
//! wanted.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    Resolver,
    config::{
        ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
    },
    lookup::Lookup,
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};

use super::{schedule::FailureKind, transport::Sockets};

/// More than fit into the largest DNS message: the limit that the format sets, by name.
const ADDRESSES_MAX: usize = 4096;

/// How a question is asked.
pub(super) struct Query {
    pub(super) server: SocketAddr,
    /// With EDNS an answer may have 1,232 bytes before it is truncated, without it 512. Servers and
    /// firewalls that know no EDNS refuse or drop the question.
    pub(super) edns: bool,
    /// Longer than the whole look-up may take, whose own time-out knows all that were silent.
    pub(super) timeout: Duration,
}

/// An answer that needs no second server.
#[derive(Debug)]
pub(super) enum Reply {
    /// The addresses (at least one) and the least TTL of the records that led to them.
    Addresses(Vec<IpAddr>, Duration),
    /// The balancers (at least one) that SRV records name, and the least TTL.
    Services(Vec<Service>, Duration),
    /// The texts of TXT records, each whole, and the least TTL.
    Texts(Vec<String>, Duration),
    /// The name has no records of this type.
    NoRecords,
    /// There is no such name.
    NoSuchName,
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) host: Name,
}

/// Why a server gave no such answer.
#[derive(Debug)]
pub(super) enum Cause {
    /// Its error code, other than NXDOMAIN.
    Code(ResponseCode),
    Silence,
    Unreachable(Option<io::Error>),
    Truncated(Option<io::Error>),
    Unreadable(String),
}

impl Query {
    /// Asks for `kind`: A, AAAA, SRV or TXT.
    pub(super) async fn send(&self, name: Name, kind: RecordType) -> Result<Reply, Cause> {
        let sockets = Sockets::default();
        let resolver = self.resolver(sockets.clone()).map_err(|e| cause(e, &sockets))?;
        match resolver.lookup(name, kind).await {
            Ok(found) => Ok(reply(&found, kind)),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Ok(Reply::NoSuchName),
                _ => Ok(Reply::NoRecords),
            },
            Err(error) => Err(cause(error, &sockets)),
        }
    }

    fn resolver(&self, sockets: Sockets) -> Result<Resolver<Sockets>, NetError> {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut c| {
            c.port = self.server.port();
            c
        });
        let server = NameServerConfig::new(self.server.ip(), true, connections.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder = Resolver::builder_with_config(config, sockets);
        let options = builder.options_mut();
        options.timeout = self.timeout;
        options.attempts = 0;
        options.edns0 = self.edns;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.num_concurrent_reqs = 1;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        builder.build()
    }
}

fn reply(found: &Lookup, kind: RecordType) -> Reply {
    let records = found.answers();
    if kind == RecordType::SRV {
        return services(records);
    }
    if kind == RecordType::TXT {
        return texts(records);
    }
    let addresses: Vec<IpAddr> = (records.iter())
        .filter(|r| r.record_type() == kind)
        .filter_map(|r| r.data.ip_addr())
        .take(ADDRESSES_MAX)
        .collect();
    let chain = records.iter().filter(|r| [kind, RecordType::CNAME].contains(&r.record_type()));
    match chain.map(|r| r.ttl).min() {
        Some(ttl_s) if !addresses.is_empty() => {
            Reply::Addresses(addresses, Duration::from_secs(ttl_s.into()))
        }
        _ => Reply::NoRecords,
    }
}

fn services(records: &[Record]) -> Reply {
    let services = records.iter().filter_map(|record| match &record.data {
        // A host that is the root says that there is no such service.
        RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => Some(Service {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            host: srv.target.clone(),
        }),
        _ => None,
    });
    let services: Vec<_> = services.take(ADDRESSES_MAX).collect();
    let chain = [RecordType::SRV, RecordType::CNAME];
    let ttl = records.iter().filter(|r| chain.contains(&r.record_type())).map(|r| r.ttl).min();
    match ttl {
        Some(ttl_s) if !services.is_empty() => {
            Reply::Services(services, Duration::from_secs(ttl_s.into()))
        }
        _ => Reply::NoRecords,
    }
}

fn texts(records: &[Record]) -> Reply {
    let texts = records.iter().filter_map(|record| match &record.data {
        RData::TXT(txt) => String::from_utf8(txt.txt_data.concat()).ok(),
        _ => None,
    });
    let texts: Vec<_> = texts.take(ADDRESSES_MAX).collect();
    let chain = [RecordType::TXT, RecordType::CNAME];
    let ttl = records.iter().filter(|r| chain.contains(&r.record_type())).map(|r| r.ttl).min();
    match ttl {
        Some(ttl_s) if !texts.is_empty() => Reply::Texts(texts, Duration::from_secs(ttl_s.into())),
        _ => Reply::NoRecords,
    }
}

fn cause(error: NetError, sockets: &Sockets) -> Cause {
    match error {
        NetError::Dns(DnsError::ResponseCode(code)) => Cause::Code(code),
        NetError::Timeout => Cause::Silence,
        NetError::Truncated => Cause::Truncated(sockets.take_error()),
        NetError::Io(_) | NetError::NoConnections => Cause::Unreachable(sockets.take_error()),
        other => Cause::Unreadable(other.to_string()),
    }
}

impl Cause {
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            Self::Code(code) => FailureKind::Code((*code).into()),
            Self::Silence => FailureKind::Silence,
            Self::Unreachable(_) => FailureKind::Unreachable,
            Self::Truncated(_) => FailureKind::Truncated,
            Self::Unreadable(_) => FailureKind::Unreadable,
        }
    }
}

/// Follows "DNS server ADDRESS".
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(ResponseCode::Refused) => {
                f.write_str("answered REFUSED: check that it serves this zone to this client")
            }
            Self::Code(code) => {
                // The variants are the mnemonics of RFC 6895 but for their case.
                let mnemonic = format!("{code:?}").to_uppercase();
                write!(f, "answered {mnemonic} ({code}): see that server's log")
            }
            Self::Silence => f.write_str("did not answer in time: check that UDP and TCP reach it"),
            Self::Unreachable(Some(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                f.write_str("is not there (connection refused): check its address and port")
            }
            Self::Unreachable(error) => {
                write!(f, "can't be reached{}: check the network", in_brackets(error))
            }
            Self::Truncated(error) => write!(
                f,
                "sent a truncated answer over UDP and none over TCP{}: let TCP through to it",
                in_brackets(error)
            ),
            Self::Unreadable(reason) => {
                write!(f, "sent something unreadable ({reason}): check that it speaks DNS")
            }
        }
    }
}

fn in_brackets(error: &Option<io::Error>) -> String {
    error.as_ref().map(|e| format!(" ({e})")).unwrap_or_default()
}
