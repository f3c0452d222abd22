//! The DNS resolver: `dns:[//server[:port]/]host[:port]`, and targets without a scheme.
//!
//! Not `getaddrinfo`, which hides the TTL: a resolver that does not know it either polls or, as
//! gRPC's own do, looks again only after a connection was lost, so that new pods get no calls
//! until an old one goes. This one looks again when the TTL is over.
//!
//! | module | what it knows |
//! | --- | --- |
//! | `target` | what the target says |
//! | `schedule` | when to look up, what to report |
//! | `lookup` | one look-up: hosts file, search list, servers |
//! | `system` | /etc/hosts and /etc/resolv.conf |
//! | `query`, `transport` | one question to one server; its sockets |

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_core::{
    Endpoint, Nanos, ResolverError, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate,
    Status, Target, TargetError,
};
use tokio::time::{Instant, sleep};

mod lookup;
mod query;
mod schedule;
mod system;
mod target;
mod transport;

use self::{
    lookup::Lookup,
    schedule::{Report, Schedule, Step},
    system::System,
    target::{DnsTarget, Host},
};

/// Settings of the DNS resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsOptions {
    /// The least time between two look-ups of a name, also after a failure (1 s). A name with TTL 0
    /// is looked up this often. Less than 10 ms counts as 10 ms.
    pub interval_min: Duration,
    /// The longest time between two look-ups, whatever the TTL says (30 s). Up to 0.5 s of jitter
    /// come on top, and up to 20 % after failures.
    pub interval_max: Duration,
    /// How long the last good list stays trusted while look-ups fail, counted from when it came
    /// (5 min).
    pub stale_max: Duration,
    /// One look-up, over all names, servers and attempts, fails after this time (5 s).
    pub timeout: Duration,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            interval_min: Duration::from_secs(1),
            interval_max: Duration::from_secs(30),
            stale_max: Duration::from_secs(300),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Serves the scheme `dns`.
pub(crate) struct DnsResolverFactory {
    options: DnsOptions,
    seed: u64,
    /// Resolvers started so far: each gets a seed of its own.
    started: AtomicU64,
}

impl DnsResolverFactory {
    /// `seed` decides the jitter of all look-ups.
    pub(crate) fn new(options: DnsOptions, seed: u64) -> Self {
        Self { options, seed, started: AtomicU64::new(0) }
    }
}

impl ResolverFactory for DnsResolverFactory {
    fn schemes(&self) -> &[&str] {
        &["dns"]
    }

    fn default_authority(&self, target: &Target) -> Result<String, TargetError> {
        Ok(DnsTarget::read(target)?.authority)
    }

    fn start(
        &self,
        target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        let DnsTarget { host, server, .. } = DnsTarget::read(target)?;
        let (name, port) = match host {
            Host::Address(address) => {
                return Ok(Box::pin(async move {
                    sink.update(ResolverUpdate::new(vec![Endpoint::new(address)]));
                    std::future::pending().await
                }));
            }
            Host::Name(name, port) => (name, port),
        };
        let lookup = Lookup::new(name, server, System::new(), self.options.timeout);
        let started = self.started.fetch_add(1, Ordering::Relaxed);
        let rng = fastrand::Rng::with_seed(self.seed.wrapping_add(started));
        let worker = Worker { target: target.to_string(), port, lookup, rng, sink };
        Ok(Box::pin(worker.run(self.options.clone())))
    }
}

/// One name, looked up until the channel drops it.
struct Worker {
    target: String,
    port: u16,
    lookup: Lookup,
    rng: fastrand::Rng,
    sink: Arc<dyn ResolverSink>,
}

impl Worker {
    async fn run(mut self, options: DnsOptions) {
        let epoch = Instant::now();
        let now = || Nanos::try_from(epoch.elapsed().as_nanos()).unwrap_or(Nanos::MAX);
        let mut schedule = Schedule::new(&options, now());
        loop {
            match schedule.next(now()) {
                Step::LookUp => {
                    let outcome = self.lookup.run().await;
                    let before = schedule.failure().map(|f| f.kind);
                    let report = schedule.finished(now(), outcome, self.rng.f64());
                    if schedule.failure().map(|f| f.kind) != before {
                        self.log(&schedule);
                    }
                    self.report(report);
                }
                Step::Report(report) => self.report(report),
                Step::Wait { until, listen } => {
                    let wait = Duration::from_nanos(until.saturating_sub(now()));
                    let requested = poll_fn(|cx| self.sink.poll_requested(cx));
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = requested, if listen => schedule.requested(now()),
                    }
                }
            }
        }
    }

    fn report(&self, report: Report) {
        match report {
            Report::Nothing => {}
            Report::Update(addresses) => {
                let endpoint = |ip| Endpoint::new(std::net::SocketAddr::new(ip, self.port));
                let endpoints = addresses.into_iter().map(endpoint).collect();
                self.sink.update(ResolverUpdate::new(endpoints));
            }
            Report::Error { message, expired } => {
                self.sink.error(ResolverError { status: Status::unavailable(message), expired });
            }
        }
    }

    /// Called when look-ups begin or cease to fail, or fail in another way.
    fn log(&self, schedule: &Schedule) {
        let target = &self.target;
        match schedule.failure() {
            Some(failure) => tracing::warn!(target_name = %target, "{}", failure.message),
            None => tracing::info!(target_name = %target, "DNS look-ups work again"),
        }
    }
}

#[cfg(test)]
mod tests;
