//! Random sequences of everything that can happen to a channel, against a model simple enough to be
//! right: which lists there were, and what the servers saw. Over pipes in memory and in paused
//! time, so that backoffs, deadlines and silence cost nothing. What an engine decides has a model
//! of its own (evenkeel-core, `engine/model_tests.rs`); this one is about what a channel makes of
//! it.

mod fixture;

use std::{collections::BTreeSet, time::Duration};

use evenkeel::{Channel, ConnectivityState};
use fixture::{
    bytes::{BytesCodec, client, path},
    counting::Feedback,
    pipes::{BACKENDS, Fleet, Mode},
};
use futures_util::{StreamExt as _, stream};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{Code, Request, Status, metadata::MetadataValue};

const POLICIES: [&str; 2] = ["round_robin", "pick_first"];
/// Timers have a resolution of 1 ms: a call may be this much late.
const LATE_MAX: Duration = Duration::from_millis(2);

#[derive(Clone, Debug)]
enum Op {
    Update(Vec<usize>),
    ResolverError,
    Set(usize, Mode),
    /// All connections of a backend end without a word.
    Kill(usize),
    /// They end politely.
    GoAway(usize),
    Call(Plan),
    Run(u64),
}

/// A call.
#[derive(Clone, Copy, Debug)]
struct Plan {
    deadline_ms: u64,
    wait_for_ready: bool,
    /// Messages of the request after the first, one every 3 ms: then it has a pump.
    more: usize,
    cancelled_after_ms: Option<u64>,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let mode = prop_oneof![
        4 => (0..20u64).prop_map(Mode::Answers),
        1 => Just(Mode::Silent),
        1 => Just(Mode::Resets),
        1 => Just(Mode::RefusesStreams),
        2 => Just(Mode::RefusesConnections),
        1 => Just(Mode::NeverGreets),
    ];
    let list = proptest::sample::subsequence((0..BACKENDS).collect::<Vec<_>>(), 0..=BACKENDS);
    let plan = (1..3_000u64, any::<bool>(), 0..3usize, proptest::option::weighted(0.2, 0..30u64));
    let plan = plan.prop_map(|(deadline_ms, wait_for_ready, more, cancelled_after_ms)| Plan {
        deadline_ms,
        wait_for_ready,
        more,
        cancelled_after_ms,
    });
    let ms = prop_oneof![0..3u64, 0..100u64, 0..5_000u64];
    let op = prop_oneof![
        4 => list.prop_shuffle().prop_map(Op::Update),
        1 => Just(Op::ResolverError),
        4 => (0..BACKENDS, mode).prop_map(|(n, mode)| Op::Set(n, mode)),
        2 => (0..BACKENDS).prop_map(Op::Kill),
        2 => (0..BACKENDS).prop_map(Op::GoAway),
        12 => plan.prop_map(Op::Call),
        4 => ms.prop_map(Op::Run),
    ];
    vec(op, 1..50)
}

/// What a call came to; `None` when it was cancelled.
struct Ended {
    number: usize,
    plan: Plan,
    took: Duration,
    result: Option<Result<usize, Status>>,
}

async fn call(channel: Channel, number: usize, plan: Plan) -> Ended {
    let rest = stream::iter(0..plan.more).then(|_| async {
        // Paused time: the messages are apart, and nobody waits.
        sleep(Duration::from_millis(3)).await;
        bytes::Bytes::from_static(b"more")
    });
    let messages = stream::iter([bytes::Bytes::from_static(b"first")]).chain(rest);
    let mut request = Request::new(messages);
    request.set_timeout(Duration::from_millis(plan.deadline_ms));
    request.metadata_mut().insert("x-call", MetadataValue::from(number));
    let options = evenkeel::CallOptions::default().wait_for_ready(plan.wait_for_ready);
    request.extensions_mut().insert(options);
    let begun = Instant::now();
    let mut client = client(&channel);
    let answer =
        client.client_streaming::<_, _, bytes::Bytes, _>(request, path("Chat"), BytesCodec);
    let cancelled = async {
        match plan.cancelled_after_ms {
            // Paused time: the caller's own patience.
            Some(ms) => sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        answer = answer => Some(answer.map(|answer| {
            let backend = answer.extensions().get::<evenkeel::Backend>().expect("always there");
            backend.address.to_string().parse().expect("a number")
        })),
        () = cancelled => None,
    };
    Ended { number, plan, took: begun.elapsed(), result }
}

struct Model {
    fleet: Fleet,
    feedback: Feedback,
    channel: Channel,
    policy: usize,
    listed: BTreeSet<usize>,
    calls: JoinSet<Ended>,
    begun: usize,
}

impl Model {
    async fn new(policy: usize, seed: u64) -> Self {
        let (fleet, feedback) = (Fleet::default(), Feedback::default());
        let channel = Channel::builder("pipes:all")
            .register_resolver(fleet.resolver())
            .connector(fleet.connector())
            .recorder(fleet.recorder())
            .register_policy(feedback.counts(POLICIES[policy]))
            .lb_policy(POLICIES[policy])
            .seed(seed)
            .build()
            .expect("valid settings");
        channel.connect();
        settle().await;
        let (listed, calls) = (BTreeSet::new(), JoinSet::new());
        Self { fleet, feedback, channel, policy, listed, calls, begun: 0 }
    }

    async fn apply(&mut self, op: &Op) {
        match op {
            Op::Update(list) => {
                // Calls that are under way may be picked before the update is published.
                self.fleet.allow(self.listed.union(&list.iter().copied().collect()));
                self.fleet.update(list);
                settle().await;
                self.listed = list.iter().copied().collect();
                self.fleet.allow(&self.listed);
            }
            Op::ResolverError => self.fleet.resolver_error(),
            Op::Set(n, mode) => self.fleet.set(*n, *mode),
            Op::Kill(n) => self.fleet.kill(*n),
            Op::GoAway(n) => self.fleet.go_away(*n),
            Op::Call(plan) => {
                self.calls.spawn(call(self.channel.clone(), self.begun, *plan));
                self.begun += 1;
            }
            // Paused time passes.
            Op::Run(ms) => sleep(Duration::from_millis(*ms)).await,
        }
    }

    async fn check(&mut self) {
        settle().await;
        while let Some(ended) = self.calls.try_join_next() {
            self.ended(&ended.expect("no panic"));
        }
        assert_eq!(self.fleet.strays(), Vec::<String>::new(), "calls to removed endpoints");
        let ready = self.fleet.ready_by_the_channel();
        assert!(ready.is_subset(&self.listed), "{ready:?} of {:?}", self.listed);
        assert_eq!(ready, self.fleet.ready_by_the_servers(), "READY, and by the servers");
        if self.policy == 1 {
            assert!(ready.len() <= 1, "pick_first has one connection: {ready:?}");
        }
        let state = self.channel.state();
        assert_eq!(state == ConnectivityState::Ready, !ready.is_empty(), "{state}, {ready:?}");
    }

    fn ended(&self, ended: &Ended) {
        let Ended { number, plan, took, result } = ended;
        let served_by = self.fleet.served(*number);
        let what = format!("call {number}, {plan:?}, {result:?} after {took:?} by {served_by:?}");
        assert!(*took <= Duration::from_millis(plan.deadline_ms) + LATE_MAX, "late: {what}");
        assert!(served_by.len() <= 1, "served twice: {what}");
        match result {
            None => {}
            Some(Ok(backend)) => assert_eq!(served_by, [*backend], "{what}"),
            Some(Err(status)) => match status.code() {
                Code::DeadlineExceeded => {
                    assert!(*took >= Duration::from_millis(plan.deadline_ms), "early: {what}");
                }
                // The server's reset, and only one that had the call.
                Code::Internal => assert_eq!(served_by.len(), 1, "{what}"),
                Code::Unavailable if plan.wait_for_ready => {
                    let sent = self.fleet.arrived(*number);
                    assert!(sent > 0, "it waits for ready and was never sent: {what}");
                }
                code => assert_eq!(code, Code::Unavailable, "{what}"),
            },
        }
    }

    /// Everything is well again: all calls end, all endpoints serve, and nothing is left.
    async fn recover(mut self) -> (usize, usize) {
        (0..BACKENDS).for_each(|n| self.fleet.set(n, Mode::Answers(0)));
        self.apply(&Op::Update((0..BACKENDS).collect())).await;
        // Longer than the longest deadline, connect timeout and backoff.
        self.apply(&Op::Run(200_000)).await;
        self.check().await;
        assert!(self.calls.is_empty(), "{} calls hang", self.calls.len());
        let plan =
            Plan { deadline_ms: 10, wait_for_ready: false, more: 0, cancelled_after_ms: None };
        let last = call(self.channel.clone(), self.begun, plan).await;
        assert!(matches!(last.result, Some(Ok(_))), "{:?}", last.result);
        self.ended(&last);
        // After the call: without one, pick_first does not replace a connection that ended.
        let ready = self.fleet.ready_by_the_channel().len();
        assert_eq!(ready, if self.policy == 0 { BACKENDS } else { 1 });
        drop(self.channel);
        settle().await;
        let (picks, ends) = (self.feedback.picks(), self.feedback.ends());
        assert!(ends.iter().all(|ends| *ends == 1), "each pick ends once: {ends:?}");
        assert_eq!(ends.len(), picks);
        assert_eq!(self.fleet.open(), 0, "connections");
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0, "tasks");
        (self.begun + 1, picks)
    }
}

/// Time stands still until nobody has anything to do.
async fn settle() {
    // Paused time moves on only when every task waits.
    sleep(Duration::from_millis(1)).await;
}

#[test]
fn a_channel_does_what_the_model_says() {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(fastrand::u64(..));
    }
    println!("{} cases, PROPTEST_RNG_SEED={}", config.cases, config.rng_seed);
    let (calls, picks) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let cases = (0..POLICIES.len(), any::<u64>(), ops());
    let result = TestRunner::new(config).run(&cases, |(policy, seed, ops)| {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (more_calls, more_picks) = runtime.block_on(async {
            let mut model = Model::new(policy, seed).await;
            for op in &ops {
                model.apply(op).await;
                model.check().await;
            }
            model.recover().await
        });
        calls.set(calls.get() + more_calls);
        picks.set(picks.get() + more_picks);
        Ok(())
    });
    println!("{} calls, {} picks", calls.get(), picks.get());
    result.unwrap_or_else(|e| panic!("{e}"));
}
