//! A client without I/O: evenkeel-core's engine, whose attempts to connect all succeed after a
//! millisecond, and whose balancer is whoever calls [`Channel::list`].

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use evenkeel_core::{
    Address, Backoff, CallOutcome, CallSink, Endpoint, Engine, EngineOptions, MILLISECOND_NS,
    Nanos, Output, PickArgs, PickResult, Picker, PolicyRegistry, ServiceConfig, SubchannelId,
    resolver::{Balancer, Balancers},
    watch::{BalancerMessage, ServerEntry, WatchEvent, WatchId},
};
use http::HeaderMap;

/// From an attempt to its connection.
const CONNECT_NS: Nanos = MILLISECOND_NS;
const BALANCER: usize = 60_000;

/// The address of backend `index`.
#[must_use]
pub fn address(index: usize) -> SocketAddr {
    let [high, low] = (index as u16).to_be_bytes();
    ([10, 1, high, low], 8000).into()
}

/// The token of backend `index` in lists of [`Channel::list`].
#[must_use]
pub fn token(index: usize) -> String {
    format!("backend-{index}")
}

/// What became of a pick.
pub enum Picked {
    /// The call goes to this backend; who wants to hear of its end.
    Backend(usize, Option<(Arc<dyn CallSink>, u64)>),
    /// No backend is ready, or the balancer said that this call is to fail.
    None,
}

/// See the module's head.
pub struct Channel {
    engine: Engine,
    backends: BTreeMap<Address, usize>,
    connecting: VecDeque<(Nanos, SubchannelId)>,
    ready: BTreeMap<SubchannelId, usize>,
    picker: Option<Arc<dyn Picker>>,
    /// The stream to the balancer.
    stream: Option<WatchId>,
    random: fastrand::Rng,
    headers: HeaderMap,
}

impl Channel {
    /// Backends 0 to `backends` in turn.
    #[must_use]
    pub fn round_robin(backends: usize, seed: u64) -> Self {
        let mut channel = Self::new("round_robin", backends, seed);
        let endpoints: Vec<_> = (0..backends).map(|n| Endpoint::new(address(n))).collect();
        channel.engine.resolver_update(0, &endpoints, None);
        channel.drain(0);
        channel
    }

    /// What its balancer lists; nothing before that.
    #[must_use]
    pub fn grpclb(backends: usize, seed: u64) -> Self {
        let mut channel = Self::new("grpclb", backends, seed);
        let balancer = Balancer { address: address(BALANCER).into(), name: None };
        channel.engine.set_service_name("simulated:8000");
        channel.engine.set_balancers(Balancers::Found([balancer].into()));
        channel.engine.resolver_update(0, &[], None);
        channel.drain(0);
        channel
    }

    fn new(policy: &str, backends: usize, seed: u64) -> Self {
        let config = ServiceConfig::for_policy(policy, &PolicyRegistry::built_in());
        let default_policy = config.ok().and_then(|config| config.policy);
        let default_policy = default_policy.expect("the names here are of built-in policies");
        let options = EngineOptions { seed, backoff: Backoff::default(), default_policy };
        let mut channel = Self {
            engine: Engine::new(options),
            backends: (0..backends).map(|n| (address(n).into(), n)).collect(),
            connecting: VecDeque::new(),
            ready: BTreeMap::new(),
            picker: None,
            stream: None,
            random: fastrand::Rng::with_seed(seed),
            headers: HeaderMap::new(),
        };
        channel.engine.exit_idle(0);
        channel
    }

    /// The balancer sends a list: backends by index, in this order.
    pub fn list(&mut self, now: Nanos, entries: impl IntoIterator<Item = usize>) {
        self.run(now);
        let Some(stream) = self.stream else { return };
        let entry = |index| {
            let address = address(index);
            let IpAddr::V4(ip) = address.ip() else { return ServerEntry::default() };
            let (address, port) = (ip.octets().to_vec(), address.port().into());
            ServerEntry { address, port, token: token(index), drop: false }
        };
        let list = BalancerMessage::List(entries.into_iter().map(entry).collect());
        self.engine.watch_event(now, stream, &WatchEvent::Balancer(list));
        self.drain(now);
    }

    /// Lets everything happen that is due at `now`.
    pub fn run(&mut self, now: Nanos) {
        while let Some((at, id)) = self.connecting.front().copied().filter(|(at, _)| *at <= now) {
            self.connecting.pop_front();
            self.engine.connected(at, id);
            if let Some(index) =
                self.engine.address(id).and_then(|a| self.backends.get(&a).copied())
            {
                self.ready.insert(id, index);
            }
            self.drain(at);
        }
        while self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
            self.drain(now);
        }
    }

    /// Picks for one call.
    pub fn pick(&mut self, now: Nanos) -> Picked {
        self.run(now);
        let Some(picker) = &self.picker else { return Picked::None };
        let random = self.random.u64(..);
        match picker.pick(&PickArgs::new("/sim/Call", &self.headers, now, random)) {
            PickResult::Complete(pick) => match self.ready.get(&pick.subchannel) {
                Some(index) => Picked::Backend(*index, pick.on_complete),
                None => Picked::None,
            },
            PickResult::Queue | PickResult::Fail(_) | PickResult::Drop(_) => Picked::None,
        }
    }

    fn drain(&mut self, now: Nanos) {
        let mut opened = None;
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Connect { id, .. } => self.connecting.push_back((now + CONNECT_NS, id)),
                Output::Disconnect { id } => {
                    self.connecting.retain(|(_, other)| *other != id);
                    self.ready.remove(&id);
                }
                Output::Watch { id, .. } => opened = Some(id),
                Output::Unwatch { id } if self.stream == Some(id) => self.stream = None,
                Output::Publish { picker, .. } => self.picker = Some(picker),
                _ => {}
            }
        }
        if let Some(id) = opened {
            self.stream = Some(id);
            let initial = BalancerMessage::Initial { report_interval_ns: None };
            self.engine.watch_event(now, id, &WatchEvent::Balancer(initial));
            self.drain(now);
        }
    }
}

/// Tells who wants to hear it that a call ended well.
pub(crate) fn finished(on_complete: Option<(Arc<dyn CallSink>, u64)>) {
    if let Some((sink, token)) = on_complete {
        sink.complete(token, CallOutcome::Finished(Some(0)));
    }
}
