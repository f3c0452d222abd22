//! Which Service, and which port of its endpoints. Both come from targets and configuration and go
//! into URLs, so they are checked once, here.

use std::{fmt, str::FromStr};

/// The longest DNS label, in bytes: names of Services, namespaces and ports are no longer.
const LABEL_LEN_MAX: usize = 63;

/// The name of a Service in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    namespace: String,
    name: String,
}

impl ServiceKey {
    /// The Service `name` in `namespace`.
    ///
    /// # Errors
    ///
    /// One of them is no DNS label (1 to 63 of a-z, 0-9 and '-'); says which.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Result<Self, String> {
        let (namespace, name) = (namespace.into(), name.into());
        label("namespace", &namespace)?;
        label("Service's name", &name)?;
        Ok(Self { namespace, name })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// A port of endpoints. The Service itself is not read, so that a number is the port that pods
/// listen on (`targetPort`), not the Service's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// The port that the slices give this name; its number may differ from pod to pod.
    Named(String),
    /// The port with this number.
    Number(u16),
}

impl FromStr for Port {
    type Err = String;

    /// Reads `8000` or `grpc`.
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse() {
                Ok(number) if number != 0 => Ok(Self::Number(number)),
                _ => Err(format!("the port is {text:?}; expected a number from 1 to 65535")),
            };
        }
        label("port", text).map_err(|e| format!("{e}, or a number from 1 to 65535"))?;
        Ok(Self::Named(text.to_owned()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

fn label(what: &str, text: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let hyphen_outside = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > LABEL_LEN_MAX || hyphen_outside || !text.bytes().all(inner) {
        let shown: String = text.chars().take(LABEL_LEN_MAX + 1).collect();
        return Err(format!(
            "the {what} is {shown:?}; expected 1 to {LABEL_LEN_MAX} of a-z, 0-9 and '-', with no \
             '-' at either end"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports() {
        assert_eq!("8000".parse(), Ok(Port::Number(8000)));
        assert_eq!("grpc".parse(), Ok(Port::Named("grpc".into())));
        assert_eq!("8-x".parse(), Ok(Port::Named("8-x".into())));
        for bad in ["", "0", "65536", "99999999999", "+80", "Grpc", "a_b", "-a", "a-", "a.b"] {
            let error = bad.parse::<Port>().unwrap_err();
            assert!(error.contains("expected") && error.contains("65535"), "{bad}: {error}");
        }
    }

    #[test]
    fn keys_are_dns_labels() {
        assert_eq!(ServiceKey::new("default", "greeter").unwrap().to_string(), "greeter.default");
        let error = ServiceKey::new("default", "greeter/../x").unwrap_err();
        assert!(error.starts_with("the Service's name is \"greeter/../x\"; expected"), "{error}");
        let error = ServiceKey::new("", "greeter").unwrap_err();
        assert!(error.starts_with("the namespace is \"\"; expected"), "{error}");
        assert!(ServiceKey::new("x".repeat(63), "y").is_ok());
        assert!(ServiceKey::new("x".repeat(64), "y").is_err());
    }
}
