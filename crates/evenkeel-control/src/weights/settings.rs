//! What can be set of the loop, for each service.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::Nanos;

const SECOND_NS: f64 = 1e9;
/// The longest time that can be set: a day.
const SECONDS_MAX: f64 = 86_400.0;
/// The greatest `error_penalty`.
const PENALTY_MAX: f64 = 1_000.0;

/// Settings of load-aware weights; in YAML in seconds (`report_interval_s: 1`), each may be left
/// out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadAware {
    /// Whose word counts.
    pub source: Source,
    /// How often backends are asked to report. They may have a floor of their own (gRPC's is 30 s).
    /// Clients report as often as [`XdsSettings`] says.
    ///
    /// [`XdsSettings`]: crate::xds::XdsSettings::load_report_interval
    #[serde(rename = "report_interval_s", deserialize_with = "time", serialize_with = "seconds")]
    pub report_interval_ns: Nanos,
    /// How often new weights may be sent to clients.
    #[serde(rename = "update_interval_s", deserialize_with = "time", serialize_with = "seconds")]
    pub update_interval_ns: Nanos,
    /// The time in which the past's part of a weight falls to 1/e.
    #[serde(rename = "smoothing_s", deserialize_with = "time", serialize_with = "seconds")]
    pub smoothing_ns: Nanos,
    /// How long a backend that has begun to report keeps the mean weight: caches are cold.
    #[serde(rename = "blackout_s", deserialize_with = "duration", serialize_with = "seconds")]
    pub blackout_ns: Nanos,
    /// How long a weight holds after the last report; then the backend has the mean.
    #[serde(rename = "expiration_s", deserialize_with = "time", serialize_with = "seconds")]
    pub expiration_ns: Nanos,
    /// How much errors count, compared with utilisation: with 1 a backend that fails every call
    /// counts as one of 100 per cent more utilisation.
    #[serde(deserialize_with = "penalty")]
    pub error_penalty: f64,
}

/// Who tells the balancer of an endpoint's load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The endpoint, which the balancer asks (ORCA out of band).
    #[default]
    Endpoints,
    /// Its clients, which the endpoint tells with each answer and which report (LRS): Envoys whose
    /// bootstrap says where to. The balancer has no connection to the endpoints then.
    Clients,
}

impl Default for LoadAware {
    fn default() -> Self {
        let seconds = |seconds: f64| (seconds * SECOND_NS) as Nanos;
        Self {
            source: Source::default(),
            report_interval_ns: seconds(1.0),
            update_interval_ns: seconds(2.0),
            smoothing_ns: seconds(5.0),
            blackout_ns: seconds(10.0),
            expiration_ns: seconds(180.0),
            error_penalty: 1.0,
        }
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Nanos, D::Error> {
    read(deserializer, 0.01)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Nanos, D::Error> {
    read(deserializer, 0.0)
}

fn read<'de, D: Deserializer<'de>>(deserializer: D, min: f64) -> Result<Nanos, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    if (min..=SECONDS_MAX).contains(&seconds) {
        return Ok((seconds * SECOND_NS) as Nanos);
    }
    let message = format!("expected {min} to {SECONDS_MAX} seconds, got {seconds}");
    Err(D::Error::custom(message))
}

fn penalty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let penalty = f64::deserialize(deserializer)?;
    if (0.0..=PENALTY_MAX).contains(&penalty) {
        return Ok(penalty);
    }
    let message = format!("error_penalty: expected 0 to {PENALTY_MAX}, got {penalty}");
    Err(D::Error::custom(message))
}

fn seconds<S: serde::Serializer>(ns: &Nanos, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*ns as f64 / SECOND_NS)
}
