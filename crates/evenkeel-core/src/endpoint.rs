//! Endpoints: what a resolver finds and a policy chooses from.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

/// One address that a subchannel can connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The name of a Unix socket in Linux's abstract namespace, without its leading zero byte.
    UnixAbstract(String),
    /// A name that only a connector of the user's own understands.
    Named(String),
}

impl Address {
    /// True for an IPv6 address; happy eyeballs (gRFC A61) interleaves the two families.
    pub fn is_ipv6(&self) -> bool {
        matches!(self, Self::Tcp(a) if a.is_ipv6())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(a) => a.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "unix-abstract:{name}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(a: SocketAddr) -> Self {
        Self::Tcp(a)
    }
}

/// What a resolver knows of an endpoint beside its addresses. It says nothing about which endpoint
/// this is: when it changes, connections stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// The zone of its locality, e.g. `eu-west-1a`.
    pub zone: Option<Arc<str>>,
    /// The machine that it runs on.
    pub node: Option<Arc<str>>,
    /// The name of its workload: the pod's.
    pub pod: Option<Arc<str>>,
}

/// One backend: it has at least one address, and any of them reaches it (gRFC A61). Two endpoints
/// are equal when their addresses are, whatever their [`Attributes`].
#[derive(Clone, Debug)]
pub struct Endpoint {
    addresses: Vec<Address>,
    attributes: Attributes,
}

impl Endpoint {
    /// An endpoint with one address.
    pub fn new(address: impl Into<Address>) -> Self {
        Self { addresses: vec![address.into()], attributes: Attributes::default() }
    }

    /// An endpoint with all of these addresses, in the order in which they are tried; `None` when
    /// there is none.
    pub fn with_addresses(addresses: Vec<Address>) -> Option<Self> {
        let attributes = Attributes::default();
        (!addresses.is_empty()).then_some(Self { addresses, attributes })
    }

    /// The same endpoint with other attributes.
    #[must_use]
    pub fn with_attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }

    /// The addresses, at least one.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// What else is known of it.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.addresses == other.addresses
    }
}

impl Eq for Endpoint {}

impl Hash for Endpoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addresses.hash(state);
    }
}

impl PartialOrd for Endpoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Endpoint {
    fn cmp(&self, other: &Self) -> Ordering {
        self.addresses.cmp(&other.addresses)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn attributes_are_no_part_of_an_endpoints_identity() {
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        let plain = Endpoint::new(address);
        let zone = Attributes { zone: Some("a".into()), ..Attributes::default() };
        let zoned = plain.clone().with_attributes(zone);
        assert_eq!(plain, zoned);
        assert_eq!(zoned.attributes().zone.as_deref(), Some("a"));
        assert_eq!(HashSet::from([plain.clone(), zoned.clone()]).len(), 1);
        assert_eq!(BTreeSet::from([plain, zoned]).len(), 1);
    }
}
