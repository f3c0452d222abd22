//! The engine of one channel: it owns the policy tree, the subchannel machines and the timers.
//!
//! Inputs are methods that take `now`; effects wait in a queue until [`Engine::poll_output`] takes
//! them. However many inputs a driver hands in before it drains the queue, there is at most one
//! [`Output::Publish`] at the end of it.

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
mod watches;
#[cfg(test)]
mod watches_tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    Address, Backoff, BalancerNews, Balancers, ConnectivityState, Ctx, Endpoint, Input, LbPolicy,
    Nanos, Picker, PolicyConfig, ResolverError, Status, SubchannelId, Watch, WatchId, WatchMessage,
    picker::{FailPicker, QueuePicker},
    policies::switch::Switch,
    policy::Owned,
    subchannel::Subchannel,
    timers::{Timers, Wakes},
};

/// What an engine needs to know before its first input.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Seeds all random choices.
    pub seed: u64,
    /// Waits between connection attempts.
    pub backoff: Backoff,
    /// The policy while the resolver brings none.
    pub default_policy: PolicyConfig,
}

/// What the channel is to do.
#[non_exhaustive]
pub enum Output {
    /// Connect to the address and report [`Engine::connected`] or [`Engine::connect_failed`].
    Connect {
        /// The subchannel.
        id: SubchannelId,
        /// Its address.
        address: Address,
    },
    /// The subchannel is gone: give up its attempt, let its connection drain.
    Disconnect {
        /// The subchannel.
        id: SubchannelId,
    },
    /// Run this stream on the subchannel's connection and report each
    /// [`Engine::watch_event`]. It is no call: it makes no channel busy.
    Watch {
        /// The watch.
        id: WatchId,
        /// A subchannel that is READY.
        subchannel: SubchannelId,
        /// What to ask the server.
        watch: Watch,
    },
    /// Say this on a watch's stream; without effect when that has ended.
    WatchSend {
        /// The watch.
        id: WatchId,
        /// What to say.
        message: WatchMessage,
    },
    /// Nobody wants this watch any more, or its subchannel's connection drains: end its stream. One
    /// on which we talk ends after what was said.
    Unwatch {
        /// The watch, which may have ended already.
        id: WatchId,
    },
    /// Ask the resolver to look again.
    RequestResolution,
    /// For observers only: a subchannel changed its state.
    SubchannelState {
        /// The subchannel; when it is SHUTDOWN, the id is not valid any more.
        id: SubchannelId,
        /// The subchannel's address.
        address: Address,
        /// Its new state.
        state: ConnectivityState,
        /// The last error, if any.
        error: Option<Status>,
    },
    /// For observers only: what health checking says of a subchannel that is READY (gRFC A17).
    SubchannelHealth {
        /// The subchannel's address.
        address: Address,
        /// CONNECTING before the first answer, READY or TRANSIENT_FAILURE after it.
        state: ConnectivityState,
        /// Why, when it is TRANSIENT_FAILURE.
        error: Option<Status>,
    },
    /// For observers only: what became of the balancer.
    Balancer(BalancerNews),
    /// The channel's new state and picker.
    Publish {
        /// The state.
        state: ConnectivityState,
        /// The picker.
        picker: Arc<dyn Picker>,
    },
}

struct Slot {
    generation: u32,
    subchannel: Option<Subchannel>,
}

/// What a policy is yet to be told.
enum Undelivered {
    State(SubchannelId, ConnectivityState, Option<Status>),
    Health(SubchannelId, ConnectivityState, Option<Status>),
    WatchEnded(WatchId, Status),
}

/// The part of an engine that policies change through [`Ctx`].
pub(crate) struct Effects {
    pub(crate) rng: fastrand::Rng,
    pub(crate) timers: Timers,
    pub(crate) publish: bool,
    pub(crate) request_resolution: bool,
    pub(crate) owned: Vec<Owned>,
    pub(crate) backoff: Backoff,
    slots: Vec<Slot>,
    free: Vec<u32>,
    outputs: VecDeque<Output>,
    undelivered: VecDeque<Undelivered>,
    watches: BTreeMap<WatchId, watches::Running>,
    next_watch: u64,
    /// The service of health checks; `None`: no subchannel is checked.
    health_service: Option<Arc<str>>,
    /// What the resolver knows of balancers.
    pub(crate) balancers: Balancers,
    /// The name by which balancers know what this channel wants.
    pub(crate) service_name: Arc<str>,
}

impl Effects {
    pub(crate) fn create(&mut self, address: Address, name: Option<Arc<str>>) -> SubchannelId {
        let subchannel = Some(Subchannel::new(address, name));
        match self.free.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                slot.subchannel = subchannel;
                SubchannelId { index, generation: slot.generation }
            }
            None => {
                self.slots.push(Slot { generation: 0, subchannel });
                SubchannelId { index: (self.slots.len() - 1) as u32, generation: 0 }
            }
        }
    }

    fn get(&mut self, id: SubchannelId) -> Option<&mut Subchannel> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.subchannel.as_mut() } else { None }
    }

    pub(crate) fn connect(&mut self, id: SubchannelId, now: Nanos) {
        let Some(subchannel) = self.get(id) else { return };
        if subchannel.start(now) {
            let address = subchannel.address.clone();
            self.outputs.push_back(Output::Connect { id, address });
            self.changed(id);
        }
    }

    pub(crate) fn tell(&mut self, news: BalancerNews) {
        self.outputs.push_back(Output::Balancer(news));
    }

    pub(crate) fn shutdown(&mut self, id: SubchannelId) {
        self.drop_watches(id);
        let Some(subchannel) = self.get(id) else { return };
        let (address, timer) = (subchannel.address.clone(), subchannel.backoff_timer);
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        let slot = &mut self.slots[id.index as usize];
        slot.subchannel = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.outputs.push_back(Output::Disconnect { id });
        let state = ConnectivityState::Shutdown;
        self.outputs.push_back(Output::SubchannelState { id, address, state, error: None });
    }

    /// Tells the policy and the observers that a subchannel's state changed.
    fn changed(&mut self, id: SubchannelId) {
        let Some(subchannel) = self.get(id) else { return };
        let (address, state) = (subchannel.address.clone(), subchannel.state);
        let told = subchannel.last_error.clone();
        let told = told.filter(|_| state == ConnectivityState::TransientFailure);
        let error = told.clone();
        self.outputs.push_back(Output::SubchannelState { id, address, state, error });
        self.undelivered.push_back(Undelivered::State(id, state, told));
    }
}

/// See the module's head.
pub struct Engine {
    effects: Effects,
    root: Switch,
    default_policy: PolicyConfig,
    /// A picker made by the engine itself while there is no policy: waiting for the resolver's
    /// first answer, or failing because there is none.
    without_policy: Option<Status>,
    started: bool,
}

impl Engine {
    /// An IDLE engine.
    pub fn new(options: EngineOptions) -> Self {
        Self {
            effects: Effects {
                rng: fastrand::Rng::with_seed(options.seed),
                timers: Timers::default(),
                publish: false,
                request_resolution: false,
                owned: Vec::new(),
                backoff: options.backoff,
                slots: Vec::new(),
                free: Vec::new(),
                outputs: VecDeque::new(),
                undelivered: VecDeque::new(),
                watches: BTreeMap::new(),
                next_watch: 0,
                health_service: None,
                balancers: Balancers::None,
                service_name: "".into(),
            },
            root: Switch::default(),
            default_policy: options.default_policy,
            without_policy: None,
            started: false,
        }
    }

    /// A call or the user wants the channel to leave IDLE.
    pub fn exit_idle(&mut self, now: Nanos) {
        if !std::mem::replace(&mut self.started, true) {
            self.effects.publish = true;
        }
        self.drive(now, Input::ExitIdle);
    }

    /// Nobody called for a while: every subchannel is let go, and the engine is as it was before
    /// its first input. The resolver is not to report until [`Engine::exit_idle`].
    pub fn enter_idle(&mut self, now: Nanos) {
        self.root.clear(&mut Ctx { effects: &mut self.effects, now });
        self.effects.owned.clear();
        self.without_policy = None;
        self.started = false;
        self.effects.request_resolution = false;
        self.effects.publish = true;
    }

    /// The channel ends: policies say what they still have to say to balancers, and everything is
    /// let go of. What is put out then is the last.
    pub fn shutdown(&mut self, now: Nanos) {
        self.root.clear(&mut Ctx { effects: &mut self.effects, now });
        self.effects.owned.clear();
    }

    /// The name by which balancers know what this channel wants, e.g. `greeter.default:8000`.
    pub fn set_service_name(&mut self, name: impl Into<Arc<str>>) {
        self.effects.service_name = name.into();
    }

    /// What the resolver knows of balancers; it counts from the next [`Engine::resolver_update`].
    pub fn set_balancers(&mut self, balancers: Balancers) {
        self.effects.balancers = balancers;
    }

    /// The resolver's complete answer, and the policy that its service config names.
    pub fn resolver_update(
        &mut self,
        now: Nanos,
        endpoints: &[Endpoint],
        policy: Option<&PolicyConfig>,
    ) {
        self.started = true;
        let config = policy.unwrap_or(&self.default_policy).clone();
        self.drive(now, Input::ResolverUpdate { endpoints, config: &config });
    }

    /// The resolver has no answer.
    pub fn resolver_error(&mut self, now: Nanos, error: &ResolverError) {
        if self.root.is_empty() {
            self.without_policy = Some(error.status.clone());
            self.effects.publish = true;
        }
        self.drive(now, Input::ResolverError(error));
    }

    /// The server's first SETTINGS came on the subchannel's new connection.
    pub fn connected(&mut self, now: Nanos, id: SubchannelId) {
        let Some(subchannel) = self.effects.get(id) else { return };
        if subchannel.state == ConnectivityState::Connecting {
            subchannel.connected();
            self.effects.changed(id);
            self.deliver(now);
        }
    }

    /// The attempt to connect failed.
    pub fn connect_failed(&mut self, now: Nanos, id: SubchannelId, error: Status) {
        let Effects { slots, rng, timers, backoff, .. } = &mut self.effects;
        let Some(slot) = slots.get_mut(id.index as usize) else { return };
        let Some(subchannel) = slot.subchannel.as_mut() else { return };
        if slot.generation != id.generation || subchannel.state != ConnectivityState::Connecting {
            return;
        }
        let until = subchannel.failed(now, error, backoff, rng);
        subchannel.backoff_timer = Some(timers.set(until, Wakes::Subchannel(id)));
        self.effects.changed(id);
        self.deliver(now);
    }

    /// The subchannel's connection ended or takes no new streams (GOAWAY).
    pub fn disconnected(&mut self, now: Nanos, id: SubchannelId) {
        let Some(subchannel) = self.effects.get(id) else { return };
        if subchannel.state == ConnectivityState::Ready {
            subchannel.idle();
            self.effects.request_resolution = true;
            let watches = self.effects.end_watches(id);
            self.effects.changed(id);
            // After the state, on which a policy usually takes its watches back itself.
            let ended = Status::unavailable("the connection ended or takes no new streams");
            let ends = watches.into_iter().map(|id| Undelivered::WatchEnded(id, ended.clone()));
            self.effects.undelivered.extend(ends);
            self.deliver(now);
        }
    }

    /// Wakes whatever is due at `now`.
    pub fn handle_timeout(&mut self, now: Nanos) {
        while let Some((timer, wakes)) = self.effects.timers.pop_due(now) {
            match wakes {
                Wakes::Policy => self.drive(now, Input::Timer(timer)),
                Wakes::Subchannel(id) => {
                    let Some(subchannel) = self.effects.get(id) else { continue };
                    subchannel.idle();
                    self.effects.changed(id);
                    self.deliver(now);
                }
                Wakes::Health(id) => {
                    self.effects.health_due(id, now);
                    self.deliver(now);
                }
            }
        }
    }

    /// When [`Engine::handle_timeout`] is wanted next.
    pub fn poll_timeout(&mut self) -> Option<Nanos> {
        self.effects.timers.next_at()
    }

    /// The next effect; `None` when all are out.
    pub fn poll_output(&mut self) -> Option<Output> {
        while let Some(output) = self.effects.outputs.pop_front() {
            match output {
                // Given up before it began, within one drain.
                Output::Connect { id, .. } if self.effects.get(id).is_none() => {}
                Output::Watch { id, .. } if !self.effects.watches.contains_key(&id) => {}
                output => return Some(output),
            }
        }
        if std::mem::take(&mut self.effects.request_resolution) {
            return Some(Output::RequestResolution);
        }
        std::mem::take(&mut self.effects.publish).then(|| self.publication())
    }

    /// The address of a subchannel that still exists.
    pub fn address(&mut self, id: SubchannelId) -> Option<Address> {
        self.effects.get(id).map(|s| s.address.clone())
    }

    /// The server's own name, of a subchannel whose server is not the channel's: a balancer.
    pub fn server_name(&mut self, id: SubchannelId) -> Option<Arc<str>> {
        self.effects.get(id).and_then(|s| s.server_name.clone())
    }

    /// The name of the policy that calls are picked by; `None` before the first resolver update.
    pub fn policy_name(&self) -> Option<&str> {
        self.root.name()
    }

    fn publication(&self) -> Output {
        if !self.root.is_empty() {
            return Output::Publish { state: self.root.state(), picker: self.root.picker() };
        }
        match &self.without_policy {
            Some(status) => Output::Publish {
                state: ConnectivityState::TransientFailure,
                picker: Arc::new(FailPicker(status.clone())),
            },
            None => Output::Publish {
                state: if self.started {
                    ConnectivityState::Connecting
                } else {
                    ConnectivityState::Idle
                },
                picker: Arc::new(QueuePicker),
            },
        }
    }

    fn drive(&mut self, now: Nanos, input: Input<'_>) {
        self.hand_in(now, input);
        self.deliver(now);
    }

    fn hand_in(&mut self, now: Nanos, input: Input<'_>) {
        self.root.handle(input, &mut Ctx { effects: &mut self.effects, now });
        self.effects.owned.clear();
    }

    fn deliver(&mut self, now: Nanos) {
        while let Some(next) = self.effects.undelivered.pop_front() {
            // A subchannel that is gone by now has no owner any more in the root's router.
            match next {
                Undelivered::State(id, state, error) => {
                    let error = error.as_ref();
                    self.hand_in(now, Input::SubchannelState { id, state, error });
                }
                Undelivered::Health(id, state, error) => {
                    let error = error.as_ref();
                    self.hand_in(now, Input::SubchannelHealth { id, state, error });
                }
                Undelivered::WatchEnded(id, status) => self.deliver_watch_end(now, id, status),
            }
        }
    }
}
