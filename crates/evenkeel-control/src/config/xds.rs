//! What `xds:` says of a service, and the identities that TLS between Envoys needs. Values are
//! checked where they are read, so that errors have the place. Settings that Envoy or gRPC have and
//! nobody here needs are left out: each one that is here is in every view, and tested in one.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{lb_policy::LbPolicy, outlier::OutlierDetection, yaml};
use crate::{access::Allowed, key::ServiceKey};

/// The most rules of localities, and parts of a split, of one service.
pub const RULES_MAX: usize = 100;
/// The most identities.
pub const IDENTITIES_MAX: usize = 100;
/// The longest time that can be set: a day.
const SECONDS_MAX: f64 = 86_400.0;
/// The greatest weight of a locality, and of a part of a split.
const SHARE_MAX: i64 = 1_000_000;
/// The greatest priority (gRFC A56 has no limit, Envoy's is 127).
const PRIORITY_MAX: i64 = 127;
/// The most retries of a call.
const RETRIES_MAX: i64 = 10;
/// Envoy's own limit of a name that it makes counters of.
const CLUSTER_BYTES_MAX: usize = 60;

/// What clients of xDS are told of a service beside its endpoints.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Xds {
    /// Where an Envoy beside a client listens for calls to the service; nowhere when it is not set.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
    /// How endpoints are picked.
    pub policy: LbPolicy,
    /// How long a connection may take to be made.
    #[serde(rename = "connect_timeout_s", deserialize_with = "time")]
    pub connect_timeout: Duration,
    /// The most calls of one client in flight at a time; Envoy's and gRPC's default is 1,024.
    #[serde(deserialize_with = "count")]
    pub max_requests: Option<u32>,
    /// When an endpoint that fails calls is left out for a time; never when it is not set.
    pub outlier_detection: Option<OutlierDetection>,
    /// The longest time of a call, whatever longer deadline it has; no limit when it is not set.
    #[serde(rename = "timeout_s", deserialize_with = "some_time")]
    pub timeout: Option<Duration>,
    /// How often and when a failed call is sent again; never when it is not set.
    pub retries: Option<Retries>,
    /// Priorities and weights of localities; the first rule that fits counts.
    #[serde(deserialize_with = "localities")]
    pub localities: Vec<LocalityRule>,
    /// Endpoints in the client's own zone come before those in its region, and these before others.
    pub priority_by_zone: bool,
    /// In per cent: with 140, Envoy spills over to the next priority when less than 100/140 of the
    /// endpoints are healthy. gRPC has no such thing.
    #[serde(deserialize_with = "overprovisioning")]
    pub overprovisioning_factor: Option<u32>,
    /// Calls that are made to fail or to wait.
    pub fault: Option<Fault>,
    /// Calls go to these services instead, by weight.
    #[serde(deserialize_with = "split")]
    pub split: Vec<Split>,
    /// Clients speak mTLS with the endpoints.
    pub mtls: Option<Mtls>,
    /// What an Envoy beside a server of this service is told.
    pub ingress: Option<Ingress>,
    /// gRPC clients are asked to report their load (LRS).
    pub load_reports: bool,
    /// Envoys send a span of each call to a collector; not when it is not set.
    pub tracing: Option<Tracing>,
}

impl Default for Xds {
    fn default() -> Self {
        Self {
            listen: None,
            policy: LbPolicy::default(),
            connect_timeout: Duration::from_secs(5),
            max_requests: None,
            outlier_detection: None,
            timeout: None,
            retries: None,
            localities: Vec::new(),
            priority_by_zone: false,
            overprovisioning_factor: None,
            fault: None,
            split: Vec::new(),
            mtls: None,
            ingress: None,
            load_reports: false,
            tracing: None,
        }
    }
}

/// How a failed call is sent again. Calls of which it is sure that no server has begun them are
/// always safe to send again; those that ended with a status of `on` may have been done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retries {
    /// How often, at most.
    #[serde(deserialize_with = "retries")]
    pub max: u32,
    /// Statuses after which the application says that it is safe.
    #[serde(default)]
    pub on: Vec<RetryStatus>,
}

/// The statuses that both Envoy and gRPC (A44) can be told to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryStatus {
    /// CANCELLED.
    Cancelled,
    /// DEADLINE_EXCEEDED.
    DeadlineExceeded,
    /// INTERNAL.
    Internal,
    /// RESOURCE_EXHAUSTED.
    ResourceExhausted,
    /// UNAVAILABLE.
    Unavailable,
}

/// Priority and weight of localities.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalityRule {
    /// Which region; any when it is not set.
    #[serde(default)]
    pub region: Option<String>,
    /// Which zone; any when it is not set.
    #[serde(default)]
    pub zone: Option<String>,
    /// 0 is used first.
    #[serde(default, deserialize_with = "priority")]
    pub priority: u32,
    /// Its share of the calls, compared with the other localities of its priority; when it is not
    /// set, what its endpoints weigh together.
    #[serde(default, deserialize_with = "share")]
    pub weight: Option<u32>,
}

/// Faults, for tests of those who call.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Calls that are answered with an error instead of being sent.
    #[serde(default)]
    pub abort: Option<Abort>,
    /// Calls that wait before they are sent.
    #[serde(default)]
    pub delay: Option<Delay>,
}

/// Calls that are answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// How many, in per cent.
    #[serde(deserialize_with = "percent")]
    pub percent: f64,
    /// With which code, 1 to 16.
    #[serde(deserialize_with = "grpc_status")]
    pub grpc_status: u32,
}

/// Calls that wait.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// How many, in per cent.
    #[serde(deserialize_with = "percent")]
    pub percent: f64,
    /// How long.
    #[serde(rename = "time_s", deserialize_with = "time")]
    pub time: Duration,
}

/// A part of a split.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Where these calls go: a service's name, with namespace and port where they differ.
    #[serde(deserialize_with = "service")]
    service: String,
    /// Its share.
    #[serde(deserialize_with = "split_weight")]
    pub weight: u32,
}

impl Split {
    /// The service that is meant, in the configuration of `own`.
    #[must_use]
    pub fn key(&self, own: &ServiceKey) -> ServiceKey {
        ServiceKey::parse(&self.service, &own.namespace).expect("it was checked when it was read")
    }
}

/// mTLS from clients to endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mtls {
    /// The identity of clients whose node names none; it has to be one of `identities`.
    pub identity: String,
    /// The names of which a server's certificate has to have one.
    #[serde(deserialize_with = "names")]
    pub servers: Allowed,
}

/// An Envoy beside a server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    /// Where it listens; 0.0.0.0 stands for the node's own address, if the node says which.
    #[serde(deserialize_with = "needed_address")]
    pub listen: SocketAddr,
    /// Where the server listens; 0.0.0.0 stands for the node's own address, or else 127.0.0.1.
    #[serde(deserialize_with = "needed_address")]
    pub application: SocketAddr,
    /// The server's identity, one of `identities`; without one there is no TLS.
    #[serde(default)]
    pub identity: Option<String>,
    /// The names of which a client's certificate has to have one; any that the roots have signed
    /// when it is not set.
    #[serde(default, deserialize_with = "some_names")]
    pub allow: Option<Allowed>,
}

/// Where Envoys send their spans.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// The cluster of the collector (OTLP over gRPC). It stands in the bootstrap: Envoy refuses a
    /// listener whose collector it does not know.
    #[serde(deserialize_with = "cluster")]
    pub cluster: String,
    /// How many of the calls without a trace of their own, in per cent. Those that have one are
    /// sampled as it says.
    #[serde(default = "all", deserialize_with = "percent")]
    pub percent: f64,
}

/// Certificates of a client or server, in files that are followed when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The certificate with its chain behind it, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The roots that have signed the others' certificates, PEM.
    pub roots: PathBuf,
    /// Who may have the key, by the names in the certificate with which it asks the balancer.
    #[serde(default, deserialize_with = "some_names")]
    pub belongs_to: Option<Allowed>,
}

/// Who gets keys, beside those to whom they belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// Peers on a loopback address or a Unix socket get the keys that their view names.
    pub local_peers: bool,
}

/// Reads a `T` and makes of it what `check` returns.
fn checked<'de, D, T, U>(d: D, check: impl FnOnce(T) -> Result<U, String>) -> Result<U, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    check(T::deserialize(d)?).map_err(D::Error::custom)
}

/// A whole number within limits.
pub(super) fn within(value: i64, min: i64, max: i64) -> Result<u32, String> {
    match u32::try_from(value) {
        Ok(number) if (min..=max).contains(&value) => Ok(number),
        _ => Err(format!("expected a whole number from {min} to {max}, got {value}")),
    }
}

pub(super) fn seconds(value: f64) -> Result<Duration, String> {
    if (0.001..=SECONDS_MAX).contains(&value) {
        return Ok(Duration::from_secs_f64(value));
    }
    Err(format!("expected 0.001 to {SECONDS_MAX} seconds, got {value}"))
}

pub(super) fn time<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    checked(d, seconds)
}

pub(super) fn some_time<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    time(d).map(Some)
}

pub(super) fn count<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    checked(d, |value| within(value, 1, u32::MAX.into()).map(Some))
}

fn address<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    needed_address(d).map(Some)
}

fn needed_address<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
    checked(d, |text: String| yaml::address(&text))
}

fn overprovisioning<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    checked(d, |value| within(value, 100, 1_000_000).map(Some))
}

fn retries<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    checked(d, |value| within(value, 1, RETRIES_MAX))
}

fn priority<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    checked(d, |value| within(value, 0, PRIORITY_MAX))
}

fn share<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    checked(d, |value| within(value, 1, SHARE_MAX).map(Some))
}

fn split_weight<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    checked(d, |value| within(value, 0, SHARE_MAX))
}

fn percent<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    checked(d, yaml::percent)
}

fn all() -> f64 {
    100.0
}

fn cluster<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    checked(d, |name: String| {
        let is_good = (1..=CLUSTER_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic());
        let expected = format!("expected a cluster's name of 1 to {CLUSTER_BYTES_MAX} visible");
        if is_good { Ok(name) } else { Err(format!("{expected} ASCII characters, got {name:?}")) }
    })
}

fn grpc_status<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    checked(d, |value| within(value, 1, 16))
}

fn names<'de, D: Deserializer<'de>>(d: D) -> Result<Allowed, D::Error> {
    checked(d, |names: Vec<String>| Allowed::parse(names.iter().map(String::as_str)))
}

fn some_names<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Allowed>, D::Error> {
    names(d).map(Some)
}

fn service<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    // Any namespace will do: what is checked is the form.
    checked(d, |text: String| ServiceKey::parse(&text, "default").map(|_| text))
}

fn localities<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<LocalityRule>, D::Error> {
    checked(d, |rules| at_most_rules("localities", rules))
}

fn split<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Split>, D::Error> {
    checked(d, |parts: Vec<Split>| {
        if parts.iter().all(|part| part.weight == 0) {
            return Err("split: expected at least one service with a weight above 0".into());
        }
        at_most_rules("split", parts)
    })
}

fn at_most_rules<T>(what: &str, rules: Vec<T>) -> Result<Vec<T>, String> {
    match rules.len() {
        0..=RULES_MAX => Ok(rules),
        many => Err(format!("{what}: expected at most {RULES_MAX}, got {many}")),
    }
}

/// Shared, because every snapshot of a configuration has it.
pub(super) fn shared<'de, D: Deserializer<'de>>(d: D) -> Result<Arc<Xds>, D::Error> {
    Xds::deserialize(d).map(Arc::new)
}
