//! Where a name's balancers are: SRV records `_grpclb._tcp.HOST`, then the addresses of the hosts
//! in them. It is a look-up of its own beside that of the name, with its own TTL, so that whatever
//! it takes or lacks, the name's addresses don't wait for it.

use std::{net::SocketAddr, sync::Arc};

use evenkeel_core::BALANCERS_MAX;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::timeout;

use super::{
    super::query::Service, Answer, Failure, FailureKind, LookUp, Lookup, Reply, Servers, join,
};

/// The hosts of SRV records that are looked up; more are ignored.
const HOSTS_MAX: usize = 16;

/// One address of a balancer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct FoundBalancer {
    /// Lower ones are tried first.
    priority: u16,
    pub(in super::super) address: SocketAddr,
    /// The host of its record, without the last dot.
    pub(in super::super) name: Arc<str>,
}

/// Looks up the balancers of a name.
pub(in super::super) struct SrvLookup(pub(in super::super) Lookup);

impl LookUp for SrvLookup {
    type Found = FoundBalancer;

    async fn run(&mut self) -> Result<Answer<FoundBalancer>, Failure> {
        self.0.open = None;
        match timeout(self.0.timeout, self.0.balancers()).await {
            Ok(result) => result,
            Err(_) => Err(self.0.timed_out()),
        }
    }
}

impl Lookup {
    async fn balancers(&mut self) -> Result<Answer<FoundBalancer>, Failure> {
        let servers = self.servers().await?;
        let mut names = servers.names(&self.name);
        if let Some(at) = names.iter().position(|n| Some(n) == self.found.as_ref()) {
            names[..=at].rotate_right(1);
        }
        let mut asked = Vec::new();
        for name in &names {
            let Some(record) = record_of(name) else { continue };
            if let Reply::Services(services, ttl) =
                self.ask(&servers, &record, RecordType::SRV).await?
            {
                self.found = Some(name.clone());
                return self.hosts(&servers, services, ttl).await;
            }
            if self.found.as_ref() == Some(name) {
                self.found = None;
            }
            asked.push(record);
        }
        let message = format!(
            "no balancers for {}: there are no SRV records for {}; calls go to its own addresses",
            self.name,
            join(&asked, " or ")
        );
        Err(Failure { kind: FailureKind::NoRecords, message })
    }

    /// The addresses of the records' hosts, in the order in which they are to be tried. A host
    /// without any is left out.
    async fn hosts(
        &mut self,
        servers: &Servers,
        mut services: Vec<Service>,
        mut ttl: std::time::Duration,
    ) -> Result<Answer<FoundBalancer>, Failure> {
        order(&mut services);
        services.truncate(HOSTS_MAX);
        let patience = self.timeout / (services.len() as u32 + 1);
        let mut addresses: Vec<FoundBalancer> = Vec::new();
        let mut failure = None;
        for Service { priority, port, host, .. } in services {
            let mut absolute = host.clone();
            absolute.set_fqdn(true);
            let resolved = timeout(patience, self.host(servers, &absolute)).await;
            let (found, host_ttl) = match resolved {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    failure = Some(error);
                    continue;
                }
                Err(_) => {
                    failure = Some(self.timed_out());
                    continue;
                }
            };
            ttl = ttl.min(host_ttl);
            let name: Arc<str> = host.to_ascii().trim_end_matches('.').into();
            let balancer = |ip| {
                let (address, name) = (SocketAddr::new(ip, port), name.clone());
                FoundBalancer { priority, address, name }
            };
            for balancer in found.into_iter().map(balancer) {
                if addresses.len() < BALANCERS_MAX && !addresses.contains(&balancer) {
                    addresses.push(balancer);
                }
            }
        }
        match (addresses.is_empty(), failure) {
            (false, _) => Ok(Answer { addresses, ttl }),
            (true, Some(failure)) => Err(failure),
            (true, None) => {
                let message =
                    format!("no balancers for {}: their hosts have no address", self.name);
                Err(Failure { kind: FailureKind::NoRecords, message })
            }
        }
    }

    async fn host(
        &mut self,
        servers: &Servers,
        host: &Name,
    ) -> Result<(Vec<std::net::IpAddr>, std::time::Duration), Failure> {
        for kind in [RecordType::A, RecordType::AAAA] {
            if let Reply::Addresses(addresses, ttl) = self.ask(servers, host, kind).await? {
                return Ok((addresses, ttl));
            }
        }
        let message = format!("the balancer {host} has no A or AAAA records");
        Err(Failure { kind: FailureKind::NoRecords, message })
    }
}

/// The name of the SRV records; none when it would be too long.
fn record_of(name: &Name) -> Option<Name> {
    let prefix = Name::from_ascii("_grpclb._tcp").expect("two labels are a name");
    prefix.append_domain(name).ok()
}

/// RFC 2782: lower priorities first; among equal ones each is the next with a probability that is
/// proportional to its weight, so that clients don't all go to one balancer.
fn order(services: &mut [Service]) {
    services.sort_by_key(|service| (service.priority, service.weight));
    for at in 0..services.len() {
        let rest = &mut services[at..];
        let same = rest.iter().take_while(|s| s.priority == rest[0].priority).count();
        let total: u64 = rest[..same].iter().map(|s| u64::from(s.weight)).sum();
        let mut left = fastrand::u64(0..=total);
        let chosen = rest[..same].iter().position(|s| {
            let weight = u64::from(s.weight);
            let here = left <= weight;
            left = left.saturating_sub(weight);
            here
        });
        rest[..=chosen.unwrap_or(0)].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, host: &str) -> Service {
        Service { priority, weight, port: 1, host: Name::from_ascii(host).unwrap() }
    }

    #[test]
    fn priorities_come_first_and_weights_are_shares() {
        let mut first = [0, 0];
        for _ in 0..4_000 {
            let mut all =
                [service(2, 9, "c"), service(1, 30, "a"), service(1, 10, "b"), service(0, 0, "z")];
            order(&mut all);
            assert_eq!((all[0].priority, all[3].priority), (0, 2));
            first[usize::from(all[1].weight == 10)] += 1;
        }
        // 3 : 1, give or take what RFC 2782 makes of the zero.
        assert!((2_700..3_300).contains(&first[0]), "{first:?}");
    }

    #[test]
    fn the_records_name_is_that_of_grpclb() {
        let name = Name::from_ascii("greeter.test.").unwrap();
        assert_eq!(record_of(&name).unwrap().to_string(), "_grpclb._tcp.greeter.test.");
        let long = Name::from_ascii(format!("{}test.", "abcdefghi.".repeat(24))).unwrap();
        assert_eq!(record_of(&long), None);
    }
}
