//! What clients of xDS report of each endpoint (LRS), put together: the calls of an endpoint are
//! those of all clients, its utilisation is what it told them with its answers. One client's report
//! alone makes no weight: it has that client's share of the calls beside the endpoint's whole
//! utilisation, and the quotient of these is small where the client calls little.
//!
//! Each client's last word counts until its next one, for [`REPORT_INTERVALS_MAX`] intervals at
//! most, and for no longer than its stream: a client that goes takes its share with it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::Load;
use crate::{control::lock, key::ServiceKey};

/// How many of its own intervals a client's report counts without another one.
pub const REPORT_INTERVALS_MAX: u32 = 3;
/// Endpoints of all clients' reports that are kept, one that two clients call twice.
pub const REPORTED_ENDPOINTS_MAX: usize = 500_000;

/// What one client says of one endpoint and one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    /// Calls a second that ended.
    pub(crate) qps: f64,
    /// Failed ones of them.
    pub(crate) eps: f64,
    /// The application's own word for what is in use.
    pub(crate) application: Metric,
    /// What is in use of its processors.
    pub(crate) cpu: Metric,
}

/// A metric, added up over the calls that had it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Metric {
    /// Calls whose answer had it.
    pub(crate) calls: f64,
    /// Its values.
    pub(crate) sum: f64,
}

impl Metric {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.sum += other.sum;
    }

    /// The mean, in which each call counts once, whichever client made it.
    fn mean(self) -> f64 {
        if self.calls > 0.0 { self.sum / self.calls } else { 0.0 }
    }
}

impl Share {
    pub(crate) fn add(&mut self, other: &Self) {
        self.qps += other.qps;
        self.eps += other.eps;
        self.application.add(other.application);
        self.cpu.add(other.cpu);
    }

    /// What the endpoint's load is, as far as this is all of its calls.
    pub(crate) fn load(&self) -> Load {
        let application = self.application.mean();
        let utilization = if application > 0.0 { application } else { self.cpu.mean() };
        Load { qps: self.qps, eps: self.eps, utilization }
    }
}

/// See the module's head; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientLoads(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    reporters: u64,
    endpoints: usize,
    services: BTreeMap<ServiceKey, OfService>,
}

#[derive(Debug, Default)]
struct OfService {
    /// Counts reports, and clients that reported and have gone.
    news: u64,
    by_reporter: BTreeMap<u64, Reported>,
}

#[derive(Debug)]
struct Reported {
    until: Instant,
    shares: BTreeMap<SocketAddr, Share>,
}

impl ClientLoads {
    /// A client's stream that may report.
    pub(crate) fn reporter(&self) -> Reporter {
        let mut known = lock(&self.0);
        known.reporters += 1;
        Reporter { loads: self.clone(), id: known.reporters }
    }

    /// What all clients together say of a service's endpoints; `None` where nobody has said
    /// anything or gone since `seen`.
    pub(crate) fn newer(
        &self,
        service: &ServiceKey,
        now: Instant,
        seen: &mut u64,
    ) -> Option<BTreeMap<SocketAddr, Load>> {
        let mut known = lock(&self.0);
        let Known { endpoints, services, .. } = &mut *known;
        let of_service = services.get_mut(service)?;
        if std::mem::replace(seen, of_service.news) == of_service.news {
            return None;
        }
        of_service.by_reporter.retain(|_, reported| {
            let counts = now < reported.until;
            *endpoints -= if counts { 0 } else { reported.shares.len() };
            counts
        });
        let mut sums: BTreeMap<SocketAddr, Share> = BTreeMap::new();
        for (address, share) in of_service.by_reporter.values().flat_map(|one| &one.shares) {
            sums.entry(*address).or_default().add(share);
        }
        Some(sums.into_iter().map(|(address, share)| (address, share.load())).collect())
    }

    /// Forgets what was reported of services that are not asked about any more.
    pub(crate) fn retain(&self, is_wanted: impl Fn(&ServiceKey) -> bool) {
        let mut known = lock(&self.0);
        let Known { endpoints, services, .. } = &mut *known;
        services.retain(|service, of_service| {
            let wanted = is_wanted(service);
            let reported = of_service.by_reporter.values().map(|one| one.shares.len());
            *endpoints -= if wanted { 0 } else { reported.sum() };
            wanted
        });
    }
}

/// One client's stream; what it reported goes with it.
#[derive(Debug)]
pub(crate) struct Reporter {
    loads: ClientLoads,
    id: u64,
}

impl Reporter {
    /// Takes what the client says of a service, in the place of what it said before. False when
    /// that is more than is kept, and some was left out.
    pub(crate) fn report(
        &self,
        service: &ServiceKey,
        now: Instant,
        interval: Duration,
        mut shares: BTreeMap<SocketAddr, Share>,
    ) -> bool {
        let mut known = lock(&self.loads.0);
        let Known { endpoints, services, .. } = &mut *known;
        let of_service = services.entry(service.clone()).or_default();
        let before = of_service.by_reporter.remove(&self.id);
        *endpoints -= before.map_or(0, |before| before.shares.len());
        let (count, room) = (shares.len(), REPORTED_ENDPOINTS_MAX - *endpoints);
        while shares.len() > room {
            shares.pop_last();
        }
        let all = shares.len() == count;
        *endpoints += shares.len();
        of_service.news += 1;
        let until = now + interval * REPORT_INTERVALS_MAX;
        of_service.by_reporter.insert(self.id, Reported { until, shares });
        all
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let mut known = lock(&self.loads.0);
        let Known { endpoints, services, .. } = &mut *known;
        for of_service in services.values_mut() {
            let Some(reported) = of_service.by_reporter.remove(&self.id) else { continue };
            *endpoints -= reported.shares.len();
            of_service.news += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(n: u16) -> SocketAddr {
        ([10, 0, 0, 1], n).into()
    }

    fn key() -> ServiceKey {
        ServiceKey::parse("greeter", "default").expect("a key")
    }

    fn share(qps: f64, calls: f64, utilization: f64) -> Share {
        let cpu = Metric { calls, sum: calls * utilization };
        Share { qps, cpu, ..Share::default() }
    }

    /// What is known now, whether it is new or not.
    fn known(loads: &ClientLoads, now: Instant) -> BTreeMap<SocketAddr, Load> {
        let mut never = u64::MAX;
        loads.newer(&key(), now, &mut never).expect("somebody has reported")
    }

    #[test]
    fn rates_add_up_and_utilisation_is_the_mean_of_all_calls() {
        let (loads, now) = (ClientLoads::default(), Instant::now());
        let (much, little) = (loads.reporter(), loads.reporter());
        much.report(&key(), now, INTERVAL, [(at(1), share(90.0, 900.0, 0.5))].into());
        let few = [(at(1), share(10.0, 100.0, 1.0)), (at(2), share(10.0, 0.0, 0.0))];
        little.report(&key(), now, INTERVAL, few.into());
        let known = known(&loads, now);
        assert_eq!(known[&at(1)], Load { qps: 100.0, eps: 0.0, utilization: 0.55 });
        assert_eq!(known[&at(1)].weight(1.0), Some(100.0 / 0.55), "as the endpoint would say it");
        assert_eq!(known[&at(2)].weight(1.0), None, "nobody knows its utilisation");
    }

    #[test]
    fn the_applications_word_is_preferred_and_errors_count() {
        let (loads, now) = (ClientLoads::default(), Instant::now());
        let reporter = loads.reporter();
        let application = Metric { calls: 10.0, sum: 8.0 };
        let said = Share { application, eps: 5.0, ..share(10.0, 10.0, 0.1) };
        reporter.report(&key(), now, INTERVAL, [(at(1), said)].into());
        let load = known(&loads, now)[&at(1)];
        assert_eq!(load, Load { qps: 10.0, eps: 5.0, utilization: 0.8 });
    }

    #[test]
    fn the_next_report_stands_in_the_place_of_the_last() {
        let (loads, now) = (ClientLoads::default(), Instant::now());
        let (reporter, mut seen) = (loads.reporter(), 0);
        assert_eq!(loads.newer(&key(), now, &mut seen), None, "nobody has said anything");
        reporter.report(&key(), now, INTERVAL, [(at(1), share(1.0, 1.0, 0.5))].into());
        assert_eq!(loads.newer(&key(), now, &mut seen).map(|all| all.len()), Some(1));
        assert_eq!(loads.newer(&key(), now, &mut seen), None, "nothing is new");
        reporter.report(&key(), now, INTERVAL, [(at(2), share(1.0, 1.0, 0.5))].into());
        let all = loads.newer(&key(), now, &mut seen).expect("it is new");
        assert_eq!(all.into_keys().collect::<Vec<_>>(), [at(2)], "it does not call at(1) any more");
    }

    #[test]
    fn a_client_that_goes_takes_its_share_and_one_that_is_silent_loses_it() {
        let (loads, now) = (ClientLoads::default(), Instant::now());
        let (stays, goes, hangs) = (loads.reporter(), loads.reporter(), loads.reporter());
        for reporter in [&stays, &goes, &hangs] {
            reporter.report(&key(), now, INTERVAL, [(at(1), share(10.0, 1.0, 0.5))].into());
        }
        let mut seen = 0;
        let mut news = || loads.newer(&key(), now, &mut seen);
        assert_eq!(news().expect("three have reported")[&at(1)].qps, 30.0);
        drop(goes);
        assert_eq!(news().expect("one has gone")[&at(1)].qps, 20.0);
        let later = now + INTERVAL * REPORT_INTERVALS_MAX;
        stays.report(&key(), later, INTERVAL, [(at(1), share(10.0, 1.0, 0.5))].into());
        assert_eq!(known(&loads, later)[&at(1)].qps, 10.0);
        assert_eq!(lock(&loads.0).endpoints, 1);
        loads.retain(|_| false);
        assert_eq!(lock(&loads.0).endpoints, 0);
        assert_eq!(loads.newer(&key(), later, &mut 0), None);
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let (loads, now) = (ClientLoads::default(), Instant::now());
        let many = |n: usize| -> BTreeMap<SocketAddr, Share> {
            let address = |n: usize| {
                let [_, a, b, c] = (n as u32).to_be_bytes();
                ([10, a, b, c], 1).into()
            };
            (0..n).map(|n| (address(n), Share::default())).collect()
        };
        let (one, two) = (loads.reporter(), loads.reporter());
        assert!(one.report(&key(), now, INTERVAL, many(REPORTED_ENDPOINTS_MAX - 1)));
        assert!(!two.report(&key(), now, INTERVAL, many(2)), "one is left out");
        assert_eq!(lock(&loads.0).endpoints, REPORTED_ENDPOINTS_MAX);
        drop(one);
        assert!(two.report(&key(), now, INTERVAL, many(2)));
        assert_eq!(lock(&loads.0).endpoints, 2);
    }
}
