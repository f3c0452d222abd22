//! A gRPC channel for tonic clients, with gRPC's own load balancing.
//!
//! Kubernetes balances connections and gRPC keeps one, so all calls of a client land on one pod.
//! [`Channel`] resolves the target to all of its endpoints, connects to each, picks one per call,
//! and never loses a call to a connection that ends politely. It is a `tower::Service` and goes
//! under every generated tonic client:
//!
//! ```no_run
//! # async fn example() -> Result<(), evenkeel::BuildError> {
//! let channel = evenkeel::Channel::builder("dns:///greeter.default:8000").build()?;
//! // let mut client = GreeterClient::new(channel);
//! # Ok(()) }
//! ```
//!
//! The feature `tls` adds the module `tls` and `ChannelBuilder::tls`; the feature `kubernetes` adds
//! the module `kubernetes` and targets `kubernetes:///greeter.default:8000`, whose endpoints come
//! from the cluster's EndpointSlices.
//!
//! Without a service config the policy is `round_robin`, where gRPC's default is `pick_first`: one
//! connection is the problem that this crate is for.

mod builder;
mod call;
mod channel;
mod connector;
pub mod dns;
mod driver;
mod edge;
mod idleness;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod layers;
mod literal;
mod meter;
mod resolving;
mod sync;
#[cfg(feature = "tls")]
pub mod tls;
mod transport;
mod unix;
pub mod view;
mod watching;

pub use builder::{
    Backoff, BuildError, CONNECT_TIMEOUT, ChannelBuilder, IDLE_TIMEOUT, IDLE_TIMEOUT_MIN,
    KEEPALIVE_TIME_MIN, Keepalive,
};
pub use call::{CallFuture, ResponseBody};
pub use channel::{Backend, CallOptions, Channel};
pub use connector::{BoxedIo, Connecting, Connector, IoStream};
pub use evenkeel_core as core;
pub use evenkeel_core::ConnectivityState;
pub use layers::{
    AttemptKind, AttemptLayer, AttemptStart, CallLayer, CallStart, OnAttemptEnd, OnCallEnd,
};
pub use meter::{AttemptEnd, CallEnd, CallMeter};
pub use view::{ChannelSnapshot, ChannelView};
