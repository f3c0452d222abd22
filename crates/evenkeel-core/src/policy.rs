//! The contract between an engine and its policies, and between a policy and its children.
//!
//! A policy is a tree node that owns its children. Inputs go down, effects go out through [`Ctx`],
//! and state comes up by asking: after a child's `handle` its parent reads `state()`, and
//! `picker()` only when something is to be published. Callbacks from child to parent would make
//! every policy deal with being called while it calls.

use std::{any::Any, collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;

use crate::{
    Address, BalancerNews, Balancers, ConfigError, ConnectivityState, Endpoint, Nanos, Picker,
    ResolverError, Status, SubchannelId, TimerId, Watch, WatchEvent, WatchId, WatchMessage,
    engine::Effects,
};

/// What happens to a policy.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Input<'a> {
    /// The endpoints and the policy's own settings, complete and new or unchanged.
    ResolverUpdate {
        /// All endpoints.
        endpoints: &'a [Endpoint],
        /// The policy's settings, made by its own factory.
        config: &'a PolicyConfig,
    },
    /// The resolver has no answer.
    ResolverError(&'a ResolverError),
    /// A subchannel that this policy or a child of it created changed its state.
    SubchannelState {
        /// Which one.
        id: SubchannelId,
        /// Its new state.
        state: ConnectivityState,
        /// Why, when it is TRANSIENT_FAILURE.
        error: Option<&'a Status>,
    },
    /// What health checking says of a READY subchannel for which this policy or a child of it
    /// called [`Ctx::check_health`] (gRFC A17). The connection is not concerned.
    SubchannelHealth {
        /// Which one.
        id: SubchannelId,
        /// CONNECTING until an answer came, READY, or TRANSIENT_FAILURE.
        state: ConnectivityState,
        /// Why, when it is TRANSIENT_FAILURE.
        error: Option<&'a Status>,
    },
    /// What came of a watch that this policy or a child of it began.
    WatchEvent {
        /// Which one.
        id: WatchId,
        /// A message, or the end.
        event: &'a WatchEvent,
    },
    /// A timer that this policy or a child of it set is due.
    Timer(TimerId),
    /// A call or the user wants the channel to connect; also what a parent tells an IDLE child.
    ExitIdle,
    /// The policy is about to be dropped: time for a last word on its watches, which end then like
    /// everything else of it. A parent passes it on if its children can have something to say.
    Shutdown,
}

/// A load-balancing policy.
pub trait LbPolicy: Send {
    /// Takes one input. A change of `state()` or of what `picker()` would return is announced by
    /// [`Ctx::publish`].
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>);

    /// The state that the channel has by this policy.
    fn state(&self) -> ConnectivityState;

    /// Whether it has a connection, also one that calls are kept from because health checking
    /// says so. A parent whose endpoints are too old to connect to keeps such a child.
    fn is_connected(&self) -> bool {
        self.state() == ConnectivityState::Ready
    }

    /// A picker for the present. Called at most once per turn of the driver.
    fn picker(&self) -> Arc<dyn Picker>;
}

/// Makes policies of one name. Registered with a channel's builder, never globally.
pub trait PolicyFactory: Send + Sync {
    /// The name in a service config, e.g. `round_robin`.
    fn name(&self) -> &str;

    /// Reads the policy's settings. `registry` serves policies that name child policies.
    ///
    /// # Errors
    ///
    /// Field, value and allowed range of the first bad one.
    fn parse_config(
        &self,
        json: &Value,
        registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError>;

    /// A new instance without endpoints.
    fn build(&self) -> Box<dyn LbPolicy>;
}

/// A policy's factory with settings that it read.
#[derive(Clone)]
pub struct PolicyConfig {
    factory: Arc<dyn PolicyFactory>,
    settings: Arc<dyn Any + Send + Sync>,
}

impl PolicyConfig {
    /// A factory and settings that its `parse_config` returned.
    pub fn new(factory: Arc<dyn PolicyFactory>, settings: Arc<dyn Any + Send + Sync>) -> Self {
        Self { factory, settings }
    }

    /// The policy's name.
    pub fn name(&self) -> &str {
        self.factory.name()
    }

    /// A new instance of the policy.
    pub fn build(&self) -> Box<dyn LbPolicy> {
        self.factory.build()
    }

    /// The settings, if they are of type `T`.
    pub fn settings<T: 'static>(&self) -> Option<&T> {
        self.settings.downcast_ref()
    }
}

impl fmt::Debug for PolicyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyConfig").field(&self.name()).finish()
    }
}

/// The policies that a channel knows, by name.
#[derive(Clone, Default)]
pub struct PolicyRegistry {
    factories: BTreeMap<String, Arc<dyn PolicyFactory>>,
}

impl PolicyRegistry {
    /// All policies of this crate.
    pub fn built_in() -> Self {
        let mut registry = Self::default();
        registry.register(Arc::new(crate::policies::grpclb::Factory));
        registry.register(Arc::new(crate::policies::pick_first::Factory));
        registry.register(Arc::new(crate::policies::round_robin::Factory));
        registry
    }

    /// Adds a policy; one of the same name is replaced.
    pub fn register(&mut self, factory: Arc<dyn PolicyFactory>) {
        self.factories.insert(factory.name().to_owned(), factory);
    }

    /// The factory of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn PolicyFactory>> {
        self.factories.get(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }
}

/// A place in the record of who owns what, see [`Ctx::mark`].
#[derive(Clone, Copy)]
pub struct Mark(usize);

/// Something that came to be or went while a policy handled an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// A subchannel was created.
    Subchannel(SubchannelId),
    /// A subchannel was shut down.
    SubchannelGone(SubchannelId),
    /// A timer was set.
    Timer(TimerId),
    /// A timer was cancelled.
    TimerGone(TimerId),
    /// A watch was begun.
    Watch(WatchId),
    /// A watch was taken back, or its subchannel shut down.
    WatchGone(WatchId),
}

/// What a policy can do, and the time at which it does it.
pub struct Ctx<'a> {
    pub(crate) effects: &'a mut Effects,
    pub(crate) now: Nanos,
}

impl Ctx<'_> {
    /// The time of this input.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// The channel's random numbers.
    pub fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.effects.rng
    }

    /// Makes an IDLE subchannel.
    pub fn create_subchannel(&mut self, address: Address) -> SubchannelId {
        let id = self.effects.create(address, None);
        self.effects.owned.push(Owned::Subchannel(id));
        id
    }

    /// Makes an IDLE subchannel to a server with a name of its own, which is no backend: TLS asks
    /// for that name. `None`: the channel's.
    pub fn create_named_subchannel(
        &mut self,
        address: Address,
        name: Option<Arc<str>>,
    ) -> SubchannelId {
        let id = self.effects.create(address, name);
        self.effects.owned.push(Owned::Subchannel(id));
        id
    }

    /// Asks an IDLE subchannel to connect; in every other state it does nothing. The state comes
    /// back as an input.
    pub fn connect(&mut self, id: SubchannelId) {
        self.effects.connect(id, self.now);
    }

    /// Ends a subchannel. Calls on it run on; no further input about it comes.
    pub fn shutdown_subchannel(&mut self, id: SubchannelId) {
        self.effects.shutdown(id);
        self.effects.owned.push(Owned::SubchannelGone(id));
    }

    /// From now until it leaves READY, the policy wants to hear of the health of this subchannel,
    /// which has to be READY: [`Input::SubchannelHealth`] tells of each change. Returns the state
    /// by what is known now: CONNECTING when a first answer is to come, READY when the channel
    /// checks no health. A policy that picks by the connection alone (gRFC A17: `pick_first` as
    /// the channel's policy) does not call it.
    pub fn check_health(&mut self, id: SubchannelId) -> ConnectivityState {
        self.effects.check_health(id, self.now)
    }

    /// Runs a stream on a subchannel of this policy or of a child, which has to be READY. It ends
    /// with [`WatchEvent::Ended`], at the latest after the subchannel left READY, or silently by
    /// [`Ctx::unwatch`] and when the subchannel is shut down.
    pub fn watch(&mut self, subchannel: SubchannelId, watch: Watch) -> WatchId {
        let id = self.effects.watch(subchannel, watch);
        self.effects.owned.push(Owned::Watch(id));
        id
    }

    /// Says something on a watch that runs; without effect on one that has ended.
    pub fn send(&mut self, id: WatchId, message: WatchMessage) {
        self.effects.send(id, message);
    }

    /// Ends a watch's stream, after what was said on it; no further event of it comes.
    pub fn unwatch(&mut self, id: WatchId) {
        if self.effects.unwatch(id) {
            self.effects.owned.push(Owned::WatchGone(id));
        }
    }

    /// The channel's wait after `failures` failures in a row (1 for the first), drawn anew, for a
    /// policy that repeats a watch.
    pub fn backoff_ns(&mut self, failures: u32) -> Nanos {
        let Effects { backoff, rng, .. } = &mut *self.effects;
        backoff.wait_ns(failures, rng)
    }

    /// What the resolver knows of balancers. It may have changed with each
    /// [`Input::ResolverUpdate`].
    pub fn balancers(&self) -> Balancers {
        self.effects.balancers.clone()
    }

    /// The name by which balancers know what this channel wants, e.g. `greeter.default:8000`.
    pub fn service_name(&self) -> Arc<str> {
        self.effects.service_name.clone()
    }

    /// Tells observers what became of a balancer.
    pub fn tell(&mut self, news: BalancerNews) {
        self.effects.tell(news);
    }

    /// Asks the resolver to look again.
    pub fn request_resolution(&mut self) {
        self.effects.request_resolution = true;
    }

    /// Wakes this policy at `at`, but never within this turn: a policy that asks for the present
    /// again and again must not keep the engine from its other work.
    pub fn set_timer(&mut self, at: Nanos) -> TimerId {
        let at = at.max(self.now.saturating_add(1));
        let id = self.effects.timers.set(at, crate::timers::Wakes::Policy);
        self.effects.owned.push(Owned::Timer(id));
        id
    }

    /// The timer does not fire any more.
    pub fn cancel_timer(&mut self, id: TimerId) {
        self.effects.timers.cancel(id);
        self.effects.owned.push(Owned::TimerGone(id));
    }

    /// Says that `state()` or `picker()` has something new.
    pub fn publish(&mut self) {
        self.effects.publish = true;
    }

    /// For a policy with children: remembers this moment, so that [`Ctx::owned_since`] tells what a
    /// child created in its `handle`.
    pub fn mark(&self) -> Mark {
        Mark(self.effects.owned.len())
    }

    /// What was created and what went since `mark`.
    pub fn owned_since(&self, mark: Mark) -> &[Owned] {
        &self.effects.owned[mark.0..]
    }

    /// For a policy with children: runs `f` and tells whether a child in it called
    /// [`Ctx::publish`]; the call does not count as the parent's own.
    pub fn intercept_publish(&mut self, f: impl FnOnce(&mut Self)) -> bool {
        let before = std::mem::replace(&mut self.effects.publish, false);
        f(self);
        std::mem::replace(&mut self.effects.publish, before)
    }
}
