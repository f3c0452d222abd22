//! `healthCheckConfig` (gRFC A17). The name is a wrapped string in the service config's protobuf
//! form, so an object without it checks nothing, where grpc-go checks the empty name.

use std::sync::Arc;

use serde_json::Value;

use super::ConfigError;

/// The service to ask for, if any.
pub(super) fn service(json: &Value) -> Result<Option<Arc<str>>, ConfigError> {
    let object = json.as_object().ok_or_else(|| ConfigError::new("", "an object", json))?;
    match object.get("serviceName") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.as_str().into())),
        Some(other) => Err(ConfigError::new("serviceName", "the name of a service", other)),
    }
}

#[cfg(test)]
mod tests {
    use crate::{PolicyRegistry, ServiceConfig};

    #[test]
    fn a_name_even_an_empty_one_turns_checks_on() {
        let cases = [
            ("{}", Ok(None)),
            (r#"{"healthCheckConfig":{}}"#, Ok(None)),
            (r#"{"healthCheckConfig":{"serviceName":null}}"#, Ok(None)),
            (r#"{"healthCheckConfig":{"serviceName":""}}"#, Ok(Some(""))),
            (r#"{"healthCheckConfig":{"serviceName":"a.B","other":1}}"#, Ok(Some("a.B"))),
            (r#"{"healthCheckConfig":[]}"#, Err("healthCheckConfig: expected an object, got []")),
            (
                r#"{"healthCheckConfig":{"serviceName":7}}"#,
                Err("healthCheckConfig.serviceName: expected the name of a service, got 7"),
            ),
        ];
        for (json, want) in cases {
            let got = ServiceConfig::parse(json, &PolicyRegistry::built_in());
            let got = got.map(|c| c.health_service).map_err(|e| e.to_string());
            let got = got.as_ref().map(Option::as_deref).map_err(String::as_str);
            assert_eq!(got, want, "{json}");
        }
    }
}
