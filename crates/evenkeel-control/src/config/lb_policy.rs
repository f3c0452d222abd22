//! How clients of xDS pick endpoints. A name alone means the policy's defaults; with settings it is
//! `{ring_hash: {header: x-user}}`. Read by hand: what serde derives accepts one form or the other.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::xds::{some_time, time, within};

/// The largest ring that Envoy makes.
const RING_SIZE_MAX: i64 = 8 * 1024 * 1024;
/// The most choices: more are a full scan.
const CHOICES_MAX: i64 = 100;
/// The names, for messages.
const NAMES: &[&str] = &["round_robin", "least_request", "ring_hash", "weighted_round_robin"];

/// How clients pick endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LbPolicy {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one with the fewest calls in flight, of some that are chosen at random. Clients that do
    /// not know it use round_robin.
    LeastRequest(LeastRequest),
    /// By a header's value, so that calls with the same one meet the same endpoint.
    RingHash(RingHash),
    /// In turn, as often as the endpoints' own reports of their load say (gRFC A58).
    WeightedRoundRobin(WeightedRoundRobin),
}

/// Settings of `least_request`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeastRequest {
    /// How many are compared.
    #[serde(deserialize_with = "choices")]
    pub choice_count: u32,
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self { choice_count: 2 }
    }
}

/// Settings of `ring_hash`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RingHash {
    /// The least entries of the ring.
    #[serde(deserialize_with = "ring_size")]
    pub minimum_ring_size: u32,
    /// The header whose value is hashed; without it each call is hashed anew.
    #[serde(deserialize_with = "header")]
    pub header: Option<String>,
}

impl Default for RingHash {
    fn default() -> Self {
        Self { minimum_ring_size: 1_024, header: None }
    }
}

/// Settings of `weighted_round_robin`; those that are not set are the clients' own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WeightedRoundRobin {
    /// How long an endpoint has to report before its weight counts.
    #[serde(rename = "blackout_period_s", deserialize_with = "some_time")]
    pub blackout_period: Option<Duration>,
    /// How long a weight counts after the last report.
    #[serde(rename = "weight_expiration_period_s", deserialize_with = "some_time")]
    pub weight_expiration_period: Option<Duration>,
    /// How often weights are made anew.
    #[serde(rename = "weight_update_period_s", deserialize_with = "some_time")]
    pub weight_update_period: Option<Duration>,
    /// Reports come on streams of their own and at this interval, not with each call.
    #[serde(deserialize_with = "oob")]
    pub out_of_band: Option<OutOfBand>,
    /// How much errors count.
    pub error_utilization_penalty: Option<f32>,
}

/// Reports on streams of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutOfBand {
    /// How often.
    #[serde(rename = "period_s", deserialize_with = "time")]
    pub period: Duration,
}

impl<'de> Deserialize<'de> for LbPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrSettings)
    }
}

struct NameOrSettings;

impl<'de> Visitor<'de> for NameOrSettings {
    type Value = LbPolicy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a policy, one of {}, or one with its settings in braces", NAMES.join(", "))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<LbPolicy, E> {
        Ok(match name {
            "round_robin" => LbPolicy::RoundRobin,
            "least_request" => LbPolicy::LeastRequest(LeastRequest::default()),
            "ring_hash" => LbPolicy::RingHash(RingHash::default()),
            "weighted_round_robin" => LbPolicy::WeightedRoundRobin(WeightedRoundRobin::default()),
            other => return Err(E::unknown_variant(other, NAMES)),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LbPolicy, A::Error> {
        let Some(name) = map.next_key::<String>()? else {
            return Err(A::Error::custom("policy: expected a name, got {}"));
        };
        let policy = match &name[..] {
            "least_request" => LbPolicy::LeastRequest(map.next_value()?),
            "ring_hash" => LbPolicy::RingHash(map.next_value()?),
            "weighted_round_robin" => LbPolicy::WeightedRoundRobin(map.next_value()?),
            "round_robin" => {
                return Err(A::Error::custom("round_robin has no settings: `policy: round_robin`"));
            }
            other => return Err(A::Error::unknown_variant(other, NAMES)),
        };
        match map.next_key::<String>()? {
            None => Ok(policy),
            Some(more) => {
                let message = format!("policy: expected one policy, got {name} and {more}");
                Err(A::Error::custom(message))
            }
        }
    }
}

fn choices<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    within(i64::deserialize(d)?, 2, CHOICES_MAX).map_err(D::Error::custom)
}

fn ring_size<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    within(i64::deserialize(d)?, 1, RING_SIZE_MAX).map_err(D::Error::custom)
}

fn oob<'de, D: Deserializer<'de>>(d: D) -> Result<Option<OutOfBand>, D::Error> {
    OutOfBand::deserialize(d).map(Some)
}

fn header<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(d)?;
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(header) => Ok(Some(header.as_str().to_owned())),
        Err(_) => Err(D::Error::custom(format!("expected a header's name, got {name:?}"))),
    }
}
