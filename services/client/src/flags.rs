//! Flags and environment of the client, checked before anything starts: a load test that runs with
//! a setting other than the one that was meant is worse than none.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::{Parser, ValueEnum, builder::FalseyValueParser};
use evenkeel::{
    Backoff, BuildError, Channel, ChannelBuilder, Keepalive,
    core::{self, Balancer, PolicyRegistry, ServiceConfig},
    kubernetes::KubernetesOptions,
    tls::{ClientTls, Identity, Roots, TlsError},
};
use evenkeel_telemetry::SettingsError;
use program::duration;
use rustls::crypto::ring;
use thiserror::Error;

use crate::{
    load::{IN_FLIGHT_MAX, Mode, Plan, RATE_MAX},
    tally::SLOTS_MAX,
};

/// Calls that are made when neither `--count` nor `--duration` is given, as in the example of 2018.
pub const COUNT_DEFAULT: u64 = 10_000;
/// Workers of the closed loop unless `--concurrency` says otherwise.
pub const WORKERS_DEFAULT: u32 = 1;
/// Calls in flight in the open loop unless `--concurrency` says otherwise.
pub const IN_FLIGHT_DEFAULT: u32 = 5_000;
/// gRPC's own time for the answer to a keepalive ping.
const KEEPALIVE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);

/// Calls helloworld.Greeter/SayHello over one load-balanced channel, at a fixed rate (open loop) or
/// as fast as its workers can (closed loop), and reports per backend.
#[derive(Clone, Debug, Parser)]
#[command(name = "client", version)]
pub struct Flags {
    /// Target: dns:///host:port, kubernetes:///service.namespace:port, ipv4:a:p,b:p, host:port
    #[arg(
        long,
        env = "GREETER_SERVICE_TARGET",
        hide_env_values = true,
        default_value = "dns:///localhost:8000"
    )]
    pub target: String,

    /// Zone of this client, for kubernetes: targets whose EndpointSlices have hints
    #[arg(long, env = "GREETER_ZONE", hide_env_values = true, value_name = "ZONE")]
    pub zone: Option<String>,

    /// Load balancing policy of the channel
    #[arg(
        long,
        env = "GREETER_LB_POLICY_NAME",
        value_name = "NAME",
        default_value = "round_robin"
    )]
    pub lb_policy: String,

    /// Service config as JSON; replaces --lb-policy
    #[arg(long, env = "GREETER_SERVICE_CONFIG", hide_env_values = true, value_name = "JSON")]
    pub service_config: Option<String>,

    /// Balancers of the policy grpclb, tried in this order, instead of the target's SRV records
    #[arg(
        long,
        env = "GREETER_BALANCERS",
        hide_env_values = true,
        value_name = "IP:PORT,…",
        value_delimiter = ','
    )]
    pub balancers: Vec<SocketAddr>,

    /// Name in the request
    #[arg(long, default_value = "you")]
    pub name: String,

    /// Calls to start, 0: no limit [default: 10000, no limit with --duration]
    #[arg(long, allow_negative_numbers = true)]
    pub count: Option<u64>,

    /// Calls started per second, by the clock (open loop); 0: closed loop
    #[arg(long, value_name = "PER_S", default_value = "1", value_parser = rate,
          allow_negative_numbers = true)]
    pub rate: f64,

    /// Closed loop: workers [default: 1]; open loop: calls in flight, more are shed [default: 5000]
    #[arg(long, value_name = "N", value_parser = in_flight(), allow_negative_numbers = true)]
    pub concurrency: Option<u32>,

    /// No call starts after this time, 0s: no limit
    #[arg(long, value_name = "D", default_value = "0s", value_parser = duration::parse,
          allow_hyphen_values = true)]
    pub duration: Duration,

    /// Deadline of each call, 0s: none
    #[arg(long, value_name = "D", default_value = "5s", value_parser = duration::parse,
          allow_hyphen_values = true)]
    pub timeout: Duration,

    /// Calls wait for a ready connection instead of failing when there is none
    #[arg(long)]
    pub wait_for_ready: bool,

    /// Before the first call: connect and wait at most this long for READY, 0s: start at once
    #[arg(long, value_name = "D", default_value = "0s", value_parser = duration::parse,
          allow_hyphen_values = true)]
    pub warmup: Duration,

    /// Print no line per call
    #[arg(long)]
    pub quiet: bool,

    /// Text lines and a table, or one JSON object at the end
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,

    /// Write the channel's events to stderr, a JSON object a line
    #[arg(long)]
    pub events: bool,

    /// With --events: also write what has been answered so far, once in this time
    #[arg(long, value_name = "D", value_parser = duration::parse_positive, requires = "events")]
    pub live: Option<Duration>,

    /// Ping a silent connection that has calls open after this time (at least 10s)
    #[arg(long, value_name = "D", value_parser = duration::parse_positive)]
    pub keepalive_time: Option<Duration>,

    /// Close the connection when the ping is not answered within this time [default: 20s]
    #[arg(long, value_name = "D", value_parser = duration::parse_positive,
          requires = "keepalive_time")]
    pub keepalive_timeout: Option<Duration>,

    /// Allow a --keepalive-time below 10s; servers may close the connection for it
    #[arg(long, requires = "keepalive_time")]
    pub allow_aggressive_keepalive: bool,

    /// Longest wait between connection attempts [default: 120s]
    #[arg(long, value_name = "D", value_parser = duration::parse_positive)]
    pub backoff_max: Option<Duration>,

    /// With --output json: add counts for each slot of this length
    #[arg(long, value_name = "D", value_parser = duration::parse_positive)]
    pub slots: Option<Duration>,

    /// Show the channel on this address while it runs, as JSON and by channelz; port 0: a free one
    #[arg(long, env = "GREETER_ADMIN_LISTEN", hide_env_values = true, value_name = "IP:PORT")]
    pub admin_listen: Option<SocketAddr>,

    /// Show metrics for Prometheus on this address while it runs; port 0: a free one
    #[arg(long, env = "GREETER_METRICS_LISTEN", hide_env_values = true, value_name = "IP:PORT")]
    pub metrics_listen: Option<SocketAddr>,

    /// Connect over TLS
    #[arg(long, env = "GREETER_TLS", requires = "tls_ca", value_parser = FalseyValueParser::new())]
    pub tls: bool,

    /// PEM file with the roots that may have signed the server's certificate
    #[arg(
        long,
        env = "GREETER_TLS_CA",
        hide_env_values = true,
        value_name = "FILE",
        requires = "tls"
    )]
    pub tls_ca: Option<PathBuf>,

    /// PEM file with the client's own certificate, for servers that ask for one
    #[arg(long, env = "GREETER_TLS_CERT", hide_env_values = true, value_name = "FILE",
          requires_all = ["tls", "tls_key"])]
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the key of --tls-cert
    #[arg(
        long,
        env = "GREETER_TLS_KEY",
        hide_env_values = true,
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,

    /// Name to find in the server's certificate, instead of the target's host
    #[arg(
        long,
        env = "GREETER_TLS_SERVER_NAME",
        hide_env_values = true,
        value_name = "NAME",
        requires = "tls"
    )]
    pub tls_server_name: Option<String>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines as the example prints them, then a table.
    Text,
    /// One JSON object.
    Json,
}

/// Why the flags, each readable by itself, make no run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The channel refuses its target, its policy or a setting.
    #[error(transparent)]
    Channel(#[from] BuildError),
    /// `--service-config` is refused.
    #[error("--service-config: {0}")]
    ServiceConfig(#[from] core::service_config::ConfigError),
    /// A variable of OpenTelemetry can't be meant.
    #[error(transparent)]
    Telemetry(#[from] SettingsError),
    /// A file of TLS can't be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// A combination of flags makes no sense.
    #[error("{0}")]
    Combination(String),
}

impl Flags {
    /// The load to generate.
    ///
    /// # Errors
    ///
    /// Flags that contradict each other.
    pub fn plan(&self) -> Result<Plan, ConfigError> {
        if self.slots.is_some() && self.output != Output::Json {
            let text = "--slots adds to the JSON report; add --output json or leave it out";
            return Err(ConfigError::Combination(text.into()));
        }
        let duration = Some(self.duration).filter(|duration| !duration.is_zero());
        if let (Some(slot), Some(duration)) = (self.slots, duration)
            && duration.as_nanos() / slot.as_nanos() > u128::from(SLOTS_MAX)
        {
            return Err(ConfigError::Combination(format!(
                "--slots {slot:?} over --duration {duration:?} makes more than {SLOTS_MAX} slots; \
                 expected longer slots or a shorter run"
            )));
        }
        let mode = if self.rate > 0.0 {
            let in_flight_max = self.concurrency.unwrap_or(IN_FLIGHT_DEFAULT);
            Mode::Open { rate: self.rate, in_flight_max }
        } else {
            let workers = self.concurrency.unwrap_or(WORKERS_DEFAULT);
            Mode::Closed { workers, pause: Duration::ZERO }
        };
        let count = match (self.count, duration) {
            (Some(0), _) | (None, Some(_)) => None,
            (Some(count), _) => Some(count),
            (None, None) => Some(COUNT_DEFAULT),
        };
        Ok(Plan { mode, count, duration })
    }

    /// The policy that the channel will use: the service config's if it names one, else
    /// `--lb-policy`.
    ///
    /// # Errors
    ///
    /// `--service-config` is refused.
    pub fn policy(&self) -> Result<String, ConfigError> {
        let config = match &self.service_config {
            Some(json) => ServiceConfig::parse(json, &PolicyRegistry::built_in())?,
            None => ServiceConfig::default(),
        };
        Ok(config.policy.map_or_else(|| self.lb_policy.clone(), |policy| policy.name().to_owned()))
    }

    /// A channel builder with these settings. [`ChannelBuilder::build`] checks target and policy.
    ///
    /// # Errors
    ///
    /// A file of TLS can't be used.
    pub fn channel(&self) -> Result<ChannelBuilder, ConfigError> {
        let mut builder =
            Channel::builder(&self.target).user_agent("greeter-client").lb_policy(&self.lb_policy);
        let zone = self.zone.clone();
        builder = builder.kubernetes(KubernetesOptions { zone, ..KubernetesOptions::default() });
        if let Some(json) = &self.service_config {
            builder = builder.service_config(json);
        }
        let balancer = |address: &SocketAddr| Balancer { address: (*address).into(), name: None };
        builder = builder.balancers(self.balancers.iter().map(balancer));
        if let Some(time) = self.keepalive_time {
            let timeout = self.keepalive_timeout.unwrap_or(KEEPALIVE_TIMEOUT_DEFAULT);
            builder = builder
                .keepalive(Keepalive { time, timeout, permit_without_calls: false })
                .allow_aggressive_keepalive(self.allow_aggressive_keepalive);
        }
        if let Some(max) = self.backoff_max {
            builder = builder.backoff(backoff_up_to(max));
        }
        if let Some(tls) = self.client_tls()? {
            builder = builder.tls(tls);
        }
        Ok(builder)
    }

    /// With ring as the crypto provider, which a process has to choose.
    fn client_tls(&self) -> Result<Option<ClientTls>, TlsError> {
        let Some(roots) = self.tls_ca.as_ref().filter(|_| self.tls) else { return Ok(None) };
        let mut tls =
            ClientTls::new(Roots::watch(roots)?).provider(Arc::new(ring::default_provider()));
        if let (Some(chain), Some(key)) = (&self.tls_cert, &self.tls_key) {
            tls = tls.identity(Identity::watch(chain, key)?);
        }
        if let Some(name) = &self.tls_server_name {
            tls = tls.server_name(name);
        }
        Ok(Some(tls))
    }

    /// Each call's deadline; `None` for none.
    pub fn call_timeout(&self) -> Option<Duration> {
        Some(self.timeout).filter(|timeout| !timeout.is_zero())
    }
}

/// gRPC's backoff with another longest wait, which shortens the first one too when it is less.
pub fn backoff_up_to(max: Duration) -> Backoff {
    let grpc = Backoff::default();
    Backoff { initial: grpc.initial.min(max), max, ..grpc }
}

/// Reads a number of workers or of calls in flight, 1 to [`IN_FLIGHT_MAX`].
pub fn in_flight() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX))
}

/// Reads calls per second.
///
/// # Errors
///
/// Anything but a number from 0 to [`RATE_MAX`].
pub fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=RATE_MAX).contains(&rate) => Ok(rate.abs()),
        _ => Err(format!("expected calls per second from 0 to {RATE_MAX}, got {text:?}")),
    }
}

#[cfg(test)]
mod tests;
