//! Everything that can be set on a channel, with the defaults that a production client wants.

mod check;

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    Balancer, PolicyFactory, PolicyRegistry, ResolverFactory, ServiceConfig, Target, TargetError,
    observe::{self, Recorder},
};
use http::{
    HeaderValue,
    uri::{Authority, Scheme},
};
use tokio::runtime::Handle;

use crate::{
    Channel,
    call::CallConfig,
    channel::Defaults,
    connector::{Connector, Secure, SocketConnector},
    dns::{DnsOptions, DnsResolverFactory},
    driver::{DriverOptions, HealthOptions},
    layers::{AttemptLayer, CallLayer},
    literal::LiteralResolverFactory,
    meter::CallMeter,
    transport::TransportOptions,
    unix::UnixResolverFactory,
};

/// The least [`Keepalive::time`] without [`ChannelBuilder::allow_aggressive_keepalive`] (gRFC A8):
/// servers answer faster pings with GOAWAY.
pub const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);
/// Without keepalive, unacknowledged data ends a TCP connection after this time (gRFC A18).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// The default of [`ChannelBuilder::idle_timeout`].
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// The shortest [`ChannelBuilder::idle_timeout`].
pub const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The default of [`ChannelBuilder::connect_timeout`].
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Keepalive pings (gRFC A8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// A ping is sent after this time without anything received. At least 10 s unless
    /// [`ChannelBuilder::allow_aggressive_keepalive`] is set.
    pub time: Duration,
    /// The connection is closed when nothing comes back within this time after the ping.
    pub timeout: Duration,
    /// Ping also while no call is open.
    pub permit_without_calls: bool,
}

/// Backoff between connection attempts
/// (<https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Wait after the first failure.
    pub initial: Duration,
    /// Factor from one wait to the next, ≥ 1.
    pub multiplier: f64,
    /// Each wait is drawn from ± this fraction, 0 to 1.
    pub jitter: f64,
    /// The longest wait before jitter.
    pub max: Duration,
}

impl Default for Backoff {
    /// gRPC's numbers: 1 s × 1.6 ± 20 % up to 120 s.
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            multiplier: 1.6,
            jitter: 0.2,
            max: Duration::from_secs(120),
        }
    }
}

/// Why a channel could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The target can't be read, or no resolver serves it.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The service config names no policy that is known, or has a bad value.
    #[error("service config: {0}")]
    ServiceConfig(String),
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(String),
    /// No tokio runtime is current and none was given.
    #[error(
        "no tokio runtime is running here; build the channel inside one, or give a handle with \
         ChannelBuilder::runtime"
    )]
    NoRuntime,
    /// TLS can't be used as it was asked for.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Makes what secures connections, for the authority of the channel's calls.
pub(crate) type MakeSecure =
    Box<dyn Fn(&Authority) -> Result<Arc<dyn Secure>, BuildError> + Send + Sync>;

/// Configures and builds a [`Channel`].
pub struct ChannelBuilder {
    target: String,
    service_config: Option<String>,
    lb_policy: Option<String>,
    keepalive: Option<Keepalive>,
    allow_aggressive_keepalive: bool,
    connect_timeout: Duration,
    backoff: Backoff,
    authority: Option<String>,
    user_agent: Option<String>,
    wait_for_ready: bool,
    waiting_calls_max: usize,
    call_layers: Vec<Arc<dyn CallLayer>>,
    attempt_layers: Vec<Arc<dyn AttemptLayer>>,
    meter: Option<Arc<dyn CallMeter>>,
    resolvers: Vec<Arc<dyn ResolverFactory>>,
    policies: PolicyRegistry,
    balancers: Vec<Balancer>,
    dns: DnsOptions,
    /// Of the feature `kubernetes`.
    #[cfg(feature = "kubernetes")]
    pub(crate) kubernetes: crate::kubernetes::KubernetesOptions,
    connector: Option<Arc<dyn Connector>>,
    disable_health_check: bool,
    /// Set by the feature `tls`.
    pub(crate) secure: Option<MakeSecure>,
    idle_timeout: Option<Duration>,
    recorders: Vec<Arc<dyn Recorder>>,
    seed: Option<u64>,
    runtime: Option<Handle>,
}

impl ChannelBuilder {
    pub(crate) fn new(target: String) -> Self {
        Self {
            target,
            service_config: None,
            lb_policy: None,
            keepalive: None,
            allow_aggressive_keepalive: false,
            connect_timeout: CONNECT_TIMEOUT,
            backoff: Backoff::default(),
            authority: None,
            user_agent: None,
            wait_for_ready: false,
            waiting_calls_max: 65_536,
            call_layers: Vec::new(),
            attempt_layers: Vec::new(),
            meter: None,
            resolvers: Vec::new(),
            policies: PolicyRegistry::built_in(),
            balancers: Vec::new(),
            dns: DnsOptions::default(),
            #[cfg(feature = "kubernetes")]
            kubernetes: Default::default(),
            connector: None,
            disable_health_check: false,
            secure: None,
            idle_timeout: Some(IDLE_TIMEOUT),
            recorders: Vec::new(),
            seed: None,
            runtime: None,
        }
    }

    /// The service config that is used while the resolver brings none, as JSON (gRFC A2). It goes
    /// before [`ChannelBuilder::lb_policy`].
    #[must_use]
    pub fn service_config(mut self, json: impl Into<String>) -> Self {
        self.service_config = Some(json.into());
        self
    }

    /// Shorthand for a service config that only names a policy, without settings. Without either,
    /// the policy is `round_robin`.
    #[must_use]
    pub fn lb_policy(mut self, name: impl Into<String>) -> Self {
        self.lb_policy = Some(name.into());
        self
    }

    /// Turns keepalive on.
    #[must_use]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = Some(keepalive);
        self
    }

    /// Lifts the floor of 10 s under [`Keepalive::time`], for servers that allow it.
    #[must_use]
    pub fn allow_aggressive_keepalive(mut self, allow: bool) -> Self {
        self.allow_aggressive_keepalive = allow;
        self
    }

    /// An attempt to connect, up to the server's first SETTINGS, fails after this time (20 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Waits between attempts to connect (1 s × 1.6 ± 20 % up to 120 s).
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The `:authority` of calls, instead of the target's.
    #[must_use]
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// Put before our own `user-agent`.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = Some(user_agent.into());
        self
    }

    /// Whether calls wait for ready unless their [`crate::CallOptions`] say otherwise (false).
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Calls that may wait for a connection or a stream at once (65,536); one more fails with
    /// RESOURCE_EXHAUSTED.
    #[must_use]
    pub fn waiting_calls_max(mut self, max: usize) -> Self {
        self.waiting_calls_max = max;
        self
    }

    /// Runs this once for each call, inside the layers that were added before.
    #[must_use]
    pub fn call_layer(mut self, layer: impl CallLayer) -> Self {
        self.call_layers.push(Arc::new(layer));
        self
    }

    /// Runs this for each attempt, inside the layers that were added before.
    #[must_use]
    pub fn attempt_layer(mut self, layer: impl AttemptLayer) -> Self {
        self.attempt_layers.push(Arc::new(layer));
        self
    }

    /// Counts every call and attempt by this. It takes the place of another one.
    #[must_use]
    pub fn call_meter(mut self, meter: Arc<dyn CallMeter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Adds a resolver for its schemes; it goes before the built-in ones.
    #[must_use]
    pub fn register_resolver(mut self, factory: Arc<dyn ResolverFactory>) -> Self {
        self.resolvers.push(factory);
        self
    }

    /// Adds a policy that service configs can name; one of the same name is replaced.
    #[must_use]
    pub fn register_policy(mut self, factory: Arc<dyn PolicyFactory>) -> Self {
        self.policies.register(factory);
        self
    }

    /// Balancers for the policy `grpclb`, tried in this order, instead of those that the resolver
    /// finds (SRV records `_grpclb._tcp.HOST` in DNS); at most
    /// [`BALANCERS_MAX`](evenkeel_core::BALANCERS_MAX). Other policies need none.
    #[must_use]
    pub fn balancers(mut self, balancers: impl IntoIterator<Item = Balancer>) -> Self {
        self.balancers = balancers.into_iter().collect();
        self
    }

    /// Settings of the built-in DNS resolver.
    #[must_use]
    pub fn dns(mut self, options: DnsOptions) -> Self {
        self.dns = options;
        self
    }

    /// Without a call for this long (30 min), or up to an eighth of it longer, the channel closes
    /// its connections, stops resolving and is IDLE until the next call (gRFC A9). `None`: never.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Connects by this instead of TCP and Unix sockets: a pipe in memory for tests, say.
    #[must_use]
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Checks no server's health, also when the service config has a `healthCheckConfig` (gRFC
    /// A17). Without one nothing is checked anyway.
    #[must_use]
    pub fn disable_health_check(mut self, disable: bool) -> Self {
        self.disable_health_check = disable;
        self
    }

    /// Receives the channel's events, after the recorders that were added before.
    #[must_use]
    pub fn recorder(mut self, recorder: Arc<dyn Recorder>) -> Self {
        self.recorders.push(recorder);
        self
    }

    /// Seeds the random choices of policies, backoff and resolvers, for reproducible tests.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Runs the channel's tasks there instead of on the current runtime.
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Makes the channel and starts its driver task. It stays IDLE until the first call or
    /// [`Channel::connect`].
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn build(self) -> Result<Channel, BuildError> {
        let runtime = self
            .runtime
            .clone()
            .or_else(|| Handle::try_current().ok())
            .ok_or(BuildError::NoRuntime)?;
        self.check()?;
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        let config = self.parse_service_config()?;
        let call_config = Arc::new(CallConfig::new(&config));
        let health = HealthOptions {
            default_service: config.health_service.clone(),
            disabled: self.disable_health_check,
        };
        let default_policy =
            config.policy.ok_or_else(|| BuildError::ServiceConfig("it names no policy".into()))?;

        let by_dns = default_policy.name() == "grpclb" && self.balancers.is_empty();
        let resolvers = self.all_resolvers(seed, by_dns);
        let schemes: Vec<&str> = resolvers.iter().flat_map(|r| r.schemes()).copied().collect();
        let target = Target::parse(&self.target, &schemes)?;
        let resolver =
            resolvers
                .iter()
                .find(|r| r.schemes().contains(&target.scheme()))
                .cloned()
                .ok_or_else(|| TargetError::new(&self.target, "no resolver for its scheme"))?;
        let own_authority = resolver.default_authority(&target)?;
        let service_name = own_authority.clone();
        let authority = parse_authority(&self.authority.unwrap_or(own_authority))?;
        let secure = self.secure.map(|make| make(&authority)).transpose()?;
        let defaults = Defaults {
            scheme: if secure.is_some() { Scheme::HTTPS } else { Scheme::HTTP },
            authority,
            user_agent: parse_user_agent(self.user_agent.as_deref())?,
            wait_for_ready: self.wait_for_ready,
            waiting_calls_max: self.waiting_calls_max,
            call_layers: self.call_layers,
            attempt_layers: self.attempt_layers,
            meter: self.meter,
        };
        let tcp_user_timeout = self.keepalive.map_or(TCP_USER_TIMEOUT, |k| k.timeout);
        let sockets = Arc::new(SocketConnector { tcp_user_timeout });
        Ok(Channel::start(
            defaults,
            DriverOptions {
                target,
                service_name,
                balancers: self.balancers.into(),
                resolver,
                seed,
                default_policy,
                call_config,
                health,
                backoff: core_backoff(&self.backoff),
                transport: TransportOptions {
                    connect_timeout: self.connect_timeout,
                    keepalive: self.keepalive,
                },
                connector: self.connector.unwrap_or(sockets),
                secure,
                idle_timeout: self.idle_timeout,
                recorder: observe::all(self.recorders),
                runtime,
            },
        ))
    }

    /// The user's own, which go first, and the built-in ones.
    fn all_resolvers(&self, seed: u64, balancers_by_dns: bool) -> Vec<Arc<dyn ResolverFactory>> {
        let mut all = self.resolvers.clone();
        let dns = DnsResolverFactory::new(self.dns.clone(), seed);
        let dns = dns.with_policies(self.policies.clone());
        all.push(Arc::new(if balancers_by_dns { dns.with_balancers() } else { dns }));
        all.push(Arc::new(LiteralResolverFactory));
        all.push(Arc::new(UnixResolverFactory));
        #[cfg(feature = "kubernetes")]
        {
            let options = self.kubernetes.clone();
            all.push(Arc::new(crate::kubernetes::KubernetesResolverFactory::new(options)));
        }
        all
    }

    fn parse_service_config(&self) -> Result<ServiceConfig, BuildError> {
        let named = self.lb_policy.as_deref().unwrap_or("round_robin");
        let json = self.service_config.as_deref().unwrap_or("{}");
        let parsed = ServiceConfig::parse(json, &self.policies).and_then(|mut config| {
            if config.policy.is_none() {
                config.policy = ServiceConfig::for_policy(named, &self.policies)?.policy;
            }
            Ok(config)
        });
        parsed.map_err(|e| BuildError::ServiceConfig(e.to_string()))
    }
}

fn core_backoff(b: &Backoff) -> evenkeel_core::Backoff {
    let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    evenkeel_core::Backoff {
        initial_ns: ns(b.initial),
        multiplier: b.multiplier,
        jitter: b.jitter,
        max_ns: ns(b.max),
    }
}

fn parse_authority(text: &str) -> Result<Authority, BuildError> {
    text.parse().map_err(|e| {
        BuildError::Setting(format!("authority: expected host[:port], got {text:?} ({e})"))
    })
}

fn parse_user_agent(prefix: Option<&str>) -> Result<HeaderValue, BuildError> {
    let own = concat!("grpc-rust-evenkeel/", env!("CARGO_PKG_VERSION"));
    let text = prefix.map_or_else(|| own.to_owned(), |p| format!("{p} {own}"));
    HeaderValue::from_str(&text).map_err(|_| {
        BuildError::Setting(format!("user agent: expected visible ASCII, got {text:?}"))
    })
}
