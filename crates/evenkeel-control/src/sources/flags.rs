//! Endpoints on the command line: `greeter=127.0.0.2:8000,127.0.0.3:8000`, for a first try and for
//! fleets that never change.

use std::collections::BTreeSet;

use crate::{
    config::{Config, ServiceConfig, endpoint_address},
    key::ServiceKey,
    snapshot::{ENDPOINTS_MAX, Endpoint},
};

/// Reads `NAME=IP:PORT,IP:PORT`, where the name is `name` or `name.namespace` with or without
/// `:port`. No address is a service without endpoints.
///
/// # Errors
///
/// What was expected and what came.
pub fn backends(
    text: &str,
    default_namespace: &str,
) -> Result<(ServiceKey, Vec<Endpoint>), String> {
    let (name, list) = text
        .split_once('=')
        .ok_or_else(|| format!("expected SERVICE=IP:PORT,IP:PORT, got {text:?}"))?;
    let key = ServiceKey::parse(name, default_namespace)?;
    let mut seen = BTreeSet::new();
    let mut endpoints = Vec::new();
    for item in list.split(',').filter(|item| !item.is_empty()) {
        let address = endpoint_address(item)?;
        if !seen.insert(address) {
            return Err(format!("{key}: the address {address} is there twice"));
        }
        endpoints.push(Endpoint::new(address));
    }
    match endpoints.len() > ENDPOINTS_MAX {
        true => Err(format!("{key}: expected at most {ENDPOINTS_MAX} addresses")),
        false => Ok((key, endpoints)),
    }
}

/// Reads the name of a Service whose pods are clients: `name` or `name.namespace`.
///
/// # Errors
///
/// What was expected and what came.
pub fn client_service(text: &str, default_namespace: &str) -> Result<ServiceKey, String> {
    let key = ServiceKey::parse(text, default_namespace)?;
    if key.port.is_some() {
        let why = "clients are asked for no port";
        return Err(format!("expected name or name.namespace, got {text:?}; {why}"));
    }
    Ok(key)
}

/// A configuration of these services.
///
/// # Errors
///
/// A service that is there twice.
pub fn config(services: Vec<(ServiceKey, Vec<Endpoint>)>) -> Result<Config, String> {
    let mut config = Config::default();
    for (key, endpoints) in services {
        let service = ServiceConfig { endpoints: Some(endpoints), ..ServiceConfig::default() };
        if config.services.insert(key.clone(), service).is_some() {
            return Err(format!("{key} is there twice; list all its addresses at once"));
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_their_addresses_are_read() {
        let (key, endpoints) = backends("a.b:grpc=127.0.0.1:1,[::1]:2", "x").expect("good");
        assert_eq!((key.to_string().as_str(), endpoints.len()), ("a.b:grpc", 2));
        assert_eq!(backends("a=", "x").expect("no endpoints").1, []);
    }

    #[test]
    fn bad_input_is_refused_with_what_was_expected() {
        for (text, reason) in [
            ("", "expected SERVICE="),
            ("a", "expected SERVICE="),
            ("=1.1.1.1:1", "1 to 63 characters"),
            ("a=1.1.1.1", "expected an IP address and a port"),
            ("a=1.1.1.1:0", "from 1 to 65535"),
            ("a=1.1.1.1:70000", "from 1 to 65535"),
            ("a=b:1", "expected an IP address"),
            ("a=1.1.1.1:1,1.1.1.1:1", "1.1.1.1:1 is there twice"),
        ] {
            let error = backends(text, "x").expect_err(text);
            assert!(error.contains(reason), "{error}");
        }
        let one = || backends("a=1.1.1.1:1", "x").expect("good");
        assert!(config(vec![one(), one()]).expect_err("twice").contains("a.x is there twice"));
    }
}
