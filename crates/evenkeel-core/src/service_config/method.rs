//! Settings per method (gRFC A2, `methodConfig`): which entry applies is one look-up, so that a
//! call can ask on its way.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{duration, retry::RetryPolicy};
use crate::{ConfigError, Nanos};

/// The most entries that `methodConfig` may have, and names that one of them may have.
pub const METHOD_CONFIGS_MAX: usize = 1_000;

/// The settings of one or more methods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodConfig {
    /// Whether calls wait for ready when they don't say.
    pub wait_for_ready: Option<bool>,
    /// The longest that a call may take; its own deadline counts when that is sooner.
    pub timeout_ns: Option<Nanos>,
    /// How failed attempts are repeated.
    pub retry_policy: Option<RetryPolicy>,
}

/// All of them, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodConfigs {
    configs: Vec<MethodConfig>,
    /// `/service/method`, `/service/`, or empty for the default → place in `configs`.
    by_path: BTreeMap<String, usize>,
}

impl MethodConfigs {
    /// The settings for a call's path: those of the method, else of its service, else the default.
    pub fn of(&self, path: &str) -> Option<&MethodConfig> {
        if self.by_path.is_empty() {
            return None;
        }
        let service = path.rfind('/').map_or("", |end| &path[..=end]);
        let place = [path, service, ""].into_iter().find_map(|key| self.by_path.get(key))?;
        self.configs.get(*place)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.configs.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.configs.is_empty()
    }

    pub(super) fn parse(json: &Value) -> Result<Self, ConfigError> {
        let list = json.as_array().ok_or_else(|| ConfigError::new("", "a list", json))?;
        let mut all = Self::default();
        check_len("", list)?;
        for (i, entry) in list.iter().enumerate() {
            all.add(entry).map_err(|e| e.inside(&format!("[{i}]")))?;
        }
        Ok(all)
    }

    fn add(&mut self, json: &Value) -> Result<(), ConfigError> {
        let object = json.as_object().ok_or_else(|| ConfigError::new("", "an object", json))?;
        let config = MethodConfig {
            wait_for_ready: match object.get("waitForReady") {
                None => None,
                Some(v) => Some(
                    v.as_bool()
                        .ok_or_else(|| ConfigError::new("waitForReady", "true or false", v))?,
                ),
            },
            timeout_ns: match object.get("timeout") {
                None => None,
                Some(v) => Some(duration::parse("timeout", v)?),
            },
            retry_policy: match object.get("retryPolicy") {
                None => None,
                Some(v) => Some(RetryPolicy::parse(v).map_err(|e| e.inside("retryPolicy"))?),
            },
        };
        let place = self.configs.len();
        let none = Value::Null;
        let names = object.get("name").unwrap_or(&none);
        check_len("name", names.as_array().map_or(&[], Vec::as_slice))?;
        // An entry without a name applies to nothing, and is allowed.
        for (i, name) in names.as_array().into_iter().flatten().enumerate() {
            let here = format!("name[{i}]");
            let key = key(name).map_err(|e| e.inside(&here))?;
            if self.by_path.insert(key, place).is_some() {
                return Err(ConfigError::new(here, "each name once", name));
            }
        }
        self.configs.push(config);
        Ok(())
    }
}

fn check_len(field: &str, list: &[Value]) -> Result<(), ConfigError> {
    if list.len() <= METHOD_CONFIGS_MAX {
        return Ok(());
    }
    let expected = format!("at most {METHOD_CONFIGS_MAX} entries");
    Err(ConfigError::new(field, expected, &Value::from(list.len())))
}

fn key(name: &Value) -> Result<String, ConfigError> {
    let object = name.as_object().ok_or_else(|| ConfigError::new("", "an object", name))?;
    match (text(object, "service")?, text(object, "method")?) {
        ("", "") => Ok(String::new()),
        ("", _) => Err(ConfigError::new("service", "a service, as there is a method", name)),
        (service, method) => Ok(format!("/{service}/{method}")),
    }
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, ConfigError> {
    match object.get(name) {
        None => Ok(""),
        Some(v) => v.as_str().ok_or_else(|| ConfigError::new(name, "a name", v)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_method_goes_before_its_service_and_that_before_the_default() {
        let configs = MethodConfigs::parse(&json!([
            {
                "name": [{ "service": "a.S", "method": "M" }, { "service": "b.T" }],
                "timeout": "1s",
            },
            { "name": [{ "service": "a.S" }], "timeout": "2s" },
            { "name": [{}], "waitForReady": true },
            { "timeout": "9s" },
        ]))
        .unwrap();
        let timeout = |path| configs.of(path).unwrap().timeout_ns.map(|ns| ns / 1_000_000_000);
        assert_eq!(timeout("/a.S/M"), Some(1));
        assert_eq!(timeout("/a.S/N"), Some(2));
        assert_eq!(timeout("/b.T/X"), Some(1));
        assert_eq!(timeout("/a.SS/M"), None);
        assert_eq!(configs.of("/x/y").unwrap().wait_for_ready, Some(true));
        assert_eq!(MethodConfigs::default().of("/x/y"), None);
    }

    #[test]
    fn refuses_each_bad_entry_by_its_place() {
        let cases = [
            (json!({}), ": expected a list, got {}"),
            (json!([1]), "[0]: expected an object, got 1"),
            (json!([{ "waitForReady": 1 }]), "[0].waitForReady: expected true or false, got 1"),
            (json!([{ "timeout": "1" }]), "[0].timeout: expected seconds with an s"),
            (json!([{ "name": [{ "method": "M" }] }]), "[0].name[0].service: expected a service"),
            (json!([{ "name": [{ "service": 1 }] }]), "[0].name[0].service: expected a name"),
            (json!([{ "name": [{}] }, { "name": [{}] }]), "[1].name[0]: expected each name once"),
            (json!([{ "retryPolicy": {} }]), "[0].retryPolicy.maxAttempts: expected a value"),
            (json!(vec![json!({}); 1_001]), ": expected at most 1000 entries, got 1001"),
        ];
        for (value, want) in cases {
            let error = MethodConfigs::parse(&value).unwrap_err().to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }
}
