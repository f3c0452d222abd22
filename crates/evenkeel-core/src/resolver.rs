//! Resolvers turn a target into endpoints. A resolver knows nothing of policies: it is a task that
//! reports what it found, and is asked to look again.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{Address, Endpoint, ServiceConfig, Status, Target, TargetError};

/// The endpoints that a resolver found, all of them: each update replaces the one before.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ResolverUpdate {
    /// The endpoints; an empty list is a valid answer and fails calls at once.
    pub endpoints: Vec<Endpoint>,
    /// The service config that the name system publishes, if any; it goes before the channel's own.
    pub service_config: Option<Arc<ServiceConfig>>,
    /// Where the balancers are that know better backends, in the order of preference; only
    /// `grpclb` uses them.
    pub balancers: Balancers,
}

/// What a resolver knows of balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balancers {
    /// There are none, or nobody asked for them.
    #[default]
    None,
    /// They are being looked up: another update tells, with or without them.
    Pending,
    /// These, in the order in which they are tried; at most [`BALANCERS_MAX`] are used.
    Found(Arc<[Balancer]>),
}

/// The balancers that are tried at most; those behind them are ignored.
pub const BALANCERS_MAX: usize = 64;

/// One address of a balancer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Balancer {
    /// Where it is.
    pub address: Address,
    /// Its own name: the `:authority` of its streams, and what its certificate has to say. `None`:
    /// that of the channel.
    pub name: Option<Arc<str>>,
}

impl ResolverUpdate {
    /// An update with endpoints and nothing else.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self { endpoints, service_config: None, balancers: Balancers::None }
    }
}

/// What a resolver could not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverError {
    /// The status that calls get when there are no endpoints to serve them.
    pub status: Status,
    /// True when the last good list is too old to be trusted: connections that stand serve on, but
    /// none is made to its addresses any more.
    pub expired: bool,
}

/// Where a resolver reports, and hears that a fresh look is wanted. The channel implements it.
pub trait ResolverSink: Send + Sync {
    /// A complete answer.
    fn update(&self, update: ResolverUpdate);

    /// No answer. The last good list stays in use unless the error says that it is expired.
    fn error(&self, error: ResolverError);

    /// What is known can't be renewed from now on, and why; or (`None`) it can again. Told at each
    /// change, by resolvers that keep a good list while they have no newer one, and so report no
    /// error. What is in use stays in use: a channel tells its recorder, and does nothing else.
    fn renewal(&self, error: Option<&Status>) {
        let _ = error;
    }

    /// Ready when the channel asks to resolve again (a connection was lost, say). Requests between
    /// two polls count as one. Only the last task that polled is woken.
    fn poll_requested(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A resolver at work. It ends when the channel drops it.
pub type ResolverTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes resolvers for one or more schemes. Registered with a channel's builder, never globally.
pub trait ResolverFactory: Send + Sync {
    /// The schemes that it serves, e.g. `["dns"]`.
    fn schemes(&self) -> &[&str];

    /// The `:authority` of calls to this target (`host[:port]`).
    ///
    /// # Errors
    ///
    /// The target's path or authority is not what this resolver reads.
    fn default_authority(&self, target: &Target) -> Result<String, TargetError>;

    /// Starts to resolve: the returned future runs as one task until the channel drops it.
    /// Called again when the channel leaves IDLE again.
    ///
    /// # Errors
    ///
    /// The target's path or authority is not what this resolver reads.
    fn start(
        &self,
        target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError>;
}
