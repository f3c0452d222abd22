//! xDS, the protocol by which Envoy and gRPC clients take their configuration.
//!
//! ```text
//! snapshots and configuration → Resources of a View → streams (state of the world, or delta)
//! ```
//!
//! What is said (resources) and how it is said (streams) know only the types of `resource`: a new
//! resource changes no stream, and a stream's rules are proved with resources made by hand.

mod resource;

pub use resource::{Followed, Kind, KindResources, Resource, Resources, Views};
