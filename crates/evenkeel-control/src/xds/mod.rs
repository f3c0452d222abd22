//! xDS, the protocol by which Envoy and gRPC clients take their configuration.
//!
//! ```text
//! snapshots and configuration → Resources of a View → streams (state of the world, or delta)
//! ```
//!
//! What is said (resources) and how it is said (streams) know only the types of `resource`: a new
//! resource changes no stream, and a stream's rules are proved with resources made by hand.
//! `machine` has these rules, without I/O; `stream` is a body around it, `encode` its bytes.

mod clients;
mod counts;
mod demand;
mod encode;
mod hash;
mod load;
mod load_stream;
mod machine;
mod resource;
mod say;
mod secrets;
mod service;
mod shares;
mod stream;
mod view;
mod views;

pub use crate::stream::FIRST_REQUEST_WAIT;
pub use clients::ClientView;
pub use demand::{ON_DEMAND_PER_STREAM_MAX, ON_DEMAND_RETRY};
pub use load::{
    ClusterLoad, LOAD_CLUSTERS_MAX, LOAD_NAMES_MAX, LoadTotals, LocalityLoad, MetricLoad,
};
pub use machine::{
    ACK_WAIT_MAX, DETAIL_BYTES_MAX, KindView, NAMES_MAX, RESPONSE_BYTES_SOFT_MAX, Variant,
};
pub use resource::{Followed, Kind, KindResources, Resource, Resources, Views};
pub use service::{
    ADS_SERVICE_NAME, Ads, DEFAULT_LOAD_REPORT_INTERVAL, LRS_SERVICE_NAME, Lrs, Xds, XdsSettings,
};
pub use stream::{NODE_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTS_BURST, REQUESTS_PER_S_MAX};
pub use views::{ASKED_MAX, NodeViews, SYNC_WAIT_MAX, VIEWS_MAX};
