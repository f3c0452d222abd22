//! The parts that policies with children are made of, where no built-in policy shows them.

use std::{
    any::Any,
    sync::{Arc, Mutex},
};

use serde_json::Value;

use super::{children::Children, pick_first, router::Router};
use crate::{
    ConfigError, ConnectivityState, Ctx, Endpoint, EngineOptions, Input, LbPolicy, Nanos, Picker,
    PolicyConfig, PolicyFactory, PolicyRegistry, TimerId,
    picker::{QueuePicker, waiting_picker},
    testing::{Fleet, backoff_without_jitter, endpoint, endpoints, v4, v6},
};

type Notes = Arc<Mutex<Vec<String>>>;

/// A factory from a function; the settings are unused.
struct By<F>(&'static str, F);

impl<F: Fn() -> Box<dyn LbPolicy> + Send + Sync> PolicyFactory for By<F> {
    fn name(&self) -> &str {
        self.0
    }

    fn parse_config(
        &self,
        _json: &Value,
        _registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        Ok(Arc::new(()))
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        (self.1)()
    }
}

fn config(
    name: &'static str,
    build: impl Fn() -> Box<dyn LbPolicy> + Send + Sync + 'static,
) -> PolicyConfig {
    PolicyConfig::new(Arc::new(By(name, build)), Arc::new(()))
}

fn fleet_with(config: PolicyConfig) -> Fleet {
    let backoff = backoff_without_jitter();
    Fleet::with(EngineOptions { seed: 1, backoff, default_policy: config })
}

/// A child that sets a timer per update and notes what it is told.
struct Ticker {
    notes: Notes,
    name: String,
    timer: Option<TimerId>,
    ahead: Nanos,
}

impl LbPolicy for Ticker {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        let note = match input {
            Input::ResolverUpdate { endpoints, .. } => {
                self.name = endpoints[0].addresses()[0].to_string();
                self.timer = Some(ctx.set_timer(ctx.now() + self.ahead));
                "update"
            }
            Input::Timer(timer) => {
                assert_eq!(Some(timer), self.timer, "a timer of another child");
                self.timer = Some(ctx.set_timer(ctx.now() + self.ahead));
                "timer"
            }
            Input::ExitIdle => "exit idle",
            _ => "other",
        };
        self.notes.lock().unwrap().push(format!("{} {note}", self.name));
    }

    fn state(&self) -> ConnectivityState {
        ConnectivityState::Connecting
    }

    fn picker(&self) -> Arc<dyn Picker> {
        Arc::new(QueuePicker)
    }
}

/// [`Children`] and nothing else.
struct Bare(Children);

impl LbPolicy for Bare {
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
        match self.0.ready_pickers().into_iter().next() {
            Some(first) => first,
            None => waiting_picker(self.state(), || self.0.failure()),
        }
    }
}

fn tickers(ahead: Nanos) -> (Fleet, Notes) {
    let notes = Notes::default();
    let noted = notes.clone();
    let outer = config("bare", move || {
        let notes = noted.clone();
        let child = config("ticker", move || {
            let (notes, name) = (notes.clone(), String::new());
            Box::new(Ticker { notes, name, timer: None, ahead })
        });
        Box::new(Bare(Children::new(child)))
    });
    (fleet_with(outer), notes)
}

#[test]
fn a_timer_wakes_the_child_that_set_it_and_dies_with_it() {
    let (mut fleet, notes) = tickers(1_000_000);
    fleet.update(&endpoints(1..=3));
    fleet.run_ms(1);
    let mut got = std::mem::take(&mut *notes.lock().unwrap());
    got.sort();
    let each = |n: u16| [format!("{} timer", v4(n)), format!("{} update", v4(n))];
    assert_eq!(got, (1..=3).flat_map(each).collect::<Vec<_>>());
    fleet.update(&endpoints([]));
    assert_eq!(fleet.engine.poll_timeout(), None);
    fleet.run_ms(100);
    assert!(notes.lock().unwrap().is_empty(), "no timer outlives its policy");
}

/// One child behind a router, which must not remember what fired.
struct Routed(Router<()>, Ticker);

impl LbPolicy for Routed {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        let timer = matches!(input, Input::Timer(_));
        assert_eq!(self.0.owner(&input), timer.then_some(()));
        self.0.deliver((), &mut self.1, input, ctx);
        assert_eq!(self.0.owner(&input), None);
    }

    fn state(&self) -> ConnectivityState {
        self.1.state()
    }

    fn picker(&self) -> Arc<dyn Picker> {
        self.1.picker()
    }
}

#[test]
fn a_timer_that_fired_has_no_owner_any_more() {
    let notes = Notes::default();
    let noted = notes.clone();
    let mut fleet = fleet_with(config("routed", move || {
        let (notes, name) = (noted.clone(), String::new());
        let ticker = Ticker { notes, name, timer: None, ahead: 1_000_000 };
        Box::new(Routed(Router::default(), ticker))
    }));
    fleet.update(&endpoints([1]));
    fleet.run_ms(5);
    assert_eq!(notes.lock().unwrap().len(), 6, "the update and five timers");
}

#[test]
fn a_timer_for_the_present_does_not_hold_the_engine() {
    let (mut fleet, notes) = tickers(0);
    fleet.update(&endpoints([1]));
    assert_eq!(fleet.engine.poll_timeout(), Some(fleet.now + 1));
    fleet.engine.handle_timeout(fleet.now);
    assert_eq!(notes.lock().unwrap().len(), 1, "only the update");
    fleet.engine.handle_timeout(fleet.now + 1);
    assert_eq!(notes.lock().unwrap().len(), 2);
}

#[test]
fn a_removed_childs_subchannels_end_and_its_events_reach_nobody() {
    let pick_first = || {
        let settings = Arc::new(pick_first::Settings::default());
        PolicyConfig::new(Arc::new(pick_first::Factory), settings)
    };
    let mut fleet = fleet_with(config("bare", move || Box::new(Bare(Children::new(pick_first())))));
    fleet.all_up([v4(1), v4(2), v6(1)]);
    fleet.update(&[endpoint(&[v4(1), v6(1)]), Endpoint::new(v4(2))]);
    let gone = fleet.connecting()[0].0;
    fleet.update(&endpoints([2]));
    assert_eq!(fleet.connecting().len(), 1);
    fleet.engine.connected(fleet.now, gone);
    assert!(fleet.engine.poll_output().is_none());
    fleet.drive();
    assert_eq!(fleet.connected.values().collect::<Vec<_>>(), [&v4(2)]);
}

/// A child that goes through states, one for each timer.
struct Scripted(Vec<ConnectivityState>);

impl LbPolicy for Scripted {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        match input {
            Input::Timer(_) => drop(self.0.remove(0)),
            Input::ResolverUpdate { .. } => {}
            _ => return,
        }
        if self.0.len() > 1 {
            ctx.set_timer(ctx.now() + 1_000_000);
        }
    }

    fn state(&self) -> ConnectivityState {
        self.0[0]
    }

    fn picker(&self) -> Arc<dyn Picker> {
        Arc::new(QueuePicker)
    }
}

#[test]
fn a_change_of_a_childs_state_is_published_when_it_changes_the_whole() {
    use ConnectivityState::{Connecting, Idle, Ready, TransientFailure};
    let script = [TransientFailure, Connecting, Idle, Ready, TransientFailure, Idle];
    let outer = config("bare", move || {
        let child = config("scripted", move || Box::new(Scripted(script.to_vec())));
        Box::new(Bare(Children::new(child)))
    });
    let mut fleet = fleet_with(outer);
    fleet.update(&endpoints([1]));
    for want in script {
        assert_eq!(fleet.state, want);
        fleet.run_ms(1);
    }
}

/// A policy that never says that it has something new.
struct Mute;

impl LbPolicy for Mute {
    fn handle(&mut self, _input: Input<'_>, _ctx: &mut Ctx<'_>) {}

    fn state(&self) -> ConnectivityState {
        ConnectivityState::Idle
    }

    fn picker(&self) -> Arc<dyn Picker> {
        Arc::new(QueuePicker)
    }
}

#[test]
fn a_policy_that_takes_over_is_published_even_if_it_says_nothing() {
    let mut fleet = Fleet::new("pick_first");
    fleet.update(&[]);
    assert_eq!(fleet.state, ConnectivityState::TransientFailure);
    fleet.update_with(&endpoints([1]), &config("mute", || Box::new(Mute)));
    assert_eq!(fleet.state, ConnectivityState::Idle);
}
