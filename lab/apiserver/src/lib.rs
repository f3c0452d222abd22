//! A double of the Kubernetes API server, for EndpointSlices alone: list, watch, streaming list,
//! get, create, replace, delete over HTTP/1.1 on a loopback address, without TLS and accounts.
//!
//! It exists because a real API server needs etcd, root and a minute; what is tested against it
//! here is also tested there: `tests/behaviour.rs` runs the same assertions against this and, in
//! CI's tier `cluster`, against kube-apiserver. On top it can be told to fail: see [`Fault`],
//! [`ApiServer::stop`], [`ApiServer::compact`].
//!
//! What it does not have: resources but EndpointSlices, validation of their content, paging,
//! set-based selectors, field selectors, patches, JSON other than compact.

mod answer;
mod fault;
mod query;
mod routes;
mod selector;
mod server;
mod slice;
mod store;
mod stream;

pub use fault::{Fault, StreamingLists};
pub use server::{ApiServer, Kind, REQUESTS_KEPT_MAX, Seen};
pub use slice::{SliceEndpoint, SliceSpec};
pub use store::HISTORY_MAX;
