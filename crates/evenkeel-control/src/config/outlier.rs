//! Outlier detection, as Envoy has it and gRPC took it over (A50). What is not said is switched
//! off: by Envoy's own defaults, endpoints are ejected by success rate as soon as anything is set,
//! which surprises those who asked for something else.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

use super::xds::{some_time, within};

/// When an endpoint that fails calls is left out for a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// How often endpoints are judged; 10 s.
    #[serde(rename = "interval_s", deserialize_with = "some_time")]
    pub interval: Option<Duration>,
    /// How long one is left out for the first time; each further time is longer by that; 30 s.
    #[serde(rename = "base_ejection_time_s", deserialize_with = "some_time")]
    pub base_ejection_time: Option<Duration>,
    /// How long at most; 300 s.
    #[serde(rename = "max_ejection_time_s", deserialize_with = "some_time")]
    pub max_ejection_time: Option<Duration>,
    /// How many of the endpoints at most, in per cent; 10.
    #[serde(deserialize_with = "percent")]
    pub max_ejection_percent: Option<u32>,
    /// Left out after so many calls in a row that failed as by a server's fault. gRPC does not
    /// know this.
    #[serde(deserialize_with = "count")]
    pub consecutive_5xx: Option<u32>,
    /// Left out when this part of the calls fails.
    #[serde(deserialize_with = "some")]
    pub failure_percentage: Option<FailurePercentage>,
    /// Left out when the rate of success is far below the others'.
    #[serde(deserialize_with = "some")]
    pub success_rate: Option<SuccessRate>,
}

/// By the part of calls that fail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailurePercentage {
    /// In per cent.
    #[serde(deserialize_with = "percent_value")]
    pub threshold: u32,
    /// How likely one that is found is left out, in per cent.
    #[serde(deserialize_with = "percent_value")]
    pub enforcing: u32,
    /// With fewer endpoints nobody is judged.
    #[serde(deserialize_with = "number")]
    pub minimum_hosts: u32,
    /// With fewer calls in an interval an endpoint is not judged.
    #[serde(deserialize_with = "number")]
    pub request_volume: u32,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 85, enforcing: 100, minimum_hosts: 5, request_volume: 50 }
    }
}

/// By the rate of success, compared with the others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessRate {
    /// A thousand times the standard deviations below the mean.
    #[serde(deserialize_with = "number")]
    pub stdev_factor: u32,
    /// How likely one that is found is left out, in per cent.
    #[serde(deserialize_with = "percent_value")]
    pub enforcing: u32,
    /// With fewer endpoints nobody is judged.
    #[serde(deserialize_with = "number")]
    pub minimum_hosts: u32,
    /// With fewer calls in an interval an endpoint is not judged.
    #[serde(deserialize_with = "number")]
    pub request_volume: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { stdev_factor: 1_900, enforcing: 100, minimum_hosts: 5, request_volume: 100 }
    }
}

fn percent_value<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    within(i64::deserialize(d)?, 0, 100).map_err(D::Error::custom)
}

fn percent<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    percent_value(d).map(Some)
}

fn number<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    within(i64::deserialize(d)?, 1, u32::MAX.into()).map_err(D::Error::custom)
}

fn count<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    number(d).map(Some)
}

fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}
