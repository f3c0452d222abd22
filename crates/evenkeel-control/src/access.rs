//! Which clients may ask for a service: by the name in their verified certificate (mTLS), a SPIFFE
//! ID or a DNS name. Without a rule anybody may, because a balancer tells addresses and no secrets.

use std::fmt;

use evenkeel_server::tls::PeerNames;
use serde::{Serialize, Serializer};

/// The most names in one rule.
pub const NAMES_MAX: usize = 1_000;

/// The names that may ask; one of them has to be in the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed(Vec<Name>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Spiffe(String),
    /// All IDs that begin so; the text ends with a slash.
    SpiffeBelow(String),
    Dns(String),
}

/// One of the names that a certificate may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// This URI.
    Uri(&'a str),
    /// A URI that begins so.
    UriBelow(&'a str),
    /// This DNS name.
    Dns(&'a str),
}

impl Allowed {
    /// Reads names: `spiffe://trust-domain/path`, the same with `/*` at its end for all below, or a
    /// DNS name.
    ///
    /// # Errors
    ///
    /// A text that is neither, with what was expected.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let names: Vec<Name> = names.into_iter().map(name).collect::<Result<_, _>>()?;
        match names.len() {
            0 => Err("expected at least one name; leave allow out to let anybody ask".into()),
            1..=NAMES_MAX => Ok(Self(names)),
            many => Err(format!("expected at most {NAMES_MAX} names, got {many}")),
        }
    }

    /// What a certificate is compared with, for those that compare it themselves.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
        self.0.iter().map(|name| match name {
            Name::Spiffe(id) => Wanted::Uri(id),
            Name::SpiffeBelow(prefix) => Wanted::UriBelow(prefix),
            Name::Dns(dns) => Wanted::Dns(dns),
        })
    }

    /// Whether a client with this certificate may ask.
    #[must_use]
    pub fn accepts(&self, names: Option<&PeerNames>) -> bool {
        let Some(names) = names else { return false };
        let spiffe = names.spiffe_id().unwrap_or_default();
        self.0.iter().any(|name| match name {
            Name::Spiffe(id) => id == spiffe,
            Name::SpiffeBelow(prefix) => spiffe.starts_with(prefix.as_str()),
            Name::Dns(dns) => names.dns_names().iter().any(|one| one.eq_ignore_ascii_case(dns)),
        })
    }
}

fn name(text: &str) -> Result<Name, String> {
    if let Some(rest) = text.strip_prefix("spiffe://") {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "./-_".contains(c);
        let (path, below) = match rest.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (rest, false),
        };
        let empty = path.split('/').any(str::is_empty);
        if !empty && path.chars().all(allowed) {
            return Ok(match below {
                true => Name::SpiffeBelow(format!("spiffe://{path}/")),
                false => Name::Spiffe(text.to_owned()),
            });
        }
    } else if is_dns_name(text) {
        return Ok(Name::Dns(text.to_owned()));
    }
    Err(format!(
        "expected spiffe://trust-domain/path, spiffe://trust-domain/* or a DNS name, got {text:?}"
    ))
}

fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(text) | Self::Dns(text) => f.write_str(text),
            Self::SpiffeBelow(text) => write!(f, "{text}*"),
        }
    }
}

impl Serialize for Allowed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Name::to_string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none_are_refused_with_the_forms_there_are() {
        for text in ["", "spiffe://", "spiffe:///a", "a b", "https://a.test", "spiffe://a//b"] {
            let error = Allowed::parse([text]).expect_err(text);
            assert!(error.contains("expected spiffe://") && error.contains(text), "{error}");
        }
        assert!(Allowed::parse([]).expect_err("none").contains("leave allow out"));
    }

    #[test]
    fn without_a_certificate_nobody_is_on_the_list() {
        let allowed = Allowed::parse(["spiffe://a.test/*", "b.test"]).expect("good names");
        assert!(!allowed.accepts(None));
        assert!(!allowed.accepts(Some(&PeerNames::default())));
    }
}
