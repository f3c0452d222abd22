//! Who sends the spans: `service.name` and what else there is to know of this process, from
//! OpenTelemetry's variables and, for what a pod is told of itself, from the downward API's.

use crate::{
    otlp::{KeyValue, Resource, Value, attribute, named, text},
    settings::{Lookup, SettingsError, pairs},
};

/// Attributes that `OTEL_RESOURCE_ATTRIBUTES` may have.
const ATTRIBUTES_MAX: usize = 128;

/// What the variables say of the process; `service` is its name when they say none.
pub(crate) fn read(service: &str, lookup: Lookup<'_>) -> Result<Resource, SettingsError> {
    const LIST: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let mut given = match lookup(LIST) {
        Some(list) => pairs(LIST, &list, ATTRIBUTES_MAX)?,
        None => Vec::new(),
    };
    let fallbacks = [
        ("k8s.pod.name", lookup("MY_POD_NAME")),
        ("k8s.namespace.name", lookup("MY_POD_NAMESPACE")),
    ];
    for (key, value) in fallbacks {
        if let Some(value) = value.filter(|_| !given.iter().any(|(known, _)| known == key)) {
            given.push((key.to_owned(), value));
        }
    }
    let listed = given.iter().position(|(key, _)| key == "service.name");
    let listed = listed.map(|at| given.remove(at).1);
    let name = lookup("OTEL_SERVICE_NAME").or(listed).unwrap_or_else(|| service.to_owned());
    let own: [(&'static str, Value); 5] = [
        ("service.name", text(name)),
        ("process.pid", Value::IntValue(std::process::id().into())),
        ("telemetry.sdk.name", text(env!("CARGO_PKG_NAME"))),
        ("telemetry.sdk.language", text("rust")),
        ("telemetry.sdk.version", text(env!("CARGO_PKG_VERSION"))),
    ];
    let own = own.map(|(key, value)| attribute(key, value)).into_iter();
    let given = given.into_iter().map(|(key, value)| named(key, text(value)));
    let attributes: Vec<KeyValue> = own.chain(given).collect();
    Ok(Resource { attributes, ..Resource::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(variables: &[(&str, &str)]) -> Vec<(String, Value)> {
        let lookup = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let resource = read("greeter", &lookup).expect("good");
        let value = |pair: KeyValue| pair.value.and_then(|any| any.value);
        let pairs = resource.attributes.into_iter();
        pairs.map(|pair| (pair.key.clone(), value(pair).expect("it has a value"))).collect()
    }

    fn value(of: &[(String, Value)], key: &str) -> Option<Value> {
        of.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
    }

    #[test]
    fn the_services_name_is_the_programs_unless_a_variable_says_another() {
        let listed = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=listed,a=b");
        for (variables, name) in [
            (&[][..], "greeter"),
            (&[listed], "listed"),
            (&[listed, ("OTEL_SERVICE_NAME", "named")], "named"),
        ] {
            let resource = resource(variables);
            assert_eq!(value(&resource, "service.name"), Some(text(name)));
            assert_eq!(resource.iter().filter(|(key, _)| key == "service.name").count(), 1);
        }
    }

    #[test]
    fn a_pod_is_known_by_what_it_is_told_of_itself() {
        let pod = [("MY_POD_NAME", "greeter-7"), ("MY_POD_NAMESPACE", "shop")];
        let found = resource(&pod);
        assert_eq!(value(&found, "k8s.pod.name"), Some(text("greeter-7")));
        assert_eq!(value(&found, "k8s.namespace.name"), Some(text("shop")));
        let list = ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=other%20one");
        let found = resource(&[pod[0], list]);
        assert_eq!(value(&found, "k8s.pod.name"), Some(text("other one")));
    }
}
