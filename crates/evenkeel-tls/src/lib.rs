//! What TLS needs on both sides of a connection, so that channel and server do not have it twice:
//! certificates and roots, from memory or from files that are watched; the crypto provider; the
//! names in a peer's certificate. `evenkeel` and `evenkeel-server` re-export it as their `tls`
//! modules; there is no need to depend on this crate.
//!
//! # Rotation
//!
//! Nothing here runs by itself. Files are looked at when a connection is about to shake hands, at
//! most once per interval: connections that stand keep what they began with, so nothing else has
//! to know. What can't be used (half written, no PEM, a key that belongs to another certificate)
//! leaves the last good content in use; a warning and [`WatchStatus`] say so.
//!
//! # Crypto provider
//!
//! This crate links none. It takes the one it is given, else the one that the application has
//! installed (`CryptoProvider::install_default`), else the only one that rustls was built with.
//! rustls itself panics when there is none or when there are two; here that is a [`TlsError`].

mod error;
mod identity;
mod pem;
mod provider;
mod roots;
mod rotating;
mod source;
mod spiffe;

pub use error::TlsError;
pub use identity::Identity;
pub use provider::provider;
pub use roots::Roots;
pub use rotating::{Material, Rotating};
pub use rustls;
pub use source::{FILE_BYTES_MAX, WATCH_INTERVAL, WatchStatus};
pub use spiffe::{PeerNames, Refused, SPIFFE_ID_BYTES_MAX, SpiffeRule, SpiffeRules};

/// The protocol of gRPC in ALPN (RFC 7301): HTTP/2 over TLS.
pub const ALPN_H2: &[u8] = b"h2";
