//! One look-up of a name: hosts file, search list, A then AAAA, over the DNS servers.
//!
//! hickory-resolver asks the questions (ids, retransmission, TCP after truncation, CNAME chains),
//! one server at a time. Its own loops over servers and suffixes are not used: a server that
//! answers SERVFAIL first ends its look-up although the next server knows, it goes on to the next
//! suffix after a time-out, and it does not say which server said what.

#[path = "srv.rs"]
pub(super) mod srv;

use std::{
    collections::HashSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::{sleep, timeout};

use super::{
    query::{Cause, Query, Reply},
    schedule::{Answer, Failure, FailureKind, LookUp},
    system::{Servers, System},
};

/// A server that is silent for this long gets company: the next one is asked as well.
const STAGGER_MAX: Duration = Duration::from_secs(1);
/// Each server that fails is asked once with EDNS and once without before the look-up fails.
const ROUNDS: usize = 2;
/// Silent servers are asked again until the time is over, but all in all this often (each time with
/// hickory's own retransmissions).
const SENT_MAX: usize = 16;

pub(super) use srv::SrvLookup;

/// Looks one name up, again and again, and remembers what worked.
pub(super) struct Lookup {
    name: Name,
    /// Asked instead of the system's servers.
    server: Option<SocketAddr>,
    system: System,
    timeout: Duration,
    /// The completed name that had an address last: while it has one, a look-up with a search list
    /// is one question and not one for each suffix before it.
    found: Option<Name>,
    /// The server that answered last: the first one to ask.
    alive: Option<SocketAddr>,
    open: Option<Question>,
}

/// What is being asked, kept for the message when time runs out.
struct Question {
    name: Name,
    kind: RecordType,
    servers: Vec<SocketAddr>,
    /// What the servers said so far, without those that are silent.
    causes: Vec<(SocketAddr, Cause)>,
}

impl Lookup {
    pub(super) fn new(
        name: Name,
        server: Option<SocketAddr>,
        system: System,
        timeout: Duration,
    ) -> Self {
        Self { name, server, system, timeout, found: None, alive: None, open: None }
    }

    async fn resolve(&mut self) -> Result<Answer, Failure> {
        if self.server.is_none()
            && let Some(addresses) = self.local().await
        {
            // The file is read again after the longest interval.
            return Ok(Answer { addresses, ttl: Duration::MAX });
        }
        let servers = self.servers().await?;
        let mut names = servers.names(&self.name);
        if let Some(at) = names.iter().position(|n| Some(n) == self.found.as_ref()) {
            names[..=at].rotate_right(1);
        }
        let mut empty = false;
        for name in &names {
            // Without such a name there is no record of any type (RFC 8020), and after a server's
            // failure AAAA must not stand in for A: pods would change their family for a moment.
            let mut reply = self.ask(&servers, name, RecordType::A).await?;
            if matches!(reply, Reply::NoRecords) {
                reply = self.ask(&servers, name, RecordType::AAAA).await?;
            }
            match reply {
                Reply::Addresses(addresses, ttl) => {
                    self.found = Some(name.clone());
                    return Ok(Answer { addresses: distinct(addresses), ttl });
                }
                Reply::NoRecords | Reply::Services(..) => empty = true,
                Reply::NoSuchName => {}
            }
            // A server's failure above says nothing of the name; this does, and without a name that
            // works the order is again the one that the search list gives.
            if self.found.as_ref() == Some(name) {
                self.found = None;
            }
        }
        Err(self.absent(&names, &servers.addresses, empty))
    }

    /// Whom to ask.
    async fn servers(&mut self) -> Result<Servers, Failure> {
        if let Some(server) = self.server {
            return Ok(Servers::only(server));
        }
        self.system.servers().await.map_err(|reason| Failure {
            kind: FailureKind::NoServer,
            message: format!("cannot resolve {}: {reason}", self.name),
        })
    }

    /// The addresses that need no DNS: entries of the hosts file, and loopback for `localhost`
    /// (RFC 6761).
    async fn local(&mut self) -> Option<Vec<IpAddr>> {
        let entries = self.system.hosts(&self.name).await;
        if !entries.is_empty() {
            return Some(distinct(entries));
        }
        self.name.is_localhost().then(|| vec![Ipv4Addr::LOCALHOST.into()])
    }

    /// Asks one question until a server says yes or no; one that fails is followed by the next at
    /// once, one that is silent after a while.
    async fn ask(
        &mut self,
        servers: &Servers,
        name: &Name,
        kind: RecordType,
    ) -> Result<Reply, Failure> {
        let mut order = servers.addresses.clone();
        if let Some(at) = order.iter().position(|s| Some(*s) == self.alive) {
            order[..=at].rotate_right(1);
        }
        let hasty = order.len() * ROUNDS;
        let count = u32::try_from(hasty).expect("servers are few");
        let stagger = (self.timeout / (count + 1)).min(STAGGER_MAX);
        let question =
            Question { name: name.clone(), kind, servers: order.clone(), causes: Vec::new() };
        let question = self.open.insert(question);
        let mut running = FuturesUnordered::new();
        let mut sent = 0;
        let mut another = true;
        loop {
            if another {
                let server = order[sent % order.len()];
                let edns = (sent / order.len()).is_multiple_of(2);
                let query = Query { server, edns, timeout: self.timeout.saturating_mul(2) };
                let name = name.clone();
                running.push(async move { (server, query.send(name, kind).await) });
                sent += 1;
            } else if running.is_empty() {
                return Err(question.failed(&self.name));
            }
            another = tokio::select! {
                Some((server, result)) = running.next() => match result {
                    Ok(reply) => {
                        self.alive = Some(server);
                        return Ok(reply);
                    }
                    Err(cause) => {
                        question.causes.retain(|(s, _)| *s != server);
                        question.causes.push((server, cause));
                        sent < hasty
                    }
                },
                () = sleep(stagger) => sent < SENT_MAX,
            };
        }
    }

    fn timed_out(&self) -> Failure {
        let Some(question) = &self.open else {
            let message = format!("cannot resolve {}: reading files took too long", self.name);
            return Failure { kind: FailureKind::Silence, message };
        };
        let mut failure = question.failed(&self.name);
        let silent: Vec<String> = (question.servers.iter())
            .filter(|server| !question.causes.iter().any(|(s, _)| s == *server))
            .map(ToString::to_string)
            .collect();
        // With every server heard, the time went into repetitions: what they said is the reason.
        if !silent.is_empty() {
            failure.kind = FailureKind::Silence;
            let _ = write!(
                failure.message,
                "; no answer within {} s from DNS server {}: check the address, and that UDP and \
                 TCP reach it",
                self.timeout.as_secs_f64(),
                silent.join(", ")
            );
        }
        failure
    }

    fn absent(&self, names: &[Name], servers: &[SocketAddr], empty: bool) -> Failure {
        let asked = join(names, " and ");
        let by = match self.alive {
            Some(server) => server.to_string(),
            None => join(servers, ", "),
        };
        let (kind, message) = if empty {
            (
                FailureKind::NoRecords,
                format!(
                    "cannot resolve {}: DNS server {by} has no A or AAAA records for {asked}; \
                     check that the Service is headless and that its pods are ready",
                    self.name
                ),
            )
        } else {
            (
                FailureKind::NoSuchName,
                format!(
                    "cannot resolve {}: DNS server {by} answered NXDOMAIN (no such name) for \
                     {asked}; check the spelling and the namespace, and that the Service exists",
                    self.name
                ),
            )
        };
        Failure { kind, message }
    }
}

impl LookUp for Lookup {
    type Found = IpAddr;

    async fn run(&mut self) -> Result<Answer, Failure> {
        self.open = None;
        match timeout(self.timeout, self.resolve()).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out()),
        }
    }
}

impl Question {
    /// The failure of a question to which no server said yes or no.
    fn failed(&self, wanted: &Name) -> Failure {
        let kind = self.causes.last().map_or(FailureKind::Silence, |(_, cause)| cause.kind());
        let mut message = format!("cannot resolve {wanted}: asked for {} {}", self.kind, self.name);
        for (server, cause) in &self.causes {
            let _ = write!(message, "; DNS server {server} {cause}");
        }
        Failure { kind, message }
    }
}

fn join<T: ToString>(items: &[T], by: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(by)
}

/// Each address once, in the order of their first appearance.
fn distinct(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = HashSet::with_capacity(addresses.len());
    addresses.retain(|a| seen.insert(*a));
    addresses
}
