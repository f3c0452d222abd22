//! The balancer's engine: what sources say of endpoints becomes a snapshot of each service, and
//! protocols bring snapshots to clients.
//!
//! ```text
//! flags, YAML file, EndpointSlices → Config and Change → Control → Snapshot → grpclb streams
//!                                                                       └───→ xDS streams
//! ```
//!
//! Snapshots know nothing of protocols and sources nothing of clients: each protocol is one more
//! reader. Merging, ordering, encoding and naming are plain functions; I/O is in
//! `sources` and in the streams.
//!
//! ```no_run
//! use evenkeel_control::{Control, config::Config, grpclb::{Grpclb, GrpclbSettings}};
//! use evenkeel_control::names::NameRules;
//! use evenkeel_server::Server;
//! use tonic::service::Routes;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let yaml = "services: [{name: greeter, endpoints: [{address: \"10.0.0.1:8000\"}]}]";
//! let control = Control::new(NameRules::default(), Config::default());
//! control.configure(&Config::from_yaml(yaml, "grpclb.yaml", "default")?);
//! let grpclb = Grpclb::new(control, GrpclbSettings::default());
//! let server = Server::builder().build(Routes::new(grpclb))?;
//! server.serve([tokio::net::TcpListener::bind("0.0.0.0:9000").await?]).await?;
//! # Ok(()) }
//! ```

pub mod access;
pub mod config;
mod control;
mod demand;
mod drain;
pub mod grpclb;
mod key;
pub mod merge;
pub mod metrics;
pub mod names;
mod newest;
mod observe;
mod peer;
mod room;
pub mod snapshot;
pub mod sources;
pub mod status;
mod stream;
pub mod weights;
mod wire;
pub mod xds;
mod zones;

pub use control::{Control, SourceStatus};
pub use demand::{ABSENT_TIME, ON_DEMAND_IDLE, ON_DEMAND_MAX};
pub use key::{LABEL_BYTES_MAX, Port, ServiceKey};
pub use observe::{Refusal, Warning};
pub use peer::Peer;
pub use zones::CLIENT_SERVICES_MAX;
