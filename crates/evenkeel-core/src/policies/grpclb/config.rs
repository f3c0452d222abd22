//! Settings of `grpclb`, as gRPC's `GrpcLbConfig` (service_config.proto) has them.

use std::{any::Any, sync::Arc};

use serde_json::Value;

use super::GrpcLb;
use crate::{
    ConfigError, LbPolicy, Nanos, PolicyConfig, PolicyFactory, PolicyRegistry, SECOND_NS,
    policies::{pick_first, round_robin},
    service_config::{parse_duration, parse_policy_list},
};

/// The default of `initialFallbackTimeout`, gRPC's: 10 s.
pub const FALLBACK_TIMEOUT_NS: Nanos = 10 * SECOND_NS;
/// The longest `serviceName`, in bytes: the protocol wants less than 256.
pub const SERVICE_NAME_BYTES_MAX: usize = 255;

/// Settings of `grpclb`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How calls are spread over the balancer's list, and over the resolver's backends.
    pub child: Child,
    /// Asked for instead of the target's name.
    pub service_name: Option<Arc<str>>,
    /// Without a list for so long the resolver's backends are used, in nanoseconds.
    pub fallback_timeout_ns: Nanos,
}

/// The policies that can be below `grpclb`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Child {
    /// Each entry of the list in turn.
    #[default]
    RoundRobin,
    /// One connection, to the first address of the list that answers.
    PickFirst,
}

impl Child {
    /// The policy with its default settings.
    pub(super) fn config(self) -> PolicyConfig {
        match self {
            Self::RoundRobin => PolicyConfig::new(Arc::new(round_robin::Factory), Arc::new(())),
            Self::PickFirst => {
                let settings = Arc::new(pick_first::Settings::default());
                PolicyConfig::new(Arc::new(pick_first::Factory), settings)
            }
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            child: Child::default(),
            service_name: None,
            fallback_timeout_ns: FALLBACK_TIMEOUT_NS,
        }
    }
}

/// Makes [`GrpcLb`] policies.
pub struct Factory;

impl PolicyFactory for Factory {
    fn name(&self) -> &str {
        "grpclb"
    }

    fn parse_config(
        &self,
        json: &Value,
        _registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        let object = json.as_object().ok_or_else(|| ConfigError::new("", "an object", json))?;
        let mut settings = Settings::default();
        if let Some(list) = object.get("childPolicy") {
            let mut known = PolicyRegistry::default();
            known.register(Arc::new(pick_first::Factory));
            known.register(Arc::new(round_robin::Factory));
            let child = parse_policy_list("childPolicy", list, &known)?;
            settings.child = match child.name() {
                "pick_first" => Child::PickFirst,
                _ => Child::RoundRobin,
            };
        }
        if let Some(name) = object.get("serviceName") {
            let fits = |s: &&str| (1..=SERVICE_NAME_BYTES_MAX).contains(&s.len());
            let text = name.as_str().filter(fits).ok_or_else(|| {
                let expected = format!("a name of 1 to {SERVICE_NAME_BYTES_MAX} bytes");
                ConfigError::new("serviceName", expected, name)
            })?;
            settings.service_name = Some(text.into());
        }
        if let Some(timeout) = object.get("initialFallbackTimeout") {
            settings.fallback_timeout_ns = parse_duration("initialFallbackTimeout", timeout)?;
        }
        Ok(Arc::new(settings))
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        Box::new(GrpcLb::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Settings, String> {
        let value = serde_json::from_str(json).unwrap();
        let settings = Factory.parse_config(&value, &PolicyRegistry::built_in());
        let settings = settings.map_err(|e| e.to_string())?;
        Ok(settings.downcast_ref::<Settings>().unwrap().clone())
    }

    #[test]
    fn reads_what_grpc_writes() {
        let default = Settings::default();
        let with_child = |child| Settings { child, ..Settings::default() };
        for (json, want) in [
            ("{}", default.clone()),
            (r#"{"unknown":7}"#, default.clone()),
            (r#"{"childPolicy":[{"pick_first":{}}]}"#, with_child(Child::PickFirst)),
            (r#"{"childPolicy":[{"round_robin":{}}]}"#, with_child(Child::RoundRobin)),
            (
                r#"{"childPolicy":[{"ring_hash":{}},{"pick_first":{}},{"round_robin":{}}]}"#,
                with_child(Child::PickFirst),
            ),
            (
                r#"{"serviceName":"greeter","initialFallbackTimeout":"0.25s"}"#,
                Settings {
                    service_name: Some("greeter".into()),
                    fallback_timeout_ns: SECOND_NS / 4,
                    ..default
                },
            ),
        ] {
            assert_eq!(parse(json), Ok(want), "{json}");
        }
    }

    #[test]
    fn refuses_bad_values_by_name() {
        let long = format!(r#"{{"serviceName":"{}"}}"#, "x".repeat(256));
        for (json, want) in [
            ("3", ": expected an object, got 3"),
            (r#"{"childPolicy":{}}"#, "childPolicy: expected a list"),
            (
                r#"{"childPolicy":[]}"#,
                "childPolicy: expected a policy among pick_first, round_robin",
            ),
            (
                r#"{"childPolicy":[{"grpclb":{}}]}"#,
                "childPolicy: expected a policy among pick_first, round_robin",
            ),
            (
                r#"{"childPolicy":[{"pick_first":{"shuffleAddressList":1}}]}"#,
                "childPolicy[0].pick_first.shuffleAddressList: expected true or false, got 1",
            ),
            (r#"{"serviceName":""}"#, "serviceName: expected a name of 1 to 255 bytes, got \"\""),
            (r#"{"serviceName":9}"#, "serviceName: expected a name of 1 to 255 bytes, got 9"),
            (&long, "serviceName: expected a name of 1 to 255 bytes"),
            (r#"{"initialFallbackTimeout":10}"#, "initialFallbackTimeout: expected seconds"),
        ] {
            let got = parse(json).unwrap_err();
            assert!(got.starts_with(want), "{json}\n got {got}\nwant {want}");
        }
    }
}
