//! Endpoints: what a resolver finds and a policy chooses from.

use std::{fmt, net::SocketAddr, path::PathBuf};

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

/// One backend: it has at least one address, and any of them reaches it (gRFC A61).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    addresses: Vec<Address>,
}

impl Endpoint {
    /// An endpoint with one address.
    pub fn new(address: impl Into<Address>) -> Self {
        Self { addresses: vec![address.into()] }
    }

    /// An endpoint with all of these addresses, in the order in which they are tried; `None` when
    /// there is none.
    pub fn with_addresses(addresses: Vec<Address>) -> Option<Self> {
        (!addresses.is_empty()).then_some(Self { addresses })
    }

    /// The addresses, at least one.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}
