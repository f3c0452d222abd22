//! Watches and health checks through a whole engine: whose an event is, what ends a watch, and what
//! a policy with children makes of an unhealthy endpoint.

use std::{
    any::Any,
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::{
    Code, ConfigError, ConnectivityState, Ctx, EngineOptions, Input, LbPolicy, Picker,
    PolicyConfig, PolicyFactory, PolicyRegistry, ServingStatus, Status, SubchannelId, Watch,
    WatchEvent, WatchId,
    picker::QueuePicker,
    policies::{pick_first, router::Router},
    testing::{Backend, Fleet, Picked, Says, backoff_without_jitter, endpoint, endpoints, v4},
};

const NOT_SERVING: Says = Says::Health(ServingStatus::NotServing);
const SERVING: Says = Says::Health(ServingStatus::Serving);

/// A fleet of healthy backends under `round_robin`, of which the health of "greeter" is checked.
fn checked(numbers: std::ops::RangeInclusive<u16>) -> Fleet {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up(numbers.clone().map(v4));
    fleet.check(Some("greeter"));
    fleet.update(&endpoints(numbers));
    fleet.drive();
    fleet
}

fn greeter() -> Watch {
    Watch::Health { service: "greeter".into() }
}

#[test]
fn a_connection_is_used_when_its_first_answer_is_there() {
    let mut fleet = Fleet::new("round_robin");
    fleet.set(v4(1), Backend::Up);
    fleet.say(&v4(1), Says::Nothing);
    fleet.check(Some("greeter"));
    fleet.update(&endpoints([1]));
    fleet.drive();
    assert_eq!((fleet.connected.len(), fleet.watches()), (1, vec![(v4(1), greeter())]));
    assert_eq!((fleet.state, fleet.pick()), (ConnectivityState::Connecting, Picked::Queue));
    fleet.say(&v4(1), SERVING);
    assert_eq!(fleet.pick(), Picked::Address(v4(1)));
}

#[test]
fn an_unhealthy_endpoint_is_passed_over_and_stays_connected() {
    let mut fleet = checked(1..=3);
    assert_eq!(fleet.shares(300).len(), 3);
    fleet.take_log();
    fleet.say(&v4(2), NOT_SERVING);
    let shares = fleet.shares(300);
    assert_eq!((shares[&v4(1)], shares[&v4(3)], shares.len()), (150, 150, 2));
    fleet.run_ms(600_000);
    assert_eq!((fleet.connected.len(), fleet.streams), (3, 3), "nothing is tried meanwhile");
    fleet.say(&v4(2), SERVING);
    assert_eq!(fleet.shares(300)[&v4(2)], 100);
    assert!(fleet.take_log().is_empty(), "no connection was made or closed");
}

#[test]
fn when_all_are_unhealthy_calls_fail_and_hear_why() {
    let mut fleet = checked(1..=2);
    fleet.say(&v4(1), NOT_SERVING);
    fleet.say(&v4(2), Says::Health(ServingStatus::ServiceUnknown));
    let want = "Unavailable: none of 2 endpoints can be reached (10.0.0.1:80, 10.0.0.2:80); last \
                error: 10.0.0.2:80: connected, but the health check of \"greeter\" says \
                SERVICE_UNKNOWN";
    assert_eq!(fleet.failure(), want);
    fleet.say(&v4(1), SERVING);
    assert_eq!(fleet.pick(), Picked::Address(v4(1)));
}

#[test]
fn a_server_without_health_serves() {
    let mut fleet = Fleet::new("round_robin");
    fleet.set(v4(1), Backend::Up);
    fleet.say(&v4(1), Says::Ends(Code::Unimplemented));
    fleet.check(Some(""));
    fleet.update(&endpoints([1]));
    fleet.run_ms(600_000);
    assert_eq!((fleet.pick(), fleet.streams), (Picked::Address(v4(1)), 1));
    fleet.disconnect(&v4(1));
    fleet.drive();
    assert_eq!((fleet.pick(), fleet.streams), (Picked::Address(v4(1)), 2), "and is asked again");
}

#[test]
fn broken_streams_back_off_while_the_connection_stays() {
    let mut fleet = checked(1..=1);
    fleet.say(&v4(1), Says::Ends(Code::Internal));
    assert_eq!(
        fleet.state,
        ConnectivityState::Connecting,
        "the first end after an answer is spared"
    );
    fleet.run_ms(10);
    assert!(fleet.failure().contains("the health check of \"greeter\" failed: Internal: as set"));
    assert_eq!(fleet.streams, 2);
    // 1 s, 1.6 s, 2.56 s … 120 s apart: 11 more in the first 5 minutes.
    fleet.run_ms(300_000);
    assert_eq!(fleet.streams, 2 + 11);
    fleet.say(&v4(1), SERVING);
    fleet.run_ms(120_000);
    assert_eq!((fleet.pick(), fleet.streams), (Picked::Address(v4(1)), 14));
    assert_eq!(fleet.connected.len(), 1);
    assert_eq!(fleet.attempts, 1, "one connection did for all of it");
}

#[test]
fn a_lost_connection_takes_its_check_along() {
    let mut fleet = checked(1..=2);
    fleet.say(&v4(2), Says::Ends(Code::Internal));
    fleet.run_ms(10);
    fleet.kill(&v4(2));
    assert_eq!(fleet.watches(), [(v4(1), greeter())]);
    fleet.set(v4(2), Backend::Up);
    fleet.say(&v4(2), SERVING);
    fleet.run_ms(2_000);
    assert_eq!((fleet.watches().len(), fleet.shares(2).len()), (2, 2));
    fleet.update(&endpoints([1]));
    assert_eq!(fleet.watches(), [(v4(1), greeter())], "and so does a removed endpoint");
    fleet.engine.enter_idle(fleet.now);
    fleet.drain();
    assert!(fleet.watches().is_empty());
    assert_eq!(fleet.engine.poll_timeout(), None);
}

#[test]
fn a_new_config_changes_checks_under_way_without_a_gap() {
    let mut fleet = checked(1..=2);
    fleet.say(&v4(2), NOT_SERVING);
    fleet.say(&v4(1), Says::Nothing);
    fleet.check(Some("other"));
    let other = || Watch::Health { service: "other".into() };
    assert_eq!(fleet.watches(), [(v4(1), other()), (v4(2), other())]);
    fleet.run_ms(1_000);
    assert_eq!(fleet.shares(2), [(v4(1), 2)].into(), "as before, until there is an answer");
    fleet.check(None);
    assert_eq!((fleet.watches().len(), fleet.shares(2).len()), (0, 2), "nobody is unhealthy");
    fleet.check(None);
    fleet.check(Some(""));
    assert_eq!(fleet.shares(2).len(), 2, "and everybody serves on until answers come");
    fleet.run_ms(10);
    assert_eq!(fleet.shares(2), [(v4(1), 2)].into());
    assert_eq!(fleet.connected.len(), 2);
}

#[test]
fn pick_first_as_the_channels_policy_checks_nothing() {
    let mut fleet = Fleet::new("pick_first");
    fleet.set(v4(1), Backend::Up);
    fleet.say(&v4(1), NOT_SERVING);
    fleet.check(Some("greeter"));
    fleet.update(&endpoints([1]));
    fleet.drive();
    assert_eq!((fleet.pick(), fleet.streams), (Picked::Address(v4(1)), 0));
}

#[test]
fn an_unhealthy_address_is_no_reason_to_try_the_endpoints_next() {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1), v4(2)]);
    fleet.say(&v4(1), NOT_SERVING);
    fleet.check(Some("greeter"));
    fleet.update(&[endpoint(&[v4(1), v4(2)])]);
    fleet.run_ms(60_000);
    assert_eq!(fleet.connected.values().collect::<Vec<_>>(), [&v4(1)]);
    assert_eq!(fleet.state, ConnectivityState::TransientFailure);
}

#[test]
fn an_unhealthy_connection_outlives_the_resolvers_list() {
    let mut fleet = checked(1..=2);
    fleet.say(&v4(1), NOT_SERVING);
    fleet.resolver_error("SERVFAIL", true);
    fleet.say(&v4(2), NOT_SERVING);
    assert_eq!((fleet.state, fleet.connected.len()), (ConnectivityState::TransientFailure, 2));
    fleet.say(&v4(1), SERVING);
    assert_eq!(fleet.pick(), Picked::Address(v4(1)));
    fleet.kill(&v4(2));
    fleet.drive();
    assert_eq!((fleet.connected.len(), fleet.connecting().len()), (1, 0), "none is made anew");
}

#[test]
fn observers_hear_of_health_apart_from_the_connection() {
    let mut fleet = checked(1..=1);
    fleet.take_health();
    fleet.say(&v4(1), NOT_SERVING);
    fleet.say(&v4(1), NOT_SERVING);
    fleet.say(&v4(1), SERVING);
    let heard = fleet.take_health();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].starts_with("10.0.0.1:80 TRANSIENT_FAILURE Some("), "{heard:?}");
    assert_eq!(heard[1], "10.0.0.1:80 READY None");
}

type Notes = Arc<Mutex<Vec<String>>>;

/// Watches the first subchannel that its child, a `pick_first`, connects; notes what it is told.
struct Watcher {
    child: Box<dyn LbPolicy>,
    router: Router<()>,
    watch: Option<WatchId>,
    /// It takes its watch back when the server says NOT_SERVING, or when the connection ends.
    takes_back: bool,
    notes: Notes,
}

impl Watcher {
    fn note(&self, text: String) {
        self.notes.lock().unwrap().push(text);
    }

    fn state_of(&mut self, id: SubchannelId, state: ConnectivityState, ctx: &mut Ctx<'_>) {
        let watch = Watch::Health { service: "own".into() };
        if self.watch.is_none() && state != ConnectivityState::TransientFailure {
            self.watch = Some(ctx.watch(id, watch));
        } else if state == ConnectivityState::Idle && self.takes_back {
            ctx.unwatch(self.watch.take().expect("it has one"));
        }
    }
}

impl LbPolicy for Watcher {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        match input {
            Input::WatchEvent { id, event } => {
                assert_eq!(Some(id), self.watch, "a watch of its own");
                assert_eq!(self.router.owner(&input), None, "and not of the child");
                self.note(format!("{event:?}"));
                if let WatchEvent::Ended(_) = event {
                    self.watch = None;
                } else if *event == WatchEvent::Health(ServingStatus::NotServing) && self.takes_back
                {
                    ctx.unwatch(id);
                    ctx.unwatch(id);
                }
                return;
            }
            Input::SubchannelState { id, state, .. } => {
                self.note(state.to_string());
                self.state_of(id, state, ctx);
            }
            _ => {}
        }
        if self.router.deliver((), &mut *self.child, input, ctx) {
            ctx.publish();
        }
    }

    fn state(&self) -> ConnectivityState {
        self.child.state()
    }

    fn picker(&self) -> Arc<dyn Picker> {
        Arc::new(QueuePicker)
    }
}

struct Watchers {
    takes_back: bool,
    notes: Notes,
}

impl PolicyFactory for Watchers {
    fn name(&self) -> &str {
        "watcher"
    }

    fn parse_config(
        &self,
        _json: &Value,
        _registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        Ok(Arc::new(()))
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        Box::new(Watcher {
            child: pick_first::Factory.build(),
            router: Router::default(),
            watch: None,
            takes_back: self.takes_back,
            notes: self.notes.clone(),
        })
    }
}

/// One connected backend under a `Watcher`, and what it noted since CONNECTING.
fn watched(takes_back: bool) -> (Fleet, Notes) {
    let notes = Notes::default();
    let factory = Arc::new(Watchers { takes_back, notes: notes.clone() });
    let default_policy = PolicyConfig::new(factory, Arc::new(()));
    let backoff = backoff_without_jitter();
    let mut fleet = Fleet::with(EngineOptions { seed: 1, backoff, default_policy });
    fleet.set(v4(1), Backend::Up);
    fleet.update(&endpoints([1]));
    fleet.drive();
    (fleet, notes)
}

fn take(notes: &Notes) -> Vec<String> {
    std::mem::take(&mut *notes.lock().unwrap())
}

#[test]
fn a_watch_ends_once_whatever_ends_it() {
    let not_ready = Status::unavailable("expected a READY subchannel to watch");
    let early = format!("{:?}", WatchEvent::Ended(not_ready));
    let serving = format!("{:?}", WatchEvent::Health(ServingStatus::Serving));
    let (mut fleet, notes) = watched(false);
    let want = ["CONNECTING".into(), early.clone(), "READY".into(), serving];
    assert_eq!(take(&notes), want, "one that is begun too early ends at once");

    // By the server's word.
    fleet.say(&v4(1), Says::Ends(Code::Ok));
    let ended = WatchEvent::Ended(Status::new(Code::Ok, "as set"));
    assert_eq!(take(&notes), [format!("{ended:?}")]);
    assert!(fleet.watches().is_empty(), "and is not repeated by itself");

    // By the connection's end, which the state tells first.
    fleet.say(&v4(1), NOT_SERVING);
    let (mut fleet, notes) = watched(false);
    take(&notes);
    fleet.disconnect(&v4(1));
    let lost = Status::unavailable("the connection ended or takes no new streams");
    assert_eq!(take(&notes), ["IDLE".into(), format!("{:?}", WatchEvent::Ended(lost))]);

    // By its subchannel's end, of which the policy knows.
    let (mut fleet, notes) = watched(false);
    take(&notes);
    fleet.update(&[]);
    assert!(take(&notes).is_empty());
    assert!(fleet.watches().is_empty());
}

#[test]
fn a_watch_that_is_taken_back_says_no_more() {
    let (mut fleet, notes) = watched(true);
    take(&notes);
    fleet.say(&v4(1), NOT_SERVING);
    assert_eq!(take(&notes), [format!("{:?}", WatchEvent::Health(ServingStatus::NotServing))]);
    assert!(fleet.watches().is_empty());
    fleet.say(&v4(1), SERVING);
    assert!(take(&notes).is_empty());

    let (mut fleet, notes) = watched(true);
    take(&notes);
    fleet.disconnect(&v4(1));
    assert_eq!(take(&notes), ["IDLE"], "also by the very news that it ended");
}
