//! The checks of calls through an Envoy, in both outcomes.

use std::collections::BTreeMap;

use super::*;
use crate::client::{BackendFigures, Failure, Report};

const BREAKS: &str = "a flag";

fn report(calls: &[(&str, u64)]) -> Report {
    let ok: u64 = calls.iter().map(|(_, calls)| calls).sum();
    let figures = |(name, calls): &(&str, u64)| {
        let share = *calls as f64 / ok as f64;
        ((*name).to_owned(), BackendFigures { calls: *calls, share, ..Default::default() })
    };
    let by_backend: BTreeMap<_, _> = calls.iter().map(figures).collect();
    Report { calls: ok, ok, by_backend, ..Report::default() }
}

fn failing(start_unix_s: f64, code: &str) -> Report {
    let mut report = report(&[("a", 100)]);
    report.fail = 1;
    report.failures = vec![Failure {
        start_unix_s,
        end_unix_s: start_unix_s + 0.1,
        code: code.to_owned(),
        message: "connection termination".to_owned(),
    }];
    report
}

#[test]
fn turns_are_exact_when_no_two_backends_are_two_calls_apart() {
    let names = ["a", "b", "c"].map(str::to_owned);
    let turns = |calls: &[(&str, u64)], min| exact_turns("t", &report(calls), &names, min, BREAKS);
    assert!(turns(&[("a", 34), ("b", 33), ("c", 33)], 100).holds);
    assert!(!turns(&[("a", 35), ("b", 33), ("c", 32)], 100).holds);
    assert!(!turns(&[("a", 50), ("b", 50)], 100).holds, "one had none");
    assert!(!turns(&[("a", 25), ("b", 25), ("c", 25), ("d", 25)], 100).holds, "a stranger");
    assert!(!turns(&[("a", 34), ("b", 33), ("c", 33)], 101).holds, "too few");
    assert!(!exact_turns("t", &report(&[]), &[], 0, BREAKS).holds, "nothing to judge");
}

#[test]
fn a_kill_may_cost_what_was_in_flight_and_nothing_that_began_later() {
    let lost = |report: &Report, max| lost_in_flight("l", report, 50.0, max, BREAKS);
    assert!(lost(&report(&[("a", 100)]), 0).holds);
    assert!(lost(&failing(49.9, "UNAVAILABLE"), 1).holds);
    assert!(!lost(&failing(49.9, "UNAVAILABLE"), 0).holds, "too many");
    let late = lost(&failing(50.5, "UNAVAILABLE"), 1);
    assert!(!late.holds);
    assert!(late.seen.contains("+0.500 s from the kill"), "{}", late.seen);
    assert!(!lost(&failing(49.9, "INTERNAL"), 1).holds);
    assert!(!lost(&Report::default(), 1).holds, "nothing to judge");
}

#[test]
fn a_slow_backend_gets_less_than_the_others_and_something() {
    let less = |calls: &[(&str, u64)]| slow_gets_less("s", &report(calls), "slow", 0.2, BREAKS);
    assert!(less(&[("a", 45), ("b", 44), ("slow", 11)]).holds);
    assert!(!less(&[("a", 34), ("b", 33), ("slow", 33)]).holds);
    assert!(!less(&[("a", 50), ("b", 50)]).holds, "it is gone");
    assert!(!less(&[("a", 90), ("slow", 10)]).holds, "the other one is gone");
}

#[test]
fn a_deprecation_is_shown() {
    assert!(nothing_deprecated("d", None, BREAKS).holds);
    let found = nothing_deprecated("d", Some("Deprecated field: x"), BREAKS);
    assert!(!found.holds);
    assert_eq!(found.seen, "Deprecated field: x");
}
