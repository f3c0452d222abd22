//! The checks of calls through an Envoy, in both outcomes.

use std::collections::BTreeMap;

use super::*;
use crate::client::{BackendFigures, Failure, Latency, Report};

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
fn each_worker_adds_one_call_of_difference() {
    let names = ["a", "b", "c"].map(str::to_owned);
    let turns = |calls: &[(&str, u64)]| turns_by_worker("t", &report(calls), &names, 4, 90, BREAKS);
    assert!(turns(&[("a", 34), ("b", 30), ("c", 31)]).holds);
    assert!(!turns(&[("a", 35), ("b", 30), ("c", 31)]).holds);
}

#[test]
fn reports_of_clients_that_run_side_by_side_add_up() {
    let mut all = Report::default();
    all.add(&report(&[("a", 2), ("b", 1)]));
    all.add(&report(&[("b", 1)]));
    let shares = |name: &str| (all.by_backend[name].calls, all.by_backend[name].share);
    assert_eq!((all.ok, shares("a"), shares("b")), (4, (2, 0.5), (2, 0.5)));
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

#[test]
fn an_update_that_was_rejected_or_never_came_is_found() {
    let rejected = |accepted, rejected| none_rejected("r", accepted, rejected, BREAKS).holds;
    assert!(rejected(4, 0));
    assert!(!rejected(4, 1));
    assert!(!rejected(0, 0), "nothing to judge");
}

#[test]
fn what_was_rebuilt_is_named() {
    let rebuilt = |counters: &[_]| nothing_rebuilt("n", counters, BREAKS);
    assert!(rebuilt(&[("listener_added", 1, 1), ("listener_modified", 0, 0)]).holds);
    let found = rebuilt(&[("listener_added", 1, 1), ("listener_modified", 0, 2)]);
    assert!(!found.holds);
    assert_eq!(found.seen, "listener_modified 0 -> 2");
    assert!(!rebuilt(&[("listener_modified", 0, 0)]).holds, "nothing was ever built");
    assert!(!rebuilt(&[]).holds);
}

#[test]
fn aborted_calls_have_their_share_and_their_code() {
    let aborted = |fail, code: &str| {
        let mut report = report(&[("a", 1_000 - fail)]);
        (report.calls, report.fail) = (1_000, fail);
        report.by_code = BTreeMap::from([(code.to_owned(), fail)]);
        report
    };
    let check = |report: &Report, min| {
        aborted_share("a", report, (0.5, 0.02), "ABORTED", min, BREAKS).holds
    };
    assert!(check(&aborted(515, "ABORTED"), 1_000));
    assert!(!check(&aborted(525, "ABORTED"), 1_000), "too many");
    assert!(!check(&aborted(475, "ABORTED"), 1_000), "too few");
    assert!(!check(&aborted(500, "UNAVAILABLE"), 1_001), "not enough calls");
    let mut mixed = aborted(500, "ABORTED");
    mixed.by_code = BTreeMap::from([("ABORTED".to_owned(), 499), ("INTERNAL".to_owned(), 1)]);
    assert!(!check(&mixed, 1_000), "another fault");
    assert!(!check(&Report::default(), 0), "nothing to judge");
}

#[test]
fn a_delay_is_one_that_was_not_there_without_it() {
    let took = |p50| Report {
        ok: 10,
        latency_ms: Latency { p50: Some(p50), ..Latency::default() },
        ..Report::default()
    };
    let check = |before: &Report, with: &Report| delayed("d", before, with, 100.0, BREAKS).holds;
    assert!(check(&took(2.0), &took(102.0)));
    assert!(!check(&took(2.0), &took(99.0)));
    assert!(!check(&took(150.0), &took(250.0)), "slow by itself");
    assert!(!check(&took(2.0), &Report::default()), "no answer");
    assert!(!check(&took(2.0), &Report { fail: 1, ..took(102.0) }), "one failed");
}
