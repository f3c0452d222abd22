//! Service configs (gRFC A2, A24): JSON that chooses the policy and its settings.
//!
//! Fields that gRPC knows and we do not read yet are left alone, as gRPC asks; a value that we do
//! read and that is wrong refuses the whole config, so that a typing error never half-applies.

mod duration;
mod health;
mod method;
mod retry;

pub(crate) use duration::parse as parse_duration;
pub use method::{METHOD_CONFIGS_MAX, MethodConfig, MethodConfigs};
pub use retry::{ATTEMPTS_MAX, CodeSet, RetryPolicy, RetryThrottling};
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

use crate::{PolicyConfig, PolicyRegistry};

/// The longest service config that is read, in bytes.
pub const CONFIG_LEN_MAX: usize = 256 * 1024;
/// The most entries that `loadBalancingConfig` may have.
pub const POLICY_CHOICES_MAX: usize = 32;

/// Why a service config was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: expected {expected}, got {got}")]
pub struct ConfigError {
    /// Where, e.g. `loadBalancingConfig[0].pick_first.shuffleAddressList`.
    pub field: String,
    /// The allowed values.
    pub expected: String,
    /// The value that came, as JSON, cut when long.
    pub got: String,
}

impl ConfigError {
    /// An error about one value.
    pub fn new(field: impl Into<String>, expected: impl Into<String>, got: &Value) -> Self {
        Self { field: field.into(), expected: expected.into(), got: shorten(&got.to_string()) }
    }

    /// The same error, seen from one level further out.
    #[must_use]
    pub fn inside(mut self, parent: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => parent.into(),
            list if list.starts_with('[') => format!("{parent}{list}"),
            field => format!("{parent}.{field}"),
        };
        self
    }
}

/// A service config that was read.
#[derive(Clone, Debug, Default)]
pub struct ServiceConfig {
    /// The first supported entry of `loadBalancingConfig`, or the older `loadBalancingPolicy`.
    pub policy: Option<PolicyConfig>,
    /// `methodConfig`: settings per method.
    pub methods: MethodConfigs,
    /// `retryThrottling`: when retries stop so that they don't make an outage worse.
    pub retry_throttling: Option<RetryThrottling>,
    /// `healthCheckConfig.serviceName`: the service whose health is checked on each connection
    /// (gRFC A17); the empty name is the server as a whole, `None` checks nothing.
    pub health_service: Option<Arc<str>>,
}

impl ServiceConfig {
    /// Reads a service config.
    ///
    /// # Errors
    ///
    /// Text that is not a JSON object or is too long, `loadBalancingConfig` without a supported
    /// policy, or a bad value: field, value and allowed range.
    pub fn parse(json: &str, registry: &PolicyRegistry) -> Result<Self, ConfigError> {
        let refuse = |expected: String, got: &str| {
            Err(ConfigError { field: "(whole text)".into(), expected, got: shorten(got) })
        };
        if json.len() > CONFIG_LEN_MAX {
            let size = format!("{} bytes", json.len());
            return refuse(format!("at most {CONFIG_LEN_MAX} bytes"), &size);
        }
        let value: Value = match serde_json::from_str(json) {
            Ok(value) => value,
            Err(e) => return refuse(format!("JSON ({e})"), json),
        };
        let Value::Object(object) = &value else {
            return refuse("a JSON object".into(), json);
        };
        let policy = match (object.get("loadBalancingConfig"), object.get("loadBalancingPolicy")) {
            (Some(list), _) => Some(parse_policy_list("loadBalancingConfig", list, registry)?),
            (None, Some(name)) => Some(parse_policy_name(name, registry)?),
            (None, None) => None,
        };
        let methods = match object.get("methodConfig") {
            Some(list) => MethodConfigs::parse(list).map_err(|e| e.inside("methodConfig"))?,
            None => MethodConfigs::default(),
        };
        let retry_throttling = match object.get("retryThrottling") {
            Some(v) => Some(RetryThrottling::parse(v).map_err(|e| e.inside("retryThrottling"))?),
            None => None,
        };
        let health_service = match object.get("healthCheckConfig") {
            Some(v) => health::service(v).map_err(|e| e.inside("healthCheckConfig"))?,
            None => None,
        };
        Ok(Self { policy, methods, retry_throttling, health_service })
    }

    /// A config that names a policy and gives it no settings.
    ///
    /// # Errors
    ///
    /// The name is not in `registry`.
    pub fn for_policy(name: &str, registry: &PolicyRegistry) -> Result<Self, ConfigError> {
        let list = serde_json::json!([{ name: {} }]);
        let policy = Some(parse_policy_list("loadBalancingConfig", &list, registry)?);
        Ok(Self { policy, ..Self::default() })
    }
}

/// Reads a list of `{"policy name": {settings}}`, in which the first supported name wins; policies
/// with children read their `childPolicy` by it too.
///
/// # Errors
///
/// The list is malformed, names no supported policy, or the chosen one refuses its settings.
pub fn parse_policy_list(
    field: &str,
    list: &Value,
    registry: &PolicyRegistry,
) -> Result<PolicyConfig, ConfigError> {
    let expected = "a list of one-entry objects like [{\"round_robin\":{}}]";
    let items = list.as_array().ok_or_else(|| ConfigError::new(field, expected, list))?;
    if items.len() > POLICY_CHOICES_MAX {
        let got = Value::from(items.len());
        return Err(ConfigError::new(field, format!("at most {POLICY_CHOICES_MAX} entries"), &got));
    }
    for (i, item) in items.iter().enumerate() {
        let here = format!("{field}[{i}]");
        let (name, settings) = item
            .as_object()
            .filter(|o| o.len() == 1)
            .and_then(|o| o.iter().next())
            .ok_or_else(|| ConfigError::new(&here, "an object with one policy name", item))?;
        if let Some(factory) = registry.get(name) {
            let settings = factory
                .parse_config(settings, registry)
                .map_err(|e| e.inside(&format!("{here}.{name}")))?;
            return Ok(PolicyConfig::new(factory.clone(), settings));
        }
    }
    let known = registry.names().collect::<Vec<_>>().join(", ");
    Err(ConfigError::new(field, format!("a policy among {known}"), list))
}

fn parse_policy_name(name: &Value, registry: &PolicyRegistry) -> Result<PolicyConfig, ConfigError> {
    let field = "loadBalancingPolicy";
    let text =
        name.as_str().ok_or_else(|| ConfigError::new(field, "the name of a policy", name))?;
    let list = serde_json::json!([{ text.to_lowercase(): {} }]);
    parse_policy_list(field, &list, registry)
}

fn shorten(text: &str) -> String {
    let limit = 120;
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Option<String>, String> {
        ServiceConfig::parse(json, &PolicyRegistry::built_in())
            .map(|c| c.policy.map(|p| p.name().to_owned()))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_first_supported_policy_wins() {
        let cases = [
            ("{}", None),
            (r#"{"methodConfig":[]}"#, None),
            (r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#, Some("round_robin")),
            (r#"{"loadBalancingConfig":[{"x":{"a":1}},{"pick_first":{}}]}"#, Some("pick_first")),
            (r#"{"loadBalancingPolicy":"ROUND_ROBIN"}"#, Some("round_robin")),
            (
                r#"{"loadBalancingPolicy":"x","loadBalancingConfig":[{"pick_first":{}}]}"#,
                Some("pick_first"),
            ),
        ];
        for (json, want) in cases {
            assert_eq!(parse(json).unwrap().as_deref(), want, "{json}");
        }
    }

    #[test]
    fn a_bad_config_is_refused_with_field_value_and_range() {
        let known = "grpclb, pick_first, round_robin";
        let cases = [
            ("", "(whole text): expected JSON (EOF".to_owned()),
            ("[]", "(whole text): expected a JSON object, got []".to_owned()),
            (
                r#"{"loadBalancingConfig":{}}"#,
                "loadBalancingConfig: expected a list of one-entry objects like \
                 [{\"round_robin\":{}}], got {}"
                    .to_owned(),
            ),
            (
                r#"{"loadBalancingConfig":[{"a":{},"b":{}}]}"#,
                "loadBalancingConfig[0]: expected an object with one policy name, got {".to_owned(),
            ),
            (
                r#"{"loadBalancingConfig":[]}"#,
                format!("loadBalancingConfig: expected a policy among {known}, got []"),
            ),
            (
                r#"{"loadBalancingPolicy":7}"#,
                "loadBalancingPolicy: expected the name of a policy, got 7".to_owned(),
            ),
            (
                r#"{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":"yes"}}]}"#,
                "loadBalancingConfig[0].pick_first.shuffleAddressList: expected true or false, \
                 got \"yes\""
                    .to_owned(),
            ),
            (
                r#"{"loadBalancingConfig":[{"round_robin":3}]}"#,
                "loadBalancingConfig[0].round_robin: expected an object, got 3".to_owned(),
            ),
        ];
        for (json, want) in cases {
            let got = parse(json).unwrap_err();
            assert!(got.starts_with(&want), "{json}\n got {got}\nwant {want}");
        }
    }

    #[test]
    fn an_overlong_config_is_refused_before_it_is_read() {
        let text = format!("{{\"x\":\"{}\"}}", "y".repeat(CONFIG_LEN_MAX));
        assert!(parse(&text).unwrap_err().contains("at most 262144 bytes"));
    }
}
