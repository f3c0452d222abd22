//! What holds for an engine whatever its policy: publishing, stale events, graceful switches,
//! timers, determinism.

use std::sync::Arc;

use crate::{
    Backoff, ConnectivityState, Engine, EngineOptions, MILLISECOND_NS, Nanos, Output, Picker,
    ResolverError, SECOND_NS, Status, SubchannelId,
    testing::{Backend, Fleet, Picked, backoff_without_jitter, endpoints, policy, v4},
};

fn engine(policy_text: &str) -> Engine {
    Engine::new(EngineOptions {
        seed: 1,
        backoff: backoff_without_jitter(),
        default_policy: policy(policy_text),
    })
}

fn outputs(engine: &mut Engine) -> Vec<Output> {
    std::iter::from_fn(|| engine.poll_output()).collect()
}

fn connects(outputs: &[Output]) -> Vec<SubchannelId> {
    let connect = |o: &Output| match o {
        Output::Connect { id, .. } => Some(*id),
        _ => None,
    };
    outputs.iter().filter_map(connect).collect()
}

/// Each output as text; a picker shows what it picks.
fn texts(outputs: Vec<Output>) -> Vec<String> {
    let text = |output| match output {
        Output::Connect { id, address } => format!("connect {id:?} {address}"),
        Output::Disconnect { id } => format!("disconnect {id:?}"),
        Output::RequestResolution => "resolve".into(),
        Output::SubchannelState { address, state, error, .. } => {
            format!("{address} {state} {error:?}")
        }
        Output::Watch { id, subchannel, watch } => format!("watch {id:?} {subchannel:?} {watch:?}"),
        Output::WatchSend { id, message } => format!("send {id:?} {message:?}"),
        Output::Unwatch { id } => format!("unwatch {id:?}"),
        Output::Balancer(news) => format!("{news:?}"),
        Output::SubchannelHealth { address, state, error } => {
            format!("{address} health {state} {error:?}")
        }
        Output::Publish { state, picker } => format!("publish {state} {:?}", picks(&picker)),
    };
    outputs.into_iter().map(text).collect()
}

fn picks(picker: &Arc<dyn Picker>) -> Vec<String> {
    let headers = http::HeaderMap::new();
    let pick = |_| match picker.pick(&crate::PickArgs::new("/s/m", &headers, 0, 0)) {
        crate::PickResult::Complete(pick) => format!("{:?}", pick.subchannel),
        crate::PickResult::Queue => "queue".into(),
        crate::PickResult::Fail(s) => s.to_string(),
        crate::PickResult::Drop(dropped) => dropped.status.to_string(),
    };
    (0..3).map(pick).collect()
}

#[test]
fn many_inputs_lead_to_one_publish_and_one_request_at_the_end() {
    let mut engine = engine("round_robin");
    engine.exit_idle(0);
    engine.resolver_update(0, &endpoints(1..=5), None);
    let ids = connects(&outputs(&mut engine));
    assert_eq!(ids.len(), 5);
    ids.iter().for_each(|id| engine.connected(1, *id));
    ids[..3].iter().for_each(|id| engine.disconnected(2, *id));
    let outputs = texts(outputs(&mut engine));
    let count = |what: &str| outputs.iter().filter(|o| o.starts_with(what)).count();
    assert_eq!((count("publish"), count("resolve"), count("connect")), (1, 1, 3), "{outputs:#?}");
    assert!(outputs.last().unwrap().starts_with("publish READY"));
    assert!(engine.poll_output().is_none(), "and then there is nothing more");
}

#[test]
fn leaving_idle_lets_calls_wait_for_the_first_answer() {
    let mut engine = engine("round_robin");
    assert!(engine.poll_output().is_none(), "nothing before the first input");
    engine.exit_idle(0);
    engine.exit_idle(0);
    let wait = r#"publish CONNECTING ["queue", "queue", "queue"]"#;
    assert_eq!(texts(outputs(&mut engine)), [wait]);
    engine.exit_idle(0);
    assert!(engine.poll_output().is_none());
    let error = ResolverError { status: Status::unavailable("SERVFAIL"), expired: false };
    engine.resolver_error(1, &error);
    let failing = texts(outputs(&mut engine)).concat();
    assert!(failing.starts_with("publish TRANSIENT_FAILURE [\"Unavailable: SERVFAIL\""));
    engine.resolver_update(2, &endpoints([1]), None);
    assert_eq!(texts(outputs(&mut engine)).last().unwrap(), wait);
}

#[test]
fn events_about_subchannels_that_are_gone_are_ignored() {
    let mut engine = engine("pick_first");
    engine.resolver_update(0, &endpoints([1]), None);
    let old = connects(&outputs(&mut engine))[0];
    engine.resolver_update(0, &endpoints([2]), None);
    let new = connects(&outputs(&mut engine))[0];
    assert_eq!((new.index, new.generation), (old.index, old.generation + 1), "the place is reused");
    let never = SubchannelId { index: 99, generation: 0 };
    for state in ["connecting", "ready", "idle"] {
        for id in [old, never] {
            assert_eq!(engine.address(id), None);
            engine.connected(1, id);
            engine.connect_failed(1, id, Status::unavailable("late"));
            engine.disconnected(1, id);
            assert!(engine.poll_output().is_none(), "{id:?} while the new one is {state}");
            assert_eq!(engine.poll_timeout(), None);
        }
        match state {
            "connecting" => engine.connected(1, new),
            _ => engine.disconnected(1, new),
        }
        outputs(&mut engine);
    }
}

#[test]
fn events_that_do_not_fit_the_state_are_ignored() {
    let mut engine = engine("pick_first");
    engine.resolver_update(0, &endpoints([1]), None);
    let id = connects(&outputs(&mut engine))[0];
    engine.disconnected(1, id);
    assert!(engine.poll_output().is_none(), "there is no connection yet that could be lost");
    engine.connected(1, id);
    outputs(&mut engine);
    engine.connected(1, id);
    engine.connect_failed(1, id, Status::unavailable("a second answer"));
    assert!(engine.poll_output().is_none());
    engine.disconnected(2, id);
    outputs(&mut engine);
    engine.disconnected(2, id);
    engine.connected(2, id);
    engine.connect_failed(2, id, Status::unavailable("nobody asked"));
    assert!(engine.poll_output().is_none());
}

#[test]
fn what_is_given_up_within_one_drain_is_never_begun() {
    let mut engine = engine("round_robin");
    engine.resolver_update(0, &endpoints(1..=3), None);
    engine.resolver_update(0, &endpoints(4..=6), Some(&policy("pick_first")));
    let outputs_of_both = outputs(&mut engine);
    let ids = connects(&outputs_of_both);
    assert_eq!(ids.len(), 1, "only the first attempt of pick_first");
    let gone = |o: &Output| match o {
        Output::Disconnect { id } => Some(*id),
        _ => None,
    };
    let gone: Vec<SubchannelId> = outputs_of_both.iter().filter_map(gone).collect();
    assert_eq!(gone.len(), 3);
    assert!(gone.iter().any(|id| id.index == ids[0].index), "its place was another's before");
    engine.connect_failed(1, gone[0], Status::unavailable("late"));
    assert!(engine.poll_output().is_none());
    engine.connected(1, ids[0]);
    assert!(texts(outputs(&mut engine)).last().unwrap().starts_with("publish READY"));
}

#[test]
fn changes_the_policy_without_a_gap_while_calls_are_served() {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1), v4(2)]);
    fleet.update(&endpoints(1..=2));
    fleet.drive();
    fleet.take_log();
    let before = fleet.publishes;
    fleet.set(v4(1), Backend::HangsUntil(2_000));
    fleet.update_with(&endpoints(1..=2), &policy("pick_first"));
    fleet.set(v4(2), Backend::HangsUntil(1_000));
    for _ in 0..3 {
        fleet.run_ms(300);
        assert_eq!(fleet.shares(10).len(), 2, "the old policy serves on");
    }
    assert_eq!(fleet.publishes, before, "and its picker stays");
    fleet.run_ms(200);
    assert_eq!(fleet.shares(10).into_keys().collect::<Vec<_>>(), [v4(2)]);
    assert_eq!(fleet.connected.len(), 1, "the old policy's connections are closed");
    let log = fleet.take_log();
    assert!(log.iter().all(|line| !line.contains(char::is_uppercase)), "always READY: {log:?}");
}

#[test]
fn changes_the_policy_at_once_while_no_call_is_served() {
    for backend in [Backend::HangsForEver, Backend::Refuses] {
        let mut fleet = Fleet::new("round_robin");
        fleet.set(v4(1), backend);
        fleet.set(v4(2), Backend::Up);
        fleet.update(&endpoints([1]));
        fleet.run_ms(10);
        let before = fleet.publishes;
        fleet.update_with(&endpoints([1, 2]), &policy("pick_first"));
        assert!(fleet.connecting().len() == 1, "the old attempt is given up");
        assert_eq!((fleet.publishes, fleet.pick()), (before + 1, Picked::Queue));
        fleet.drive();
        assert_eq!(fleet.pick(), Picked::Address(v4(2)));
    }
}

#[test]
fn the_new_policy_takes_over_when_it_fails_or_the_old_one_stops_serving() {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1)]);
    fleet.update(&endpoints([1]));
    fleet.drive();
    fleet.update_with(&endpoints([2]), &policy("pick_first"));
    fleet.drive();
    assert!(fleet.failure().contains("10.0.0.2:80 refused"), "as gRPC does");
    assert!(fleet.connected.is_empty());

    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1)]);
    fleet.set(v4(2), Backend::HangsForEver);
    fleet.update(&endpoints([1]));
    fleet.drive();
    fleet.update_with(&endpoints([2]), &policy("pick_first"));
    fleet.run_ms(10);
    assert_eq!(fleet.pick(), Picked::Address(v4(1)));
    fleet.disconnect(&v4(1));
    assert_eq!((fleet.state, fleet.pick()), (ConnectivityState::Connecting, Picked::Queue));
    let connecting: Vec<_> = fleet.connecting().into_iter().map(|(_, a)| a).collect();
    assert_eq!(connecting, [v4(2)], "the old policy does not connect again");
}

#[test]
fn a_change_of_policy_that_is_taken_back_changes_nothing() {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1), v4(2)]);
    fleet.update(&endpoints(1..=2));
    fleet.drive();
    fleet.set(v4(1), Backend::HangsForEver);
    fleet.update_with(&endpoints(1..=2), &policy("pick_first"));
    assert_eq!(fleet.connecting().len(), 1);
    fleet.take_log();
    fleet.update(&endpoints(1..=2));
    let given_up = format!("{} give up 10.0.0.1:80", fleet.now / MILLISECOND_NS);
    fleet.run_ms(60_000);
    assert_eq!(fleet.take_log(), [given_up]);
    assert_eq!(fleet.shares(10).len(), 2);
}

#[test]
fn a_third_policy_replaces_a_second_that_never_served() {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1)]);
    fleet.update(&endpoints([1]));
    fleet.drive();
    fleet.set(v4(2), Backend::HangsForEver);
    fleet.set(v4(3), Backend::HangsForEver);
    fleet.update_with(&endpoints([2]), &policy("pick_first"));
    fleet.update_with(&endpoints([2, 3]), &policy("pick_first"));
    assert_eq!(fleet.connecting().len(), 1, "an update of the second goes to the second");
    fleet.set(v4(3), Backend::Up);
    fleet.run_ms(300);
    assert_eq!(fleet.pick(), Picked::Address(v4(3)));
}

#[test]
fn timers_of_what_is_gone_never_fire() {
    let mut fleet = Fleet::new("pick_first");
    fleet.set(v4(1), Backend::HangsForEver);
    fleet.update(&endpoints([1, 2]));
    assert_eq!(fleet.engine.poll_timeout(), Some(250 * MILLISECOND_NS), "happy eyeballs");
    fleet.update_with(&endpoints([2]), &policy("round_robin"));
    assert_eq!(fleet.engine.poll_timeout(), None, "the policy is gone");
    fleet.run_ms(1);
    assert_eq!(fleet.engine.poll_timeout(), Some(SECOND_NS), "backoff");
    fleet.update(&[]);
    assert_eq!(fleet.engine.poll_timeout(), None, "the subchannel is gone");
    fleet.take_log();
    fleet.engine.handle_timeout(fleet.now + 1_000 * SECOND_NS);
    fleet.drain();
    assert!(fleet.take_log().is_empty());
}

#[test]
fn the_timeout_is_exact() {
    let mut engine = engine("round_robin");
    let start: Nanos = 123;
    engine.resolver_update(start, &endpoints([1]), None);
    let id = connects(&outputs(&mut engine))[0];
    assert_eq!(engine.poll_timeout(), None, "the transport has its own time limit");
    engine.connect_failed(start + 5, id, Status::unavailable("refused"));
    outputs(&mut engine);
    let due = start + SECOND_NS;
    assert_eq!(engine.poll_timeout(), Some(due));
    engine.handle_timeout(due - 1);
    assert!(engine.poll_output().is_none());
    assert_eq!(engine.poll_timeout(), Some(due));
    engine.handle_timeout(due);
    assert_eq!(connects(&outputs(&mut engine)), [id]);
    assert_eq!(engine.poll_timeout(), None);
    engine.connect_failed(due + 50 * SECOND_NS, id, Status::unavailable("timed out"));
    assert_eq!(engine.poll_timeout(), Some(due + 50 * SECOND_NS + 1), "never over at once");
}

#[test]
fn a_late_timeout_wakes_all_that_is_due() {
    let mut fleet = Fleet::new("round_robin");
    fleet.update(&endpoints(1..=3));
    fleet.drive();
    fleet.take_log();
    let before = fleet.publishes;
    fleet.now += 3_600 * SECOND_NS;
    fleet.engine.handle_timeout(fleet.now);
    fleet.drain();
    assert_eq!(fleet.take_log().len(), 3, "one attempt each, not one for each hour");
    assert_eq!(fleet.publishes, before);
}

#[test]
fn a_backoff_beyond_all_time_does_not_overflow() {
    for initial_ns in [0, u64::MAX] {
        let backoff = Backoff { initial_ns, multiplier: 1e300, jitter: 1.0, max_ns: u64::MAX };
        let default_policy = policy("pick_first");
        let mut engine = Engine::new(EngineOptions { seed: 1, backoff, default_policy });
        let mut now = u64::MAX / 2;
        engine.resolver_update(now, &endpoints([1]), None);
        let id = connects(&outputs(&mut engine))[0];
        for _ in 0..3 {
            engine.connect_failed(now, id, Status::unavailable("refused"));
            now = engine.poll_timeout().unwrap();
            engine.handle_timeout(now);
            outputs(&mut engine);
        }
    }
}

#[test]
fn observers_hear_of_every_change_of_a_subchannel() {
    let mut engine = engine("pick_first");
    engine.resolver_update(0, &endpoints([1]), None);
    let id = connects(&outputs(&mut engine))[0];
    let mut states = |f: &dyn Fn(&mut Engine)| -> Vec<String> {
        f(&mut engine);
        let texts = texts(outputs(&mut engine));
        texts.into_iter().filter(|t| t.starts_with("10.0.0.1:80")).collect()
    };
    let refused = Status::unavailable("refused");
    let fails = states(&|e| e.connect_failed(1, id, refused.clone()));
    assert_eq!(fails, [format!("10.0.0.1:80 TRANSIENT_FAILURE {:?}", Some(&refused))]);
    let again = states(&|e| e.handle_timeout(SECOND_NS));
    assert_eq!(again, ["10.0.0.1:80 IDLE None", "10.0.0.1:80 CONNECTING None"]);
    assert_eq!(states(&|e| e.connected(SECOND_NS, id)), ["10.0.0.1:80 READY None"]);
    assert_eq!(states(&|e| e.disconnected(SECOND_NS, id)), ["10.0.0.1:80 IDLE None"]);
    let gone = states(&|e| e.resolver_update(SECOND_NS, &[], None));
    assert_eq!(gone, ["10.0.0.1:80 SHUTDOWN None"]);
}

#[test]
fn the_same_seed_and_inputs_give_the_same_outputs() {
    let run = |seed| {
        let mut fleet = Fleet::with(EngineOptions {
            seed,
            backoff: Backoff::default(),
            default_policy: policy(r#"[{"pick_first":{"shuffleAddressList":true}}]"#),
        });
        fleet.all_up((1..=5).map(v4));
        fleet.update(&endpoints(1..=10));
        fleet.run_ms(5_000);
        fleet.update_with(&endpoints(3..=20), &policy("round_robin"));
        fleet.run_ms(60_000);
        fleet.kill(&v4(4));
        fleet.run_ms(60_000);
        let picks: Vec<Picked> = (0..10).map(|_| fleet.pick()).collect();
        (fleet.take_log(), picks)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn an_engine_that_goes_idle_lets_go_of_everything_and_begins_anew() {
    let mut engine = engine("round_robin");
    engine.exit_idle(0);
    engine.resolver_update(0, &endpoints(1..=3), None);
    let ids = connects(&outputs(&mut engine));
    engine.connected(0, ids[0]);
    engine.connect_failed(0, ids[1], Status::unavailable("refused"));
    outputs(&mut engine);
    engine.enter_idle(SECOND_NS);
    let gone = outputs(&mut engine);
    let disconnected = gone.iter().filter(|o| matches!(o, Output::Disconnect { .. })).count();
    assert_eq!(disconnected, 3);
    assert_eq!(engine.poll_timeout(), None, "no backoff is left to wake it");
    assert_eq!(texts(gone).pop().unwrap(), "publish IDLE [\"queue\", \"queue\", \"queue\"]");
    engine.exit_idle(2 * SECOND_NS);
    let woken = texts(outputs(&mut engine));
    assert_eq!(woken, ["publish CONNECTING [\"queue\", \"queue\", \"queue\"]"]);
    engine.resolver_update(2 * SECOND_NS, &endpoints(1..=3), None);
    assert_eq!(connects(&outputs(&mut engine)).len(), 3);
}
