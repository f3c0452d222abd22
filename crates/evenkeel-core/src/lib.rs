//! gRPC load balancing without I/O.
//!
//! This crate holds what a gRPC channel decides: which endpoints there are, which subchannels to
//! connect, which one a call takes. It opens no socket, reads no clock and draws no randomness of
//! its own: `now` (nanoseconds since the channel's epoch) and a seed come in, effects go out as
//! values. The same code runs in production, in tests and in a simulation; an ordinary
//! implementation with tasks and timers inside could only be tested by waiting for them.
//!
//! Start at [`Engine`]: inputs in, [`Output`]s out. A policy is an [`LbPolicy`]; what a call sees
//! of it is a [`Picker`].

pub mod backoff;
pub mod connectivity;
pub mod endpoint;
pub mod engine;
mod health;
pub mod observe;
pub mod picker;
pub mod policies;
pub mod policy;
pub mod resolver;
pub mod service_config;
pub mod status;
mod subchannel;
pub mod target;
#[cfg(test)]
mod testing;
mod timers;
pub mod watch;

pub use backoff::Backoff;
pub use connectivity::ConnectivityState;
pub use endpoint::{Address, Attributes, Endpoint};
pub use engine::{Engine, EngineOptions, Output};
pub use picker::{CallOutcome, CallSink, Dropped, Pick, PickArgs, PickResult, Picker};
pub use policies::grpclb::BalancerNews;
pub use policy::{Ctx, Input, LbPolicy, PolicyConfig, PolicyFactory, PolicyRegistry};
pub use resolver::{
    BALANCERS_MAX, Balancer, Balancers, ResolverError, ResolverFactory, ResolverSink, ResolverTask,
    ResolverUpdate,
};
pub use service_config::{ConfigError, ServiceConfig};
pub use status::{Code, Status};
pub use subchannel::SubchannelId;
pub use target::{Target, TargetError};
pub use timers::TimerId;
pub use watch::{
    BalancerMessage, ClientStats, ServerEntry, ServingStatus, Watch, WatchEvent, WatchId,
    WatchMessage,
};

/// A point in time or a length of it, in nanoseconds; points count from the channel's epoch.
pub type Nanos = u64;

/// One second in [`Nanos`].
pub const SECOND_NS: Nanos = 1_000_000_000;
/// One millisecond in [`Nanos`].
pub const MILLISECOND_NS: Nanos = 1_000_000;
