//! What a service is called here: `name.namespace`, and the port where one name has several. Text
//! that can't be a Kubernetes name is refused at the door, so that nothing behind it has to ask.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

/// The longest label of a DNS name (RFC 1035), and so of a service or a namespace.
pub const LABEL_BYTES_MAX: usize = 63;

/// A port of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// The endpoints' own port; Services, which may map ports, are not read.
    Number(u16),
    /// A port's name in the EndpointSlices.
    Named(String),
}

/// What identifies a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// In which namespace.
    pub namespace: String,
    /// The service's own name.
    pub name: String,
    /// Which of its ports; `None` where there is no choice.
    pub port: Option<Port>,
}

impl ServiceKey {
    /// Reads `name`, `name.namespace` and either with `:port`, where the port is a number or a
    /// name.
    ///
    /// # Errors
    ///
    /// What was expected and what came.
    pub fn parse(text: &str, default_namespace: &str) -> Result<Self, String> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port.parse()?)),
            None => (text, None),
        };
        let (name, namespace) = host.split_once('.').unwrap_or((host, default_namespace));
        let what = || format!("expected name, name.namespace or name.namespace:port, got {text:?}");
        check_label(name).map_err(|e| format!("{}: {e}", what()))?;
        check_label(namespace).map_err(|e| format!("{}: {e}", what()))?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), port })
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, port } = self;
        write!(f, "{name}.{namespace}")?;
        port.as_ref().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Serialize for ServiceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            return match text.parse::<u16>() {
                Ok(number) if number > 0 => Ok(Self::Number(number)),
                _ => Err(format!("expected a port from 1 to 65535, got {text}")),
            };
        }
        check_label(text)
            .map_err(|e| format!("expected a port's number or name, got {text:?}: {e}"))?;
        Ok(Self::Named(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Accepts what RFC 1123 calls a label.
pub(crate) fn check_label(text: &str) -> Result<(), String> {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.is_empty() || text.len() > LABEL_BYTES_MAX {
        return Err(format!("a name has 1 to {LABEL_BYTES_MAX} characters, {}", shown(text)));
    }
    if !text.bytes().all(inside) || text.starts_with('-') || text.ends_with('-') {
        let rule = "a name has lower-case letters, digits and inner dashes";
        return Err(format!("{rule}, {}", shown(text)));
    }
    Ok(())
}

/// A text from outside, short enough for a message.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => format!("{text:?} has not"),
        Some((end, _)) => format!("{:?}… ({} bytes) has not", &text[..end], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_and_without_namespace_and_port() {
        for (text, shown) in [
            ("greeter", "greeter.here"),
            ("greeter.there", "greeter.there"),
            ("greeter.there:8000", "greeter.there:8000"),
            ("greeter:grpc", "greeter.here:grpc"),
        ] {
            assert_eq!(ServiceKey::parse(text, "here").expect(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "1 to 63 characters"),
            ("a.b.c", "lower-case letters"),
            ("Greeter", "lower-case letters"),
            ("-a", "inner dashes"),
            ("a:0", "from 1 to 65535, got 0"),
            ("a:70000", "from 1 to 65535, got 70000"),
            ("a:", "number or name"),
            (&"a".repeat(64), "1 to 63 characters"),
        ] {
            let error = ServiceKey::parse(text, "here").expect_err(text);
            assert!(error.contains(reason), "{error}");
        }
    }
}
