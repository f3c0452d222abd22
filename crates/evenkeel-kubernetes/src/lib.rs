//! The endpoints of Kubernetes Services: a watch on EndpointSlices, merged into sets that a
//! resolver or a balancer can use as they are.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use evenkeel_kubernetes::{Cluster, Port, Selection, ServiceKey, State};
//!
//! let cluster = Cluster::infer()?;
//! let mut watch = cluster.watch(ServiceKey::new("default", "greeter")?);
//! let selection = Selection::new(Port::Number(8000));
//! loop {
//!     match watch.changed().await {
//!         State::Good { slices, .. } => println!("{:?}", slices.select(&selection)?),
//!         State::Failed(error) => println!("nothing known: {error}"),
//!         _ => {}
//!     }
//! }
//! # }
//! ```
//!
//! All watches of a process on one Service of one cluster share one request: streaming list where
//! the API server has it, else list and watch; the last good set is kept while there is no
//! connection. What it needs is the right to `list` and `watch` `endpointslices` in the Service's
//! namespace, and nothing else; Services, Pods and Nodes are not read.
//!
//! This crate is its own client of the API server, because `kube` brings assembly that a C
//! compiler has to build, and makes every application choose a version of `k8s-openapi`.

mod api;
mod cluster;
mod connection;
mod error;
mod follow;
mod select;
mod service;
mod slices;
mod watch;

pub use cluster::{Cluster, ClusterError};
pub use error::{WatchError, WatchErrorKind};
pub use select::{PortMismatch, Selection};
pub use service::{Port, ServiceKey};
pub use slices::{ENDPOINTS_MAX, SLICES_MAX, Slices};
pub use watch::{State, Watch};
