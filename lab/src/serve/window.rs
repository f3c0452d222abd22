//! The last few seconds of a client that goes on: what a live check judges. The checks are those of
//! `lab run`; they get a report of the window instead of one of a phase.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    checks::{Check, even_shares, none_failed},
    client::{Answered, BackendFigures, Report},
};

/// Length of the window in ticks.
const TICKS: usize = 10;
/// Fewer calls say nothing of a share of 1 %.
const CALLS_MIN: u64 = 100;

/// The sums at the last ticks.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<Answered>);

impl Window {
    /// Adds the sums of one tick, and returns what came since the one before.
    pub(super) fn add(&mut self, sums: Answered) -> Answered {
        let tick = since(&sums, self.0.back());
        self.0.push_back(sums);
        if self.0.len() > TICKS + 1 {
            self.0.pop_front();
        }
        tick
    }

    /// Whether nothing was added yet.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Judges the window: even shares among `serving`, and no failure.
    pub(super) fn checks(&self, serving: &[String]) -> Vec<Check> {
        let Some(newest) = self.0.back() else { return Vec::new() };
        let report = report(&since(newest, self.0.front()));
        let dead = "kill or hang a backend: until the client knows, its turns fail or wait";
        let mut checks = vec![none_failed("live.none_failed", &report, 1, dead)];
        if !serving.is_empty() {
            let breaks = "the policy pick_first; for a moment each change of the backends";
            checks.push(even_shares("live.even_shares", &report, serving, CALLS_MIN, breaks));
        }
        checks
    }
}

fn since(now: &Answered, before: Option<&Answered>) -> Answered {
    let had = |name: &str| before.and_then(|b| b.by_backend.get(name)).copied().unwrap_or(0);
    let more = |(name, calls): (&String, &u64)| (name.clone(), calls.saturating_sub(had(name)));
    Answered {
        by_backend: now.by_backend.iter().map(more).filter(|(_, calls)| *calls > 0).collect(),
        fail: now.fail.saturating_sub(before.map_or(0, |before| before.fail)),
        ..now.clone()
    }
}

fn report(answered: &Answered) -> Report {
    let ok: u64 = answered.by_backend.values().sum();
    let figures = |(name, calls): (&String, &u64)| {
        let share = *calls as f64 / ok as f64;
        (name.clone(), BackendFigures { calls: *calls, share, ..BackendFigures::default() })
    };
    let by_backend: BTreeMap<_, _> = answered.by_backend.iter().map(figures).collect();
    let fail = answered.fail;
    Report { calls: ok + fail, ok, fail, by_backend, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(a: u64, b: u64, fail: u64) -> Answered {
        let by_backend = BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        Answered { by_backend, fail, ..Answered::default() }
    }

    fn holds(window: &Window, id: &str) -> bool {
        let serving = ["a".to_owned(), "b".to_owned()];
        window.checks(&serving).into_iter().find(|check| check.id == id).unwrap().holds
    }

    #[test]
    fn a_tick_is_what_came_since_the_one_before() {
        let mut window = Window::default();
        assert_eq!(window.add(sums(5, 7, 1)), sums(5, 7, 1));
        let tick = window.add(sums(6, 7, 3));
        assert_eq!((tick.by_backend.get("a"), tick.by_backend.get("b")), (Some(&1), None));
        assert_eq!(tick.fail, 2);
    }

    #[test]
    fn a_failure_and_an_uneven_second_are_forgotten_with_their_window() {
        let mut window = Window::default();
        window.add(sums(0, 0, 0));
        window.add(sums(100, 10, 3));
        assert!(!holds(&window, "live.none_failed") && !holds(&window, "live.even_shares"));
        for k in 1..=TICKS as u64 + 1 {
            window.add(sums(100 + 50 * k, 10 + 50 * k, 3));
        }
        assert!(holds(&window, "live.none_failed") && holds(&window, "live.even_shares"));
    }
}
