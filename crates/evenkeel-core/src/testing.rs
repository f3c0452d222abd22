//! A fleet of simulated backends in simulated time around one [`Engine`]: the other half that a
//! test of a policy needs. It executes what the engine puts out, answers attempts as its backends
//! are set, and checks on the way what must hold always: one Publish at most and last in a drain,
//! no second Connect before the first one is answered, no Disconnect of what is not there, no pick
//! of a subchannel that is not connected or not healthy, no watch without a connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use http::HeaderMap;

use crate::{
    Address, Backoff, BalancerNews, Code, ConnectivityState, Endpoint, Engine, EngineOptions,
    MILLISECOND_NS, Nanos, Output, PickArgs, PickResult, Picker, PolicyConfig, PolicyRegistry,
    ResolverError, ServiceConfig, ServingStatus, Status, SubchannelId, Watch, WatchEvent, WatchId,
    WatchMessage,
};

/// How long a backend that is up takes to answer, and one that refuses to refuse.
pub(crate) const ANSWER_NS: Nanos = MILLISECOND_NS;
/// When the fleet's transport gives up on a backend that hangs.
pub(crate) const CONNECT_TIMEOUT_NS: Nanos = 20_000 * MILLISECOND_NS;

/// An IPv4 address, different for each `n`.
pub(crate) fn v4(n: u16) -> Address {
    let [high, low] = n.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 0, high, low), 80)).into()
}

/// An IPv6 address, different for each `n`.
pub(crate) fn v6(n: u16) -> Address {
    SocketAddr::from((Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n), 80)).into()
}

/// Endpoints of one IPv4 address each.
pub(crate) fn endpoints(numbers: impl IntoIterator<Item = u16>) -> Vec<Endpoint> {
    numbers.into_iter().map(|n| Endpoint::new(v4(n))).collect()
}

/// One endpoint with several addresses.
pub(crate) fn endpoint(addresses: &[Address]) -> Endpoint {
    Endpoint::with_addresses(addresses.to_vec()).unwrap()
}

/// The policy that a `loadBalancingConfig` list, or just a name, chooses.
pub(crate) fn policy(text: &str) -> PolicyConfig {
    let registry = PolicyRegistry::built_in();
    let config = match text.starts_with('[') {
        true => {
            ServiceConfig::parse(&format!("{{\"loadBalancingConfig\":{text}}}"), &registry).unwrap()
        }
        false => ServiceConfig::for_policy(text, &registry).unwrap(),
    };
    config.policy.unwrap()
}

/// gRPC's backoff with the jitter left out: 1 s, 1.6 s, 2.56 s …
pub(crate) fn backoff_without_jitter() -> Backoff {
    Backoff { jitter: 0.0, ..Backoff::default() }
}

/// What an address does with an attempt to connect. One that was never set refuses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Backend {
    Up,
    Refuses,
    /// Accepts no connection before this time, in milliseconds.
    HangsUntil(u64),
    HangsForEver,
}

/// An answer that is under way to the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Connected,
    Refused,
    TimedOut,
}

/// What an address does with a watch. One that was never set is serving.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Says {
    Health(ServingStatus),
    Ends(Code),
    Nothing,
}

/// A watch that runs.
struct Watching {
    subchannel: SubchannelId,
    watch: Watch,
    /// When its first answer comes.
    answer_at: Option<Nanos>,
}

/// A [`PickResult`] that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Picked {
    Address(Address),
    Queue,
    Fail(Status),
    Drop(Status),
}

/// See the module's head.
pub(crate) struct Fleet {
    pub(crate) engine: Engine,
    pub(crate) now: Nanos,
    pub(crate) connected: BTreeMap<SubchannelId, Address>,
    /// Those of which no health check said otherwise.
    pub(crate) healthy: BTreeSet<SubchannelId>,
    /// Every watch that there was.
    pub(crate) watched: BTreeSet<WatchId>,
    /// How many streams were opened.
    pub(crate) streams: usize,
    pub(crate) state: ConnectivityState,
    pub(crate) publishes: usize,
    pub(crate) outputs: usize,
    /// How often a subchannel became CONNECTING.
    pub(crate) attempts: usize,
    picker: Option<Arc<dyn Picker>>,
    backends: BTreeMap<Address, Backend>,
    connecting: BTreeMap<SubchannelId, (Address, Nanos)>,
    answers: BTreeMap<(Nanos, SubchannelId), Answer>,
    says: BTreeMap<Address, Says>,
    watches: BTreeMap<WatchId, Watching>,
    /// Health checks that begin now leave the state as it is.
    renames: bool,
    health: Vec<String>,
    log: Vec<String>,
    /// What was said on watches.
    pub(crate) sent: Vec<(WatchId, WatchMessage)>,
    pub(crate) news: Vec<BalancerNews>,
}

impl Fleet {
    pub(crate) fn new(policy_text: &str) -> Self {
        Self::with(EngineOptions {
            seed: 1,
            backoff: backoff_without_jitter(),
            default_policy: policy(policy_text),
        })
    }

    pub(crate) fn with(options: EngineOptions) -> Self {
        Self {
            engine: Engine::new(options),
            now: 0,
            connected: BTreeMap::new(),
            healthy: BTreeSet::new(),
            watched: BTreeSet::new(),
            streams: 0,
            state: ConnectivityState::Idle,
            publishes: 0,
            outputs: 0,
            attempts: 0,
            picker: None,
            backends: BTreeMap::new(),
            connecting: BTreeMap::new(),
            answers: BTreeMap::new(),
            says: BTreeMap::new(),
            watches: BTreeMap::new(),
            renames: false,
            health: Vec::new(),
            log: Vec::new(),
            sent: Vec::new(),
            news: Vec::new(),
        }
    }

    pub(crate) fn set(&mut self, address: Address, backend: Backend) {
        self.backends.insert(address, backend);
    }

    pub(crate) fn all_up(&mut self, addresses: impl IntoIterator<Item = Address>) {
        addresses.into_iter().for_each(|a| self.set(a, Backend::Up));
    }

    pub(crate) fn update(&mut self, endpoints: &[Endpoint]) {
        self.engine.resolver_update(self.now, endpoints, None);
        self.drain();
    }

    pub(crate) fn update_with(&mut self, endpoints: &[Endpoint], policy: &PolicyConfig) {
        self.engine.resolver_update(self.now, endpoints, Some(policy));
        self.drain();
    }

    pub(crate) fn resolver_error(&mut self, message: &str, expired: bool) {
        let status = Status::unavailable(message);
        self.engine.resolver_error(self.now, &ResolverError { status, expired });
        self.drain();
    }

    pub(crate) fn exit_idle(&mut self) {
        self.engine.exit_idle(self.now);
        self.drain();
    }

    /// Ends the connections to an address: GOAWAY, or EOF.
    pub(crate) fn disconnect(&mut self, address: &Address) {
        let gone = self.connected.iter().filter(|(_, a)| *a == address);
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.connected.remove(&id);
            self.healthy.remove(&id);
            self.engine.disconnected(self.now, id);
            self.drain();
        }
    }

    /// The service whose health is asked for. One that is healthy stays so until it is answered.
    pub(crate) fn check(&mut self, service: Option<&str>) {
        self.engine.set_health_service(self.now, service.map(Into::into));
        if service.is_none() {
            self.healthy = self.connected.keys().copied().collect();
        }
        self.renames = true;
        self.drain();
        self.renames = false;
    }

    /// From now on an address says so, also on the watches that run.
    pub(crate) fn say(&mut self, address: &Address, says: Says) {
        self.says.insert(address.clone(), says);
        let of = |id| self.connected.get(&id) == Some(address);
        let running = self.watches.iter().filter(|(_, w)| of(w.subchannel));
        for id in running.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.answer_watch(id);
        }
    }

    /// The watches that run, each as its address and what it asks for.
    pub(crate) fn watches(&self) -> Vec<(Address, Watch)> {
        let watches = self.watches.values();
        watches.map(|w| (self.connected[&w.subchannel].clone(), w.watch.clone())).collect()
    }

    /// The ids of the watches that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = WatchId> {
        self.watches.keys().copied()
    }

    /// A watch's stream has ended: its end is told by the caller.
    pub(crate) fn forget_watch(&mut self, id: WatchId) {
        self.watches.remove(&id);
    }

    fn answer_watch(&mut self, id: WatchId) {
        let Some(watching) = self.watches.get_mut(&id) else { return };
        watching.answer_at = None;
        let subchannel = watching.subchannel;
        let says = self.says.get(&self.connected[&subchannel]).copied();
        let (event, healthy) = match says.unwrap_or(Says::Health(ServingStatus::Serving)) {
            Says::Nothing => return,
            Says::Health(status) => (WatchEvent::Health(status), status == ServingStatus::Serving),
            Says::Ends(code) => {
                self.watches.remove(&id);
                (WatchEvent::Ended(Status::new(code, "as set")), code == Code::Unimplemented)
            }
        };
        match healthy {
            true => self.healthy.insert(subchannel),
            false => self.healthy.remove(&subchannel),
        };
        self.engine.watch_event(self.now, id, &event);
        self.drain();
    }

    /// Fails the attempts at an address that are under way.
    pub(crate) fn fail(&mut self, address: &Address) {
        let failing = self.connecting.iter().filter(|(_, (a, _))| a == address);
        for (id, at) in failing.map(|(id, (_, at))| (*id, *at)).collect::<Vec<_>>() {
            self.connecting.remove(&id);
            self.answers.remove(&(at, id));
            let error = Status::unavailable(format!("{address} reset"));
            self.engine.connect_failed(self.now, id, error);
            self.drain();
        }
    }

    /// A backend that is gone: its connections end and attempts are refused.
    pub(crate) fn kill(&mut self, address: &Address) {
        self.set(address.clone(), Backend::Refuses);
        self.disconnect(address);
    }

    /// The subchannels with an attempt under way, in the order of their ids.
    pub(crate) fn connecting(&self) -> Vec<(SubchannelId, Address)> {
        self.connecting.iter().map(|(id, (address, _))| (*id, address.clone())).collect()
    }

    /// Goes to the next event, if it is not after `until`, and handles it.
    pub(crate) fn step(&mut self, until: Nanos) -> bool {
        let timeout = self.engine.poll_timeout();
        let answer = self.answers.first_key_value().map(|((at, _), _)| *at);
        let answers = self.watches.iter().filter_map(|(id, w)| Some((w.answer_at?, *id)));
        let health = answers.min();
        let times = timeout.into_iter().chain(answer).chain(health.map(|(at, _)| at));
        let Some(at) = times.min().filter(|at| *at <= until) else { return false };
        self.now = self.now.max(at);
        if answer == Some(at) {
            self.answer();
        } else if let Some((_, id)) = health.filter(|(due, _)| *due == at) {
            self.answer_watch(id);
        } else {
            self.engine.handle_timeout(self.now);
        }
        self.drain();
        true
    }

    /// Lets this much time pass, in milliseconds.
    pub(crate) fn run_ms(&mut self, ms: u64) {
        let until = self.now + ms * MILLISECOND_NS;
        while self.step(until) {}
        self.now = until;
    }

    /// Until nothing more happens within this second.
    pub(crate) fn drive(&mut self) {
        while self.step(self.now) || self.step(self.now + 500 * MILLISECOND_NS) {}
    }

    fn answer(&mut self) {
        let Some(((_, id), answer)) = self.answers.pop_first() else { return };
        let (address, _) = self.connecting.remove(&id).expect("answers are for attempts");
        match answer {
            Answer::Connected => {
                self.connected.insert(id, address);
                self.healthy.insert(id);
                self.engine.connected(self.now, id);
            }
            Answer::Refused | Answer::TimedOut => {
                let what = if answer == Answer::Refused { "refused" } else { "timed out" };
                let error = Status::unavailable(format!("{address} {what}"));
                self.engine.connect_failed(self.now, id, error);
            }
        }
    }

    /// Executes all outputs.
    pub(crate) fn drain(&mut self) {
        let mut published = false;
        while let Some(output) = self.engine.poll_output() {
            assert!(!published, "Publish is the last output of a drain");
            self.outputs += 1;
            match output {
                Output::Connect { id, address } => self.connect(id, address),
                Output::Disconnect { id } => self.forget(id),
                Output::Watch { id, subchannel, watch } => self.watch(id, subchannel, watch),
                Output::Unwatch { id } => drop(self.watches.remove(&id)),
                Output::WatchSend { id, message } => self.sent.push((id, message)),
                Output::Balancer(news) => self.news.push(news),
                Output::SubchannelHealth { address, state, error } => {
                    self.health.push(format!("{address} {state} {error:?}"));
                }
                Output::RequestResolution => self.note("resolve".into()),
                Output::SubchannelState { state, .. } => {
                    self.attempts += usize::from(state == ConnectivityState::Connecting);
                }
                Output::Publish { state, picker } => {
                    published = true;
                    self.publishes += 1;
                    if state != self.state || self.picker.is_none() {
                        self.note(state.to_string());
                    }
                    (self.state, self.picker) = (state, Some(picker));
                }
            }
        }
        for Watching { subchannel, .. } in self.watches.values() {
            assert!(self.connected.contains_key(subchannel), "a watch without its connection");
        }
        assert_eq!(self.engine.poll_timeout().filter(|at| *at < self.now), None, "an old timer");
    }

    fn watch(&mut self, id: WatchId, subchannel: SubchannelId, watch: Watch) {
        assert!(self.connected.contains_key(&subchannel), "a watch of what is not connected");
        assert!(self.watched.insert(id), "{id:?} is given out twice");
        let is_first = self.watches.values().all(|w| w.subchannel != subchannel);
        assert!(is_first, "two watches of one kind on {subchannel:?}");
        self.streams += 1;
        let is_check = matches!(watch, Watch::Health { .. });
        if is_check && !self.renames {
            self.healthy.remove(&subchannel);
        }
        let answer_at = is_check.then_some(self.now + ANSWER_NS);
        self.watches.insert(id, Watching { subchannel, watch, answer_at });
    }

    fn connect(&mut self, id: SubchannelId, address: Address) {
        assert!(!self.connecting.contains_key(&id), "a second Connect of {id:?} before an answer");
        assert!(!self.connected.contains_key(&id), "Connect of {id:?}, which is connected");
        assert_eq!(self.engine.address(id), Some(address.clone()));
        self.note(format!("connect {address}"));
        let backend = self.backends.get(&address).copied().unwrap_or(Backend::Refuses);
        let (at, answer) = match backend {
            Backend::Up => (self.now + ANSWER_NS, Answer::Connected),
            Backend::Refuses => (self.now + ANSWER_NS, Answer::Refused),
            Backend::HangsUntil(ms) => {
                (self.now.max(ms * MILLISECOND_NS) + ANSWER_NS, Answer::Connected)
            }
            Backend::HangsForEver => (self.now + CONNECT_TIMEOUT_NS, Answer::TimedOut),
        };
        self.answers.insert((at, id), answer);
        self.connecting.insert(id, (address, at));
    }

    fn forget(&mut self, id: SubchannelId) {
        assert_eq!(self.engine.address(id), None, "a subchannel lives on after its Disconnect");
        if let Some((address, at)) = self.connecting.remove(&id) {
            self.answers.remove(&(at, id));
            self.note(format!("give up {address}"));
        } else if let Some(address) = self.connected.remove(&id) {
            self.healthy.remove(&id);
            self.note(format!("close {address}"));
        }
    }

    fn note(&mut self, what: String) {
        self.log.push(format!("{} {what}", self.now / MILLISECOND_NS));
    }

    /// What happened since the last call: `<ms> connect|give up|close <address>`, `<ms> resolve`,
    /// `<ms> <NEW STATE>`.
    pub(crate) fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// What observers heard of health since the last call: `<address> <STATE> <error>`.
    pub(crate) fn take_health(&mut self) -> Vec<String> {
        std::mem::take(&mut self.health)
    }

    /// The picker that was published last.
    pub(crate) fn picker(&self) -> &Arc<dyn Picker> {
        self.picker.as_ref().expect("a picker was published")
    }

    /// A pick on it.
    pub(crate) fn pick(&self) -> Picked {
        let picker = self.picker();
        let headers = HeaderMap::new();
        match picker.pick(&PickArgs::new("/service/method", &headers, self.now, 0)) {
            PickResult::Complete(pick) => match self.connected.get(&pick.subchannel) {
                Some(address) => {
                    let is_healthy = self.healthy.contains(&pick.subchannel);
                    assert!(is_healthy, "picked {address}, which is not healthy");
                    Picked::Address(address.clone())
                }
                None => panic!("picked {:?}, which is not connected", pick.subchannel),
            },
            PickResult::Queue => Picked::Queue,
            PickResult::Fail(status) => Picked::Fail(status),
            PickResult::Drop(dropped) => Picked::Drop(dropped.status),
        }
    }

    /// The message that fails a call now.
    pub(crate) fn failure(&self) -> String {
        match self.pick() {
            Picked::Fail(status) => status.to_string(),
            other => panic!("expected a failing picker, got {other:?}"),
        }
    }

    /// How often each address is picked in `picks` calls.
    pub(crate) fn shares(&self, picks: usize) -> BTreeMap<Address, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..picks {
            match self.pick() {
                Picked::Address(address) => *shares.entry(address).or_insert(0) += 1,
                other => panic!("expected a pick, got {other:?}"),
            }
        }
        shares
    }
}
