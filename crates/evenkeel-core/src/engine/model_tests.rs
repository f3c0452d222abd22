//! Random sequences of everything that can happen to an engine, against a model simple enough to be
//! right: which lists and policies there were, and what the fleet has connected.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use proptest::{collection::vec, prelude::*};
use serde_json::Value;

use crate::{
    Backoff, Code, ConfigError, ConnectivityState, Ctx, Endpoint, EngineOptions, Input, LbPolicy,
    Picker, PolicyConfig, PolicyFactory, PolicyRegistry, ServiceConfig, ServingStatus, Status,
    SubchannelId, WatchEvent,
    policies::router::Router,
    policy::Owned,
    testing::{Backend, Fleet, Picked, Says, endpoint, v4, v6},
};

const POLICIES: [&str; 3] = [
    r#"[{"round_robin":{}}]"#,
    r#"[{"pick_first":{}}]"#,
    r#"[{"pick_first":{"shuffleAddressList":true}}]"#,
];
/// The services of health checks; `None`: there are none.
const SERVICES: [Option<&str>; 3] = [None, Some(""), Some("greeter")];
/// Few backends, so that lists overlap and addresses repeat.
const BACKENDS: u16 = 6;

#[derive(Clone, Debug)]
enum Op {
    /// A list, each endpoint with the numbers of its addresses, and a policy.
    Update(Vec<Vec<u16>>, usize),
    ResolverError {
        expired: bool,
    },
    Set(u16, Backend),
    Disconnect(u16),
    Kill(u16),
    Fail(u16),
    /// What an address says of its health.
    Say(u16, Says),
    /// Which of the services is asked for.
    Check(usize),
    ExitIdle,
    Run(u64),
    /// A time-out and events that nobody waits for.
    Spurious,
}

/// The last ones are IPv6.
fn address(n: u16) -> crate::Address {
    if n + 2 > BACKENDS { v6(n) } else { v4(n) }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let backend = prop_oneof![
        3 => Just(Backend::Up),
        2 => Just(Backend::Refuses),
        1 => (0..60_000u64).prop_map(Backend::HangsUntil),
        1 => Just(Backend::HangsForEver),
    ];
    let says = prop_oneof![
        3 => Just(Says::Health(ServingStatus::Serving)),
        2 => Just(Says::Health(ServingStatus::NotServing)),
        1 => Just(Says::Health(ServingStatus::ServiceUnknown)),
        1 => Just(Says::Nothing),
        1 => Just(Says::Ends(Code::Unimplemented)),
        2 => Just(Says::Ends(Code::Unavailable)),
    ];
    let list = vec(vec(0..BACKENDS, 1..4), 0..6);
    let ms = prop_oneof![0..3u64, 0..300u64, 0..30_000u64];
    let op = prop_oneof![
        4 => (list, 0..POLICIES.len()).prop_map(|(list, policy)| Op::Update(list, policy)),
        1 => any::<bool>().prop_map(|expired| Op::ResolverError { expired }),
        4 => (0..BACKENDS, backend).prop_map(|(n, backend)| Op::Set(n, backend)),
        2 => (0..BACKENDS).prop_map(Op::Disconnect),
        2 => (0..BACKENDS).prop_map(Op::Kill),
        1 => (0..BACKENDS).prop_map(Op::Fail),
        4 => (0..BACKENDS, says).prop_map(|(n, says)| Op::Say(n, says)),
        2 => (0..SERVICES.len()).prop_map(Op::Check),
        2 => Just(Op::ExitIdle),
        6 => ms.prop_map(Op::Run),
        1 => Just(Op::Spurious),
    ];
    vec(op, 1..60)
}

/// Which instance of a policy, counted from 0, created each subchannel.
#[derive(Default)]
struct Owners {
    built: usize,
    by_subchannel: BTreeMap<SubchannelId, usize>,
}

/// A policy of which the model knows what it owns.
struct Tagged {
    inner: Box<dyn LbPolicy>,
    number: usize,
    router: Router<()>,
    owners: Arc<Mutex<Owners>>,
}

impl LbPolicy for Tagged {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        let mark = ctx.mark();
        if self.router.deliver((), &mut *self.inner, input, ctx) {
            ctx.publish();
        }
        if let Input::Timer(_) = input {
            assert_eq!(self.router.owner(&input), None, "a timer fires once");
        }
        for owned in ctx.owned_since(mark) {
            if let Owned::Subchannel(id) = owned {
                self.owners.lock().unwrap().by_subchannel.insert(*id, self.number);
            }
        }
    }

    fn state(&self) -> ConnectivityState {
        self.inner.state()
    }

    fn picker(&self) -> Arc<dyn Picker> {
        self.inner.picker()
    }
}

struct TaggedFactory {
    inner: Arc<dyn PolicyFactory>,
    owners: Arc<Mutex<Owners>>,
}

impl PolicyFactory for TaggedFactory {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn parse_config(
        &self,
        json: &Value,
        registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        self.inner.parse_config(json, registry)
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        let (inner, router, owners) = (self.inner.build(), Router::default(), self.owners.clone());
        let number = self.owners.lock().unwrap().built;
        self.owners.lock().unwrap().built += 1;
        Box::new(Tagged { inner, number, router, owners })
    }
}

/// What an instance of a policy was told last.
struct Instance {
    policy: usize,
    list: Vec<Endpoint>,
}

struct Model {
    fleet: Fleet,
    policies: Vec<PolicyConfig>,
    owners: Arc<Mutex<Owners>>,
    instances: Vec<Instance>,
    /// The instance that serves, and the one that is to take over.
    current: Option<usize>,
    pending: Option<usize>,
    /// Every subchannel that was ever connecting.
    seen: BTreeSet<SubchannelId>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let owners = Arc::new(Mutex::new(Owners::default()));
        let mut registry = PolicyRegistry::default();
        for name in ["round_robin", "pick_first"] {
            let inner = PolicyRegistry::built_in().get(name).unwrap().clone();
            registry.register(Arc::new(TaggedFactory { inner, owners: owners.clone() }));
        }
        let parse = |text: &str| ServiceConfig::parse(text, &registry).unwrap().policy.unwrap();
        let policies: Vec<PolicyConfig> = POLICIES
            .iter()
            .map(|list| parse(&format!("{{\"loadBalancingConfig\":{list}}}")))
            .collect();
        let default_policy = policies[0].clone();
        let options = EngineOptions { seed, backoff: Backoff::default(), default_policy };
        let (fleet, instances, seen) = (Fleet::with(options), Vec::new(), BTreeSet::new());
        Self { fleet, policies, owners, instances, current: None, pending: None, seen }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Update(list, number) => self.update(list, *number),
            Op::ResolverError { expired } => {
                self.fleet.resolver_error("SERVFAIL", *expired);
            }
            Op::Set(n, backend) => self.fleet.set(address(*n), *backend),
            Op::Disconnect(n) => self.fleet.disconnect(&address(*n)),
            Op::Kill(n) => self.fleet.kill(&address(*n)),
            Op::Fail(n) => self.fleet.fail(&address(*n)),
            Op::Say(n, says) => self.fleet.say(&address(*n), *says),
            Op::Check(number) => self.fleet.check(SERVICES[*number]),
            Op::ExitIdle => self.fleet.exit_idle(),
            Op::Run(ms) => {
                let until = self.fleet.now + ms * 1_000_000;
                let mut steps = 0;
                while self.fleet.step(until) {
                    steps += 1;
                    assert!(steps < 100_000, "does not settle");
                    self.check();
                }
                self.fleet.now = until;
            }
            Op::Spurious => self.spurious(),
        }
    }

    fn update(&mut self, list: &[Vec<u16>], number: usize) {
        let list: Vec<Endpoint> = list
            .iter()
            .map(|numbers| endpoint(&numbers.iter().map(|n| address(*n)).collect::<Vec<_>>()))
            .collect();
        let name = self.policies[number].name();
        let is_wanted = |i: &usize| self.policies[self.instances[*i].policy].name() == name;
        let told = Instance { policy: number, list: list.clone() };
        if let Some(current) = self.current.filter(is_wanted) {
            self.pending = None;
            self.instances[current] = told;
        } else if let Some(pending) = self.pending.filter(is_wanted) {
            self.instances[pending] = told;
        } else {
            let new = Some(self.instances.len());
            self.instances.push(told);
            let serves = self.fleet.state == ConnectivityState::Ready;
            *(if serves { &mut self.pending } else { &mut self.current }) = new;
        }
        let before = self.fleet.outputs;
        self.fleet.update_with(&list, &self.policies[number].clone());
        assert_eq!(self.owners.lock().unwrap().built, self.instances.len());
        let bound = 3 + 6 * (list.len() * 4 + self.seen.len() + 1);
        assert!(self.fleet.outputs - before <= bound, "an input has bounded consequences");
    }

    /// Follows a switch: the old policy serves until the new one does, or fails, or the old one
    /// has nothing left.
    fn settle(&mut self) {
        let by_subchannel = self.owners.lock().unwrap().by_subchannel.clone();
        let owners: BTreeSet<usize> =
            self.fleet.healthy.iter().map(|id| by_subchannel[id]).collect();
        assert!(owners.len() <= 1, "two policies have healthy connections: {owners:?}");
        let owner = owners.first().copied();
        if self.pending.is_some() && (owner.is_none() || owner == self.pending) {
            self.current = self.pending.take();
        }
        assert!(owner.is_none() || owner == self.current, "an old policy serves");
        for id in self.fleet.connected.keys() {
            let owner = Some(by_subchannel[id]);
            assert!(owner == self.current || owner == self.pending, "an old policy is connected");
        }
        for (id, _) in self.fleet.connecting() {
            let owner = Some(by_subchannel[&id]);
            assert!(owner == self.current || owner == self.pending, "an old policy connects");
            self.seen.insert(id);
        }
    }

    fn spurious(&mut self) {
        let outputs = self.fleet.outputs;
        let live = self.fleet.connecting();
        for id in self.seen.clone() {
            if !live.iter().any(|(l, _)| *l == id) {
                self.fleet.engine.connected(self.fleet.now, id);
                self.fleet.engine.connect_failed(self.fleet.now, id, Status::unavailable("late"));
            }
            if !self.fleet.connected.contains_key(&id) {
                self.fleet.engine.disconnected(self.fleet.now, id);
            }
        }
        let running: BTreeSet<_> = self.fleet.running().collect();
        for id in self.fleet.watched.difference(&running) {
            let event = WatchEvent::Health(ServingStatus::NotServing);
            self.fleet.engine.watch_event(self.fleet.now, *id, &event);
            let event = WatchEvent::Ended(Status::unavailable("late"));
            self.fleet.engine.watch_event(self.fleet.now, *id, &event);
        }
        self.fleet.engine.handle_timeout(self.fleet.now);
        self.fleet.drain();
        assert_eq!(self.fleet.outputs, outputs, "nothing of that concerns anybody");
    }

    fn check(&mut self) {
        self.settle();
        assert!(self.fleet.engine.poll_output().is_none(), "a drain takes all");
        if self.fleet.healthy.is_empty() {
            assert_ne!(self.fleet.state, ConnectivityState::Ready, "READY without a connection");
            if self.fleet.publishes > 0 {
                let pick = self.fleet.pick();
                let fails = self.fleet.state == ConnectivityState::TransientFailure;
                assert_eq!(matches!(pick, Picked::Fail(_)), fails, "{pick:?}");
                assert_eq!(matches!(pick, Picked::Queue), !fails, "{pick:?}");
            }
            return;
        }
        assert_eq!(self.fleet.state, ConnectivityState::Ready);
        let by_subchannel = self.owners.lock().unwrap().by_subchannel.clone();
        for (id, address) in &self.fleet.connected {
            let told = &self.instances[by_subchannel[id]];
            let listed = told.list.iter().any(|e| e.addresses().contains(address));
            assert!(listed, "{address} was removed and still is connected");
        }
        let serving = self.fleet.healthy.iter().map(|id| self.fleet.connected[id].clone());
        let serving: Vec<_> = serving.collect();
        let told = &self.instances[self.current.expect("somebody owns the connections")];
        if told.policy != 0 {
            assert_eq!(serving.len(), 1, "pick_first has one connection");
            assert!(self.fleet.watches().is_empty() || self.pending.is_some(), "and is unchecked");
        }
        let mut want = BTreeMap::new();
        serving.iter().for_each(|address| *want.entry(address.clone()).or_insert(0) += 3);
        assert_eq!(self.fleet.shares(3 * serving.len()), want, "one turn each");
    }

    /// Everything is well again: after the longest backoff all endpoints serve.
    fn recover(&mut self, number: usize) {
        (0..BACKENDS).for_each(|n| self.fleet.set(address(n), Backend::Up));
        for n in 0..BACKENDS {
            self.apply(&Op::Say(n, Says::Health(ServingStatus::Serving)));
            self.check();
        }
        let list: Vec<Vec<u16>> = (0..BACKENDS).map(|n| vec![n]).collect();
        self.update(&list, number);
        self.check();
        self.apply(&Op::ExitIdle);
        self.check();
        self.apply(&Op::Run(200_000));
        let want = if number == 0 { usize::from(BACKENDS) } else { 1 };
        assert_eq!(self.fleet.connected.len(), want);
        assert_eq!(self.fleet.healthy.len(), want);
        assert_eq!(self.pending, None, "the newest policy serves");
        assert!(self.fleet.connecting().is_empty());
        let outputs = self.fleet.outputs;
        self.apply(&Op::Run(10_000));
        assert_eq!(self.fleet.outputs, outputs, "and then there is quiet");
        assert_eq!(self.fleet.engine.poll_timeout(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_engine_does_what_the_model_says(seed: u64, ops in ops(), last in 0..POLICIES.len()) {
        let mut model = Model::new(seed);
        for op in &ops {
            model.apply(op);
            model.check();
        }
        model.recover(last);
    }

    #[test]
    fn retries_stay_within_the_backoff(seed: u64, ops in ops()) {
        let mut model = Model::new(seed);
        for op in &ops {
            model.apply(op);
            model.check();
        }
        // Nobody answers any more. Once the backoff has grown there are 120 s ± 20 % from one
        // attempt to the next.
        for n in 0..BACKENDS {
            model.apply(&Op::Kill(n));
            model.apply(&Op::Fail(n));
            model.check();
        }
        model.apply(&Op::Update(vec![vec![0]], 0));
        prop_assert!(model.fleet.watches().is_empty(), "no watch outlives its connection");
        model.fleet.run_ms(1_000_000);
        model.fleet.take_log();
        model.fleet.run_ms(1_200_000);
        let log = model.fleet.take_log();
        let attempts = log.iter().filter(|line| line.contains("connect ")).count();
        prop_assert!((8..=13).contains(&attempts), "{attempts} in 20 minutes: {log:?}");
    }
}
