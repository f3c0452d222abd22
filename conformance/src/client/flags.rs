//! The flags of `peer client`. What our channel can't do yet is refused by name: a scenario that
//! silently runs without the thing that it tests would report a success that nobody earned.

use std::{ffi::OsString, net::SocketAddr, time::Duration};

use clap::{ArgAction, Parser, error::ContextKind, error::ContextValue};
use client::{
    flags::{backoff_up_to, in_flight, rate},
    greeting::HashHeader,
    load::{Mode, Plan},
};
use evenkeel::{Channel, ChannelBuilder, Keepalive, dns::DnsOptions};
use program::duration;
use serde_json::{Value, json};

/// Calls that are made when neither `--count` nor `--duration` is given.
const COUNT_DEFAULT: u64 = 3_000;
/// The answer to a ping must come within this time, as in `peer client`.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Flags of the peers that this client refuses, and why.
const UNSUPPORTED: [(&str, &str); 5] = [
    ("--idle-timeout", "the channel has no idle time-out yet"),
    ("--admin", "channelz and CSDS are not served"),
    ("--control", "commands are read from standard input only"),
    ("--arg", "it sets C-core channel arguments"),
    ("--procs", "it sets Go's GOMAXPROCS"),
];

/// The greeter's client over evenkeel's channel, with the flags of `peer client`.
#[derive(Clone, Debug, Parser)]
#[command(name = "conformance-client", version, args_override_self = true)]
pub(super) struct Flags {
    /// static:///a:p,b:p (a:p|b:p: one endpoint of two addresses), dns:///n:p,
    /// dns://server:port/n:p
    #[arg(long, env = "GREETER_SERVICE_TARGET", hide_env_values = true)]
    pub(super) target: String,

    /// Load balancing policy (none: leave it to the channel)
    #[arg(long, default_value = "round_robin")]
    pub(super) policy: String,

    /// grpclb balancers beside a static target: a:p,b:p
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) balancers: Vec<SocketAddr>,

    /// JSON config of that policy
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub(super) policy_config: Option<Value>,

    /// methodConfig list of the service config
    #[arg(long, value_name = "JSON", value_parser = json_list)]
    pub(super) method_config: Option<Value>,

    /// Check the health of this service on each connection (healthCheckConfig)
    #[arg(long, value_name = "SERVICE")]
    pub(super) health_check: Option<String>,

    /// Whole service config as JSON; replaces --policy
    #[arg(long, value_name = "JSON",
          conflicts_with_all = ["policy_config", "method_config", "health_check"])]
    pub(super) service_config: Option<String>,

    /// Open loop: calls started per second (0: closed loop)
    #[arg(long, default_value = "0", value_parser = rate, allow_negative_numbers = true)]
    pub(super) rps: f64,

    /// Stop after this time
    #[arg(long, default_value = "0s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(super) duration: Duration,

    /// Stop after this many calls (0: by --duration; 3000 if neither is given)
    #[arg(long, default_value = "0", allow_negative_numbers = true)]
    pub(super) count: u64,

    /// Deadline of each call (0: none)
    #[arg(long, default_value = "5s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(super) timeout: Duration,

    /// Closed loop: pause of each worker between calls
    #[arg(long, default_value = "0s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(super) interval: Duration,

    /// Closed loop: workers
    #[arg(long, default_value = "1", value_parser = in_flight(), allow_negative_numbers = true)]
    pub(super) concurrency: u32,

    /// Open loop: calls over this many in flight are counted as shed
    #[arg(long, default_value = "5000", value_parser = in_flight(), allow_negative_numbers = true)]
    pub(super) max_inflight: u32,

    /// Calls wait for ready
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true")]
    pub(super) wait_for_ready: bool,

    /// Before measuring: connect and wait at most this long for READY
    #[arg(long, default_value = "0s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(super) warmup: Duration,

    /// Calls made before measuring
    #[arg(long, default_value = "0", allow_negative_numbers = true)]
    pub(super) warmup_calls: u32,

    /// Name in the request
    #[arg(long, default_value = "you")]
    pub(super) name: String,

    /// Send this header with --hash-keys values in turn
    #[arg(long, value_name = "HEADER")]
    pub(super) hash_header: Option<String>,

    /// Number of values of --hash-header
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..),
          allow_negative_numbers = true)]
    pub(super) hash_keys: u64,

    /// Add a timeline with slots of this length
    #[arg(long, default_value = "0s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(super) timeline: Duration,

    /// Add the channel's state changes
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true")]
    pub(super) states: bool,

    /// Least time between two DNS lookups (0: the channel's own)
    #[arg(long, default_value = "0s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(super) min_dns_interval: Duration,

    /// A DNS lookup fails after this time (0: the channel's own)
    #[arg(long, default_value = "0s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(super) dns_timeout: Duration,

    /// Longest wait between connection attempts (0: 120s)
    #[arg(long, default_value = "0s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(super) max_backoff: Duration,

    /// Keepalive time (0: none); the ping must be answered within 5s
    #[arg(long, default_value = "0s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(super) keepalive: Duration,

    /// :authority to send
    #[arg(long)]
    pub(super) authority: Option<String>,

    /// Print the example's text lines, not JSON
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true")]
    pub(super) print: bool,

    /// Do not read commands from standard input
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true")]
    pub(super) no_stdin: bool,
}

/// Why the flags could not be read, or that help was asked for.
#[derive(Debug)]
pub(super) struct FlagError {
    error: clap::Error,
    unsupported: Option<String>,
}

impl FlagError {
    /// Prints it as text: help to stdout, errors to stderr.
    pub(super) fn print(&self) {
        match &self.unsupported {
            Some(text) => eprintln!("conformance-client: {text}"),
            // The stream may be closed, and then there is nobody to tell.
            None => drop(self.error.print()),
        }
    }

    /// 0 for help, else 2.
    pub(super) fn exit_code(&self) -> u8 {
        if self.error.use_stderr() { super::EXIT_FLAGS } else { 0 }
    }

    fn new(error: clap::Error) -> Self {
        let name = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(name)) => name.split('=').next().unwrap_or(name),
            _ => "",
        };
        let known = UNSUPPORTED.iter().find(|(flag, _)| *flag == name);
        let unsupported = known.map(|(flag, why)| format!("{flag} is not supported: {why}"));
        Self { error, unsupported }
    }
}

impl std::fmt::Display for FlagError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.unsupported {
            Some(text) => f.write_str(text),
            None => self.error.fmt(f),
        }
    }
}

impl Flags {
    /// Reads the flags; `args[0]` is the program's name.
    ///
    /// # Errors
    ///
    /// A flag that is unknown or not supported, a value out of range, or a request for help.
    pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, FlagError> {
        let flags = Self::try_parse_from(args).map_err(FlagError::new)?;
        if flags.policy == "none" && flags.policy_config.is_some() {
            let text = "--policy-config needs the --policy that it is for, got none";
            let kind = clap::error::ErrorKind::ArgumentConflict;
            return Err(FlagError { error: clap::Error::raw(kind, text), unsupported: None });
        }
        Ok(flags)
    }

    /// The load to generate.
    pub(super) fn plan(&self) -> Plan {
        let duration = positive(self.duration);
        let count = match self.count {
            0 if duration.is_none() && !self.print => Some(COUNT_DEFAULT),
            0 => None,
            count => Some(count),
        };
        let mode = if self.print {
            Mode::Closed { workers: 1, pause: self.interval }
        } else if self.rps > 0.0 {
            Mode::Open { rate: self.rps, in_flight_max: self.max_inflight }
        } else {
            Mode::Closed { workers: self.concurrency, pause: self.interval }
        };
        Plan { mode, count, duration }
    }

    /// The header of `--hash-header`.
    ///
    /// # Errors
    ///
    /// It is no header name.
    pub(super) fn hash_header(&self) -> Result<Option<HashHeader>, String> {
        let Some(text) = &self.hash_header else { return Ok(None) };
        match text.parse() {
            Ok(name) => Ok(Some(HashHeader { name, keys: self.hash_keys })),
            Err(_) => Err(format!("--hash-header: expected a header name, got {text:?}")),
        }
    }

    /// A builder of a channel to `target` with these settings.
    pub(super) fn channel(&self, target: &str) -> ChannelBuilder {
        let mut builder =
            Channel::builder(target).dns(self.dns()).service_config(self.service_config());
        if let Some(max) = positive(self.max_backoff) {
            builder = builder.backoff(backoff_up_to(max));
        }
        if let Some(time) = positive(self.keepalive) {
            let timeout = KEEPALIVE_TIMEOUT;
            builder = builder
                .keepalive(Keepalive { time, timeout, permit_without_calls: true })
                .allow_aggressive_keepalive(true);
        }
        if let Some(authority) = &self.authority {
            builder = builder.authority(authority);
        }
        builder
    }

    /// The policy as the JSON line gives it: empty for `none`, as in `peer client`.
    pub(super) fn policy_shown(&self) -> &str {
        if self.policy == "none" { "" } else { &self.policy }
    }

    fn service_config(&self) -> String {
        if let Some(whole) = &self.service_config {
            return whole.clone();
        }
        let mut config = json!({});
        if self.policy != "none" {
            let settings = self.policy_config.clone().unwrap_or_else(|| json!({}));
            config["loadBalancingConfig"] = json!([{ self.policy.as_str(): settings }]);
        }
        if let Some(methods) = &self.method_config {
            config["methodConfig"] = methods.clone();
        }
        if let Some(service) = &self.health_check {
            config["healthCheckConfig"] = json!({ "serviceName": service });
        }
        config.to_string()
    }

    fn dns(&self) -> DnsOptions {
        // As grpc-go does without being asked: a client that names no policy takes the name's.
        let mut dns = DnsOptions { service_config: self.policy == "none", ..DnsOptions::default() };
        if let Some(interval_min) = positive(self.min_dns_interval) {
            dns.interval_min = interval_min;
            dns.interval_max = dns.interval_max.max(interval_min);
        }
        if let Some(timeout) = positive(self.dns_timeout) {
            dns.timeout = timeout;
        }
        dns
    }
}

/// `None` for zero, which means "not set" in all of these flags.
pub(super) fn positive(duration: Duration) -> Option<Duration> {
    Some(duration).filter(|duration| !duration.is_zero())
}

fn json_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(other) => Err(format!("expected a JSON object, got {other}")),
        Err(error) => Err(format!("expected a JSON object, got {text:?}: {error}")),
    }
}

fn json_list(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Array(_)) => Ok(value),
        Ok(other) => Err(format!("expected a JSON list, got {other}")),
        Err(error) => Err(format!("expected a JSON list, got {text:?}: {error}")),
    }
}

#[cfg(test)]
mod tests;
