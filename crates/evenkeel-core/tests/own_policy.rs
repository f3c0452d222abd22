//! A policy written outside this crate, with its public API only: what the API lacks, a user cannot
//! build. `tagging` wraps any child policy, adds a header to each attempt, hears how each ended and
//! looks at its counters by a timer of its own; `counted` shows what one event costs in a big tree.

use std::{
    any::Any,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use evenkeel_core::{
    Backoff, CallOutcome, CallSink, ConfigError, ConnectivityState, Ctx, Endpoint, Engine,
    EngineOptions, Input, LbPolicy, Nanos, Output, Pick, PickArgs, PickResult, Picker,
    PolicyConfig, PolicyFactory, PolicyRegistry, SECOND_NS, ServiceConfig, Status, SubchannelId,
    TimerId,
    picker::waiting_picker,
    policies::{children::Children, router::Router},
    service_config::parse_policy_list,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

/// What `tagging` counts; atomics only, as the calls' tasks touch it.
#[derive(Default)]
struct Counters {
    finished: AtomicU64,
    not_finished: AtomicU64,
    /// `finished` as the policy's timer saw it.
    seen: AtomicU64,
}

impl CallSink for Counters {
    fn complete(&self, token: u64, outcome: CallOutcome) {
        let counter = match outcome {
            CallOutcome::Finished(_) => &self.finished,
            _ => &self.not_finished,
        };
        counter.fetch_add(token, Ordering::Relaxed);
    }
}

struct Settings {
    tag: HeaderValue,
    child: PolicyConfig,
}

struct TaggingFactory(Arc<Counters>);

impl PolicyFactory for TaggingFactory {
    fn name(&self) -> &str {
        "tagging"
    }

    fn parse_config(
        &self,
        json: &Value,
        registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        let tag = json["tag"].as_str().and_then(|text| HeaderValue::from_str(text).ok());
        let tag = tag.ok_or_else(|| ConfigError::new("tag", "a header value", &json["tag"]))?;
        let child = parse_policy_list("childPolicy", &json["childPolicy"], registry)?;
        Ok(Arc::new(Settings { tag, child }))
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        Box::new(Tagging { counters: self.0.clone(), router: Router::default(), child: None })
    }
}

struct Tagging {
    counters: Arc<Counters>,
    router: Router<()>,
    child: Option<TaggedChild>,
}

struct TaggedChild {
    policy: Box<dyn LbPolicy>,
    tag: HeaderValue,
    timer: TimerId,
}

impl Tagging {
    fn hand_down(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        let Some(child) = &mut self.child else { return };
        if self.router.deliver((), &mut *child.policy, input, ctx) {
            ctx.publish();
        }
    }
}

impl LbPolicy for Tagging {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        match input {
            Input::ResolverUpdate { endpoints, config } => {
                let settings = config.settings::<Settings>().expect("made by our factory");
                let child = self.child.get_or_insert_with(|| TaggedChild {
                    policy: settings.child.build(),
                    tag: settings.tag.clone(),
                    timer: ctx.set_timer(ctx.now() + SECOND_NS),
                });
                child.tag = settings.tag.clone();
                self.hand_down(Input::ResolverUpdate { endpoints, config: &settings.child }, ctx);
            }
            Input::Timer(timer) if self.router.owner(&input).is_none() => {
                let child = self.child.as_mut().expect("it set the timer");
                assert_eq!(timer, child.timer);
                child.timer = ctx.set_timer(ctx.now() + SECOND_NS);
                self.counters
                    .seen
                    .store(self.counters.finished.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            other => self.hand_down(other, ctx),
        }
    }

    fn state(&self) -> ConnectivityState {
        self.child.as_ref().map_or(ConnectivityState::Idle, |child| child.policy.state())
    }

    fn picker(&self) -> Arc<dyn Picker> {
        match &self.child {
            Some(child) => Arc::new(TaggingPicker {
                inner: child.policy.picker(),
                tag: child.tag.clone(),
                counters: self.counters.clone(),
            }),
            None => waiting_picker(self.state(), || Status::unavailable("no child yet")),
        }
    }
}

struct TaggingPicker {
    inner: Arc<dyn Picker>,
    tag: HeaderValue,
    counters: Arc<Counters>,
}

impl Picker for TaggingPicker {
    fn pick(&self, args: &PickArgs<'_>) -> PickResult {
        match self.inner.pick(args) {
            PickResult::Complete(pick) => PickResult::Complete(Pick {
                metadata: Some((HeaderName::from_static("x-tag"), self.tag.clone())),
                on_complete: Some((self.counters.clone(), 1)),
                ..pick
            }),
            other => other,
        }
    }
}

fn endpoints(count: u16) -> Vec<Endpoint> {
    let address = |n: u16| SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + u32::from(n)), 80));
    (0..count).map(|n| Endpoint::new(address(n))).collect()
}

fn engine(default_policy: PolicyConfig) -> Engine {
    Engine::new(EngineOptions { seed: 1, backoff: Backoff::default(), default_policy })
}

/// Empties the engine: what is to be connected, and the last picker.
fn drain(engine: &mut Engine) -> (Vec<SubchannelId>, Option<Arc<dyn Picker>>) {
    let (mut connect, mut last) = (Vec::new(), None);
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Connect { id, .. } => connect.push(id),
            Output::Publish { picker, .. } => last = Some(picker),
            _ => {}
        }
    }
    (connect, last)
}

fn pick(picker: &Arc<dyn Picker>) -> PickResult {
    picker.pick(&PickArgs::new("/service/method", &HeaderMap::new(), 0, 0))
}

fn tagging(counters: &Arc<Counters>) -> PolicyRegistry {
    let mut registry = PolicyRegistry::built_in();
    registry.register(Arc::new(TaggingFactory(counters.clone())));
    registry
}

fn parse(registry: &PolicyRegistry, settings: Value) -> Result<PolicyConfig, ConfigError> {
    let text = json!({ "loadBalancingConfig": [{ "tagging": settings }] }).to_string();
    ServiceConfig::parse(&text, registry).map(|c| c.policy.expect("the text names a policy"))
}

#[test]
fn a_policy_from_outside_wraps_a_built_in_one() {
    let counters = Arc::new(Counters::default());
    let registry = tagging(&counters);
    let config = |tag: &str| {
        parse(&registry, json!({ "tag": tag, "childPolicy": [{ "round_robin": {} }] })).unwrap()
    };
    let mut engine = engine(config("a"));
    engine.resolver_update(0, &endpoints(3), None);
    let (ids, picker) = drain(&mut engine);
    assert!(matches!(pick(&picker.unwrap()), PickResult::Queue));
    ids.iter().for_each(|id| engine.connected(1, *id));
    let (_, picker) = drain(&mut engine);
    let mut picked = Vec::new();
    for outcome in [CallOutcome::Finished(Some(0)), CallOutcome::Cancelled, CallOutcome::NotSent] {
        let PickResult::Complete(pick) = pick(picker.as_ref().unwrap()) else { panic!("READY") };
        picked.push(pick.subchannel);
        let (name, value) = pick.metadata.unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-tag", b"a".as_slice()));
        let (sink, token) = pick.on_complete.unwrap();
        sink.complete(token, outcome);
    }
    picked.sort_unstable();
    assert_eq!(picked, ids, "the child's turns");
    assert_eq!(counters.not_finished.load(Ordering::Relaxed), 2);
    engine.resolver_update(2, &endpoints(3), Some(&config("b")));
    let (connects, picker) = drain(&mut engine);
    assert!(connects.is_empty(), "new settings reach the policy, the connections stay");
    let PickResult::Complete(pick) = pick(&picker.unwrap()) else { panic!("READY") };
    assert_eq!(pick.metadata.unwrap().1, "b");
}

#[test]
fn timers_of_a_policy_and_of_its_child_stay_apart() {
    let counters = Arc::new(Counters::default());
    let settings = json!({ "tag": "a", "childPolicy": [{ "pick_first": {} }] });
    let mut engine = engine(parse(&tagging(&counters), settings).unwrap());
    engine.resolver_update(0, &endpoints(8), None);
    let mut times: Vec<Nanos> = Vec::new();
    let mut attempts = drain(&mut engine).0.len();
    counters.complete(5, CallOutcome::Finished(None));
    while let Some(at) = engine.poll_timeout().filter(|at| *at <= 2 * SECOND_NS) {
        times.push(at / 1_000_000);
        engine.handle_timeout(at);
        attempts += drain(&mut engine).0.len();
    }
    // The child's 250 ms, seven of them, and its parent's second; the first at 1,000 is the
    // parent's, as it was set earlier, and one call wakes both.
    assert_eq!(times, [250, 500, 750, 1_000, 1_250, 1_500, 1_750, 2_000]);
    assert_eq!(attempts, 8);
    assert_eq!(counters.seen.load(Ordering::Relaxed), 5);
}

#[test]
fn a_bad_setting_of_a_nested_policy_is_found() {
    let registry = tagging(&Arc::new(Counters::default()));
    let child = |child: Value| parse(&registry, json!({ "tag": "a", "childPolicy": child }));
    let error = child(json!([{ "pick_first": { "shuffleAddressList": 1 } }])).unwrap_err();
    let here = "loadBalancingConfig[0].tagging.childPolicy[0].pick_first.shuffleAddressList";
    assert_eq!(error.to_string(), format!("{here}: expected true or false, got 1"));
    let error = child(json!([{ "least_request": {} }])).unwrap_err();
    assert!(error.to_string().contains("a policy among grpclb, pick_first, round_robin, tagging"));
    assert!(parse(&registry, json!({})).unwrap_err().to_string().contains("tagging.tag"));
}

/// `pick_first`, but each input is counted.
struct Counted(Box<dyn LbPolicy>, Arc<AtomicUsize>);

impl LbPolicy for Counted {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.handle(input, ctx);
    }

    fn state(&self) -> ConnectivityState {
        self.0.state()
    }

    fn picker(&self) -> Arc<dyn Picker> {
        self.0.picker()
    }
}

struct CountedFactory(Arc<dyn PolicyFactory>, Arc<AtomicUsize>);

impl PolicyFactory for CountedFactory {
    fn name(&self) -> &str {
        "counted"
    }

    fn parse_config(
        &self,
        json: &Value,
        registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        self.0.parse_config(json, registry)
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        Box::new(Counted(self.0.build(), self.1.clone()))
    }
}

/// A parent of many children that takes the first READY one.
struct Many(Children);

impl LbPolicy for Many {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        match input {
            Input::ResolverUpdate { endpoints, .. } => self.0.update(endpoints, ctx),
            other => self.0.handle(other, ctx),
        }
    }

    fn state(&self) -> ConnectivityState {
        self.0.state()
    }

    fn picker(&self) -> Arc<dyn Picker> {
        let first = self.0.ready_pickers().into_iter().next();
        first.unwrap_or_else(|| waiting_picker(self.state(), || self.0.failure()))
    }
}

struct ManyFactory(PolicyConfig);

impl PolicyFactory for ManyFactory {
    fn name(&self) -> &str {
        "many"
    }

    fn parse_config(
        &self,
        _json: &Value,
        _registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        Ok(Arc::new(()))
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        Box::new(Many(Children::new(self.0.clone())))
    }
}

#[test]
fn an_event_in_a_tree_of_ten_thousand_concerns_one_child() {
    let count = Arc::new(AtomicUsize::new(0));
    let registry = PolicyRegistry::built_in();
    let pick_first = registry.get("pick_first").unwrap().clone();
    let settings = pick_first.parse_config(&json!({}), &registry).unwrap();
    let child = PolicyConfig::new(Arc::new(CountedFactory(pick_first, count.clone())), settings);
    let mut engine =
        engine(PolicyConfig::new(Arc::new(ManyFactory(child)), Arc::new(()) as Arc<_>));
    engine.resolver_update(0, &endpoints(10_000), None);
    let (ids, _) = drain(&mut engine);
    assert_eq!(ids.len(), 10_000);
    let inputs = |engine: &mut Engine, event: &dyn Fn(&mut Engine)| {
        count.store(0, Ordering::Relaxed);
        event(engine);
        count.load(Ordering::Relaxed)
    };
    let first = ids[0];
    let refused = || Status::unavailable("refused");
    for id in ids.iter().step_by(997) {
        assert_eq!(inputs(&mut engine, &|e| e.connected(1, *id)), 1);
        // IDLE, then the parent's ExitIdle, then CONNECTING.
        assert_eq!(inputs(&mut engine, &|e| e.disconnected(2, *id)), 3);
        assert_eq!(inputs(&mut engine, &|e| e.connect_failed(3, *id, refused())), 1);
    }
    assert_eq!(drain(&mut engine).0.len(), 11);
    let due = engine.poll_timeout().unwrap();
    // One backoff ends: IDLE and CONNECTING again.
    assert_eq!(inputs(&mut engine, &|e| e.handle_timeout(due)), 2);
    assert_eq!(
        inputs(&mut engine, &|e| e.connected(4, SubchannelId { index: 1 << 30, ..first })),
        0
    );
}
