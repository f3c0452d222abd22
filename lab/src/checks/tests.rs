//! Every check, on made-up reports, in both outcomes.

use std::collections::BTreeMap;

use super::*;
use crate::{
    client::{BackendFigures, Failure, Report, Slot},
    faults::Deleted,
};

const ID: &str = "test";
const BREAKS: &str = "a flag";
const DEAD: &str = "127.64.0.2:8000";

fn report(calls: &[(&str, u64)]) -> Report {
    let ok: u64 = calls.iter().map(|(_, calls)| calls).sum();
    let figures = |(name, calls): &(&str, u64)| {
        let share = *calls as f64 / ok as f64;
        let figures =
            BackendFigures { calls: *calls, share, last_unix_s: 110.0, ..Default::default() };
        ((*name).to_owned(), figures)
    };
    Report {
        started_unix_s: 100.0,
        wall_s: 10.0,
        calls: ok,
        ok,
        by_backend: calls.iter().map(figures).collect(),
        ..Report::default()
    }
}

fn with_failures(mut report: Report, failures: &[(f64, f64, &str, &str)]) -> Report {
    for (start_unix_s, end_unix_s, code, message) in failures {
        report.failures.push(Failure {
            start_unix_s: *start_unix_s,
            end_unix_s: *end_unix_s,
            code: (*code).to_owned(),
            message: (*message).to_owned(),
        });
        report.fail += 1;
        report.calls += 1;
    }
    report
}

fn answered_last(mut report: Report, name: &str, last_unix_s: f64) -> Report {
    report.by_backend.get_mut(name).expect("a backend of the report").last_unix_s = last_unix_s;
    report
}

fn slot(unix_s: f64, calls: &[(&str, u64)]) -> Slot {
    let by_backend = calls.iter().map(|(name, calls)| ((*name).to_owned(), *calls)).collect();
    Slot { unix_s, by_backend, fail: 0 }
}

fn deleted(name: &str, gone_unix_s: f64, clean: bool) -> (String, Deleted) {
    (name.to_owned(), Deleted { gone_unix_s, clean })
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn one_gets_all_needs_one_backend_enough_calls_and_no_failure() {
    let judge = |report: &Report| one_gets_all(ID, report, 3, 300, BREAKS).holds;
    assert!(judge(&report(&[("a", 300)])));
    assert!(!judge(&report(&[("a", 299), ("b", 1)])));
    assert!(!judge(&report(&[("a", 299)])));
    assert!(!judge(&report(&[])));
    let failed = with_failures(report(&[("a", 300)]), &[(1.0, 1.0, "UNAVAILABLE", "")]);
    assert!(!judge(&failed));
}

#[test]
fn even_shares_allows_one_percent_of_the_share_and_no_stranger() {
    let backends = names(&["a", "b", "c"]);
    let judge =
        |calls: &[(&str, u64)]| even_shares(ID, &report(calls), &backends, 3000, BREAKS).holds;
    assert!(judge(&[("a", 1000), ("b", 1000), ("c", 1000)]));
    assert!(judge(&[("a", 1009), ("b", 991), ("c", 1000)]));
    assert!(!judge(&[("a", 1011), ("b", 989), ("c", 1000)]));
    assert!(!judge(&[("a", 1500), ("b", 1500)]));
    assert!(!judge(&[("a", 1000), ("b", 1000), ("c", 1000), ("d", 1)]));
    assert!(!judge(&[("a", 900), ("b", 900), ("c", 900)]));
}

#[test]
fn none_failed_counts_failures_shed_calls_and_too_few_calls() {
    let judge = |report: &Report| none_failed(ID, report, 100, BREAKS);
    assert!(judge(&report(&[("a", 100)])).holds);
    assert!(!judge(&report(&[("a", 99)])).holds);
    assert!(!judge(&Report { shed: 1, ..report(&[("a", 100)]) }).holds);
    let failed = with_failures(report(&[("a", 100)]), &[(1.0, 1.0, "UNAVAILABLE", "reset")]);
    let check = judge(&failed);
    assert!(!check.holds);
    assert!(check.seen.contains("UNAVAILABLE: reset"), "{}", check.seen);
}

#[test]
fn only_left_serves_fails_when_a_deleted_pod_answers_too_late_or_nothing_was_called() {
    let judge = |last_of_b: f64, slots: Vec<Slot>| {
        let report = answered_last(report(&[("a", 100), ("b", 10)]), "b", last_of_b);
        let report = Report { slots, ..report };
        only_left_serves(ID, &report, "a", &names(&["b"]), 104.0, 108.0, BREAKS).holds
    };
    assert!(judge(104.9, vec![slot(103.0, &[("b", 9)]), slot(105.0, &[("a", 9)])]));
    assert!(!judge(105.1, vec![slot(105.0, &[("a", 9), ("b", 1)])]), "an answer too late");
    assert!(!judge(104.9, vec![slot(103.0, &[("a", 9)])]), "nothing was called afterwards");
}

#[test]
fn all_served_within_needs_every_backend_in_time() {
    let judge = |answers: &[Option<f64>]| {
        let answers: Vec<_> = answers.iter().map(|at| ("a".to_owned(), *at)).collect();
        all_served_within(ID, &answers, 100.0, 6.0, BREAKS).holds
    };
    assert!(judge(&[Some(50.0), Some(105.9)]));
    assert!(!judge(&[Some(50.0), Some(106.1)]));
    assert!(!judge(&[Some(105.0), None]));
    assert!(!judge(&[]));
}

#[test]
fn back_within_counts_to_the_end_of_the_slot_of_the_first_answer() {
    let judge = |slots: Vec<Slot>| {
        let report = Report { slots, ..report(&[("a", 1)]) };
        back_within(ID, &report, "a", 100.0, 0.05, 2.2, BREAKS).holds
    };
    assert!(judge(vec![slot(99.0, &[("a", 5)]), slot(102.1, &[("a", 1)])]));
    assert!(!judge(vec![slot(99.0, &[("a", 5)]), slot(102.2, &[("a", 1)])]));
    assert!(!judge(vec![slot(99.0, &[("a", 5)]), slot(101.0, &[("b", 5)])]));
}

#[test]
fn replaced_needs_every_new_pod_at_the_end_and_no_late_old_one() {
    let old = [deleted("a", 104.0, true)];
    let judge =
        |report: &Report, new: &[&str]| replaced(ID, report, &old, &names(new), BREAKS).holds;
    let good = answered_last(report(&[("a", 10), ("d", 10)]), "a", 103.9);
    assert!(judge(&good, &["d"]));
    assert!(!judge(&good, &["d", "e"]), "e never served");
    assert!(!judge(&answered_last(good.clone(), "d", 108.0), &["d"]), "d stopped");
    assert!(!judge(&answered_last(good, "a", 105.0), &["d"]), "a answered too late");
}

#[test]
fn each_served_needs_calls_in_every_life_and_not_before_or_after_it() {
    let judge = |slots: &[Slot]| {
        let report = Report { slots: slots.to_vec(), ..report(&[("a", 1)]) };
        let life = |name: &str, from: f64, until: f64| Life { name: name.to_owned(), from, until };
        // The same address twice, as a StatefulSet's pod.
        let lives = [life("a", 100.0, 104.0), life("b", 102.0, 110.0), life("a", 106.0, 110.0)];
        each_served(ID, &report, 0.1, &lives, BREAKS)
    };
    let (early, b, late) =
        (slot(101.0, &[("a", 2)]), slot(105.0, &[("b", 3)]), slot(107.0, &[("a", 4)]));
    let all = judge(&[early.clone(), b.clone(), late.clone()]);
    assert!(all.holds);
    assert_eq!(all.seen, "3 did, 2 calls or more each");
    assert!(!judge(&[early.clone(), b.clone()]).holds, "the second a never served");
    assert!(!judge(&[early, late, slot(101.0, &[("b", 3)])]).holds, "b before it was there");
    let straddles = slot(103.95, &[("a", 4)]);
    let seen = judge(&[straddles, b, slot(107.0, &[("a", 4)])]).seen;
    assert_eq!(seen, "2 did; not a");
    assert!(!each_served(ID, &report(&[("a", 1)]), 0.1, &[], BREAKS).holds);
}

#[test]
fn drained_cleanly_needs_exit_0_of_each() {
    let judge = |deleted: &[(String, Deleted)]| drained_cleanly(ID, deleted, BREAKS).holds;
    assert!(judge(&[deleted("a", 1.0, true), deleted("b", 1.0, true)]));
    assert!(!judge(&[deleted("a", 1.0, true), deleted("b", 1.0, false)]));
    assert!(!judge(&[]));
}

#[test]
fn aged_needs_enough_renewals_of_each_backend() {
    let judge = |counts: &[usize]| {
        let renewals: Vec<_> = counts.iter().map(|count| ("a".to_owned(), *count)).collect();
        aged(ID, &renewals, 2, BREAKS).holds
    };
    assert!(judge(&[2, 3, 2]));
    assert!(!judge(&[2, 1, 2]));
    assert!(!judge(&[]));
}

fn dead(eof_unix_s: Option<f64>) -> Dead {
    Dead { address: DEAD.to_owned(), eof_unix_s }
}

#[test]
fn only_unavailable_from_wants_the_code_and_the_address_in_every_failure() {
    let message = format!("{DEAD}: connection reset");
    let judge = |code: &str, message: &str| {
        let report = with_failures(
            report(&[("a", 10)]),
            &[(1.0, 1.0, "UNAVAILABLE", &format!("{DEAD}: EOF")), (1.0, 1.0, code, message)],
        );
        only_unavailable_from(ID, &report, &dead(Some(1.0)), BREAKS).holds
    };
    assert!(judge("UNAVAILABLE", &message));
    assert!(!judge("INTERNAL", &message));
    assert!(!judge("UNAVAILABLE", "127.64.0.3:8000: connection reset"));
    let none = report(&[("a", 10)]);
    assert!(only_unavailable_from(ID, &none, &dead(None), BREAKS).holds);
    let cut = Report { failures_omitted: 1, ..none };
    assert!(!only_unavailable_from(ID, &cut, &dead(None), BREAKS).holds, "not all were seen");
}

#[test]
fn failures_within_open_streams_compares_with_the_clients_counter() {
    let judge = |open: Option<u64>, shed| {
        let failed = [(1.0, 1.0, "UNAVAILABLE", DEAD), (1.0, 1.0, "UNAVAILABLE", DEAD)];
        let mut report = with_failures(report(&[("a", 10)]), &failed);
        report.shed = shed;
        report.streams_open_at_eof = open.map(|open| (DEAD.to_owned(), open)).into_iter().collect();
        failures_within_open_streams(ID, &report, &dead(Some(1.0)), BREAKS).holds
    };
    assert!(judge(Some(2), 0));
    assert!(judge(Some(4), 0));
    assert!(!judge(Some(1), 0));
    assert!(!judge(Some(2), 1), "a shed call is not served either");
    assert!(!judge(None, 0), "the EOF was not seen");
}

#[test]
fn none_after_eof_fails_for_a_later_failure_and_without_an_eof() {
    let judge = |end: f64, eof: Option<f64>| {
        let report = with_failures(report(&[("a", 10)]), &[(9.9, end, "UNAVAILABLE", DEAD)]);
        none_after_eof(ID, &report, &dead(eof), BREAKS).holds
    };
    assert!(judge(10.01, Some(10.0)));
    assert!(!judge(10.5, Some(10.0)));
    assert!(!judge(10.0, None));
    assert!(none_after_eof(ID, &report(&[("a", 1)]), &dead(Some(10.0)), BREAKS).holds);
    assert!(!none_after_eof(ID, &report(&[("a", 1)]), &dead(None), BREAKS).holds);
}

fn hung(dropped: Option<f64>) -> Hung {
    let dropped = dropped.map(|at| (at, "keepalive".to_owned()));
    Hung { stopped_unix_s: 100.0, dropped, rate: 300.0, backends: 3 }
}

#[test]
fn out_of_rotation_needs_an_early_end_and_no_later_failing_call() {
    let judge = |start: f64, dropped: Option<f64>| {
        let failed = [(start, start + 1.0, "DEADLINE_EXCEEDED", "")];
        let report = with_failures(report(&[("a", 10)]), &failed);
        out_of_rotation(ID, &report, &hung(dropped), 3.0, BREAKS).holds
    };
    assert!(judge(102.0, Some(102.1)));
    assert!(!judge(103.5, Some(102.1)), "a call began later and failed");
    assert!(!judge(102.0, Some(103.1)), "given up too late");
    assert!(!judge(102.0, None), "never given up");
}

#[test]
fn failures_within_sent_allows_the_hung_backends_turns_and_no_more() {
    // 2 s at 300/s over 3 backends are 200 turns, and 2 may have been in flight.
    let judge = |failed: u64, dropped: Option<f64>, shed| {
        let report = Report { fail: failed, shed, ..report(&[("a", 10)]) };
        failures_within_sent(ID, &report, &hung(dropped), 3.0, BREAKS).holds
    };
    assert!(judge(200, Some(102.0), 0));
    assert!(!judge(203, Some(102.0), 0));
    assert!(judge(302, Some(109.0), 0), "3 s of turns");
    assert!(!judge(303, Some(109.0), 0), "the limit bounds what counts as sent");
    assert!(!judge(200, Some(102.0), 1));
    assert!(!judge(0, None, 0));
}

#[test]
fn every_check_says_what_it_expected_what_it_saw_and_what_breaks_it() {
    let report = report(&[("a", 10)]);
    let (dead, hung, by) = (dead(Some(1.0)), hung(Some(101.0)), BTreeMap::from([(DEAD, 3)]));
    let report = Report {
        streams_open_at_eof: by.into_iter().map(|(key, n)| (key.to_owned(), n)).collect(),
        ..report
    };
    let pods = [deleted("b", 1.0, true)];
    let all = [
        one_gets_all(ID, &report, 3, 1, BREAKS),
        even_shares(ID, &report, &names(&["a"]), 1, BREAKS),
        none_failed(ID, &report, 1, BREAKS),
        only_left_serves(ID, &report, "a", &names(&["b"]), 1.0, 2.0, BREAKS),
        all_served_within(ID, &[("a".to_owned(), None)], 1.0, 6.0, BREAKS),
        back_within(ID, &report, "a", 1.0, 0.05, 2.2, BREAKS),
        replaced(ID, &report, &pods, &names(&["a"]), BREAKS),
        drained_cleanly(ID, &pods, BREAKS),
        each_served(ID, &report, 0.1, &[], BREAKS),
        aged(ID, &[("a".to_owned(), 1)], 1, BREAKS),
        only_unavailable_from(ID, &report, &dead, BREAKS),
        failures_within_open_streams(ID, &report, &dead, BREAKS),
        none_after_eof(ID, &report, &dead, BREAKS),
        out_of_rotation(ID, &report, &hung, 3.0, BREAKS),
        failures_within_sent(ID, &report, &hung, 3.0, BREAKS),
    ];
    for check in all {
        assert!(!check.expected.is_empty() && !check.seen.is_empty(), "{check:?}");
        assert_eq!(check.breaks, BREAKS);
    }
}

#[test]
fn a_number_is_within_its_bounds_or_not() {
    let holds = |count| bounded("id", "requests", count, 1..=3, "nothing").holds;
    assert_eq!([0, 1, 3, 4].map(holds), [false, true, true, false]);
}
