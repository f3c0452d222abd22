//! What is said: pure functions from configuration and snapshots to messages of Envoy's API. What
//! Envoy and gRPC are told differs in few places, which ask for the [`Dialect`].

mod cluster;
mod encode;
mod endpoints;
mod listener;
mod make;
mod route;
mod tls;

pub(super) use make::{Assignments, World, make};
pub(super) use tls::SecretFiles;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dialect {
    /// Envoy: listeners on sockets, HTTP/2 by option, secrets by SDS.
    Envoy,
    /// gRPC without a proxy: API listeners, certificates by its own bootstrap (A29).
    Grpc,
}
