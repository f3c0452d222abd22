//! The DNS resolver: `dns:[//server[:port]/]host[:port]`, and targets without a scheme.
//!
//! Not `getaddrinfo`, which hides the TTL: a resolver that does not know it either polls or, as
//! gRPC's own do, looks again only after a connection was lost, so that new pods get no calls
//! until an old one goes. This one looks again when the TTL is over.
//!
//! All channels of the process with the same name, DNS server and [`DnsOptions`] share one look-up:
//! 100 channels to one name are one question per TTL. Each hears of the answer, in the same order;
//! many channels with `pick_first` are spread by its `shuffleAddressList`.
//!
//! | module | what it knows |
//! | --- | --- |
//! | `target` | what the target says |
//! | `shared` | which channels look up together, and which of them does it |
//! | `schedule` | when to look up, what to report |
//! | `lookup` | one look-up: hosts file, search list, servers |
//! | `srv` | the same for balancers, of which only `grpclb` makes use |
//! | `txt`, `choices` | the same for service configs, and which one is taken |
//! | `balancers` | all that is known of a name, told together |
//! | `system` | /etc/hosts and /etc/resolv.conf |
//! | `query`, `transport` | one question to one server; its sockets |

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_core::{
    Endpoint, PolicyRegistry, ResolverError, ResolverFactory, ResolverSink, ResolverTask,
    ResolverUpdate, Status, Target, TargetError,
};

mod balancers;
mod choices;
mod lookup;
mod query;
mod schedule;
mod shared;
mod system;
mod target;
mod transport;

use self::{
    balancers::Beside,
    choices::{Chooser, host_name},
    lookup::{Lookup, SrvLookup, txt::TxtLookup},
    schedule::Report,
    shared::{Key, Registry, User},
    system::System,
    target::{DnsTarget, Host},
};

/// Settings of the DNS resolver. Channels of one process share the look-ups of a name when their
/// settings are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// Look for a service config in TXT records `_grpc_config.HOST` (gRFC A2) too; it goes before
    /// the channel's own (false). Whoever can write these records then chooses the policy, the
    /// retries and the deadlines of every client that wants them. The first addresses wait for it
    /// for up to 1 s.
    pub service_config: bool,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            interval_min: Duration::from_secs(1),
            interval_max: Duration::from_secs(30),
            stale_max: Duration::from_secs(300),
            timeout: Duration::from_secs(5),
            service_config: false,
        }
    }
}

impl DnsOptions {
    /// Whether a resolver can work with these values.
    ///
    /// # Errors
    ///
    /// `timeout` is zero, or `interval_min` is longer than `interval_max`: says which, and what to
    /// do.
    pub fn check(&self) -> Result<(), String> {
        let Self { interval_min, interval_max, timeout, .. } = self;
        if timeout.is_zero() {
            return Err("DnsOptions::timeout is 0, so that every look-up would fail; set it to a \
                        few seconds"
                .into());
        }
        if interval_min > interval_max {
            return Err(format!(
                "DnsOptions::interval_min ({interval_min:?}) is longer than interval_max \
                 ({interval_max:?}); lower the one or raise the other"
            ));
        }
        Ok(())
    }
}

/// Serves the scheme `dns`.
pub(crate) struct DnsResolverFactory {
    options: DnsOptions,
    seed: u64,
    /// Resolvers started so far: each gets a seed of its own.
    started: AtomicU64,
    registry: Arc<Registry>,
    balancers: Arc<Registry<SrvLookup>>,
    /// Balancers are wanted, whatever service configs say.
    balancers_wanted: bool,
    configs: Arc<Registry<TxtLookup>>,
    policies: PolicyRegistry,
}

impl DnsResolverFactory {
    /// `seed` decides the jitter of all look-ups.
    pub(crate) fn new(options: DnsOptions, seed: u64) -> Self {
        Self {
            options,
            seed,
            started: AtomicU64::new(0),
            registry: Registry::of_process(),
            balancers: Registry::of_process_for_balancers(),
            balancers_wanted: false,
            configs: Registry::of_process_for_configs(),
            policies: PolicyRegistry::default(),
        }
    }

    /// Looks up balancers as well: `grpclb` is configured.
    pub(crate) fn with_balancers(self) -> Self {
        Self { balancers_wanted: true, ..self }
    }

    /// The policies that service configs in TXT records can name.
    pub(crate) fn with_policies(self, policies: PolicyRegistry) -> Self {
        Self { policies, ..self }
    }

    fn rng(&self) -> fastrand::Rng {
        let started = self.started.fetch_add(1, Ordering::Relaxed);
        fastrand::Rng::with_seed(self.seed.wrapping_add(started))
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
        let timeout = self.options.timeout;
        let key = Key { name: name.clone(), server, options: self.options.clone() };
        let lookup = move || Lookup::new(name.clone(), server, System::new(), timeout);
        let user = self.registry.join(key.clone(), self.rng(), lookup.clone());
        if !self.balancers_wanted && !self.options.service_config {
            return Ok(Box::pin(run(user, port, sink)));
        }
        let configs = self.options.service_config.then(|| {
            let mut rng = self.rng();
            let percent = rng.u8(..100);
            let chooser = Chooser { registry: self.policies.clone(), percent, host: host_name() };
            let lookup = lookup.clone();
            let user = self.configs.join(key.clone(), rng, move || TxtLookup(lookup()));
            (user, chooser)
        });
        let (registry, rng) = (self.balancers.clone(), self.rng());
        let look_for = move || {
            let lookup = lookup.clone();
            registry.join(key.clone(), rng.clone(), move || SrvLookup(lookup()))
        };
        let balancers_wanted = self.balancers_wanted;
        let beside = Beside { balancers: Box::new(look_for), balancers_wanted, configs };
        Ok(Box::pin(balancers::run(user, beside, port, sink)))
    }
}

/// Reports to one channel until it drops this.
async fn run(mut user: User, port: u16, sink: Arc<dyn ResolverSink>) {
    loop {
        match &*user.report(&*sink).await {
            Report::Nothing => {}
            Report::Update(addresses) => {
                sink.update(ResolverUpdate::new(endpoints(addresses, port)));
            }
            Report::Error { message, expired } => {
                let status = Status::unavailable(message.clone());
                sink.error(ResolverError { status, expired: *expired });
            }
        }
    }
}

fn endpoints(addresses: &[IpAddr], port: u16) -> Vec<Endpoint> {
    addresses.iter().map(|ip| Endpoint::new(SocketAddr::new(*ip, port))).collect()
}

#[cfg(test)]
mod tests;
