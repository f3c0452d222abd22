//! Real Envoy in the lab: which binary, the files it runs, its processes and what they count.
//!
//! The lab plays no part of Envoy: the files are those of `envoy/`, which a cluster runs as they
//! stand, and every figure of a proxy comes from the proxy's own counters.

mod files;
mod find;
mod process;
mod stats;
mod tracing;
mod wheel;

pub(crate) use files::{File, MESH_CLIENT, MESH_SERVER, Replacement, SIDECAR_DYNAMIC, balancer};
pub(crate) use files::{SIDECAR_STATIC, admin, backends, listener, resolver, substitute};
pub(crate) use find::{Found, Missing, find, look};
pub(crate) use process::{Envoy, Setup};
pub(crate) use stats::Stats;
pub(crate) use tracing::{CLUSTER as SPANS_CLUSTER, traced, tracer};
pub(crate) use wheel::{PINNED, pip};
