//! Each check of `lookaside` fails when what it judges is not there.

use std::collections::BTreeMap;

use super::*;
use crate::{
    balancers::Totals,
    client::{Attempts, Event, Failure, Latency, Report, Slot, What},
};

fn report() -> Report {
    let drops = BTreeMap::from([("drop-lab".to_owned(), 30)]);
    let attempts =
        Attempts { started: 100, finished: 100, known_received: 70, drops, failed_to_send: 0 };
    Report {
        calls: 100,
        ok: 70,
        fail: 30,
        by_code: BTreeMap::from([("UNAVAILABLE".to_owned(), 30)]),
        attempts: Some(attempts),
        slots: vec![Slot {
            unix_s: 12.0,
            by_backend: BTreeMap::from([("a".to_owned(), 50)]),
            fail: 0,
        }],
        ..Report::default()
    }
}

fn totals() -> Totals {
    let dropped = BTreeMap::from([("drop-lab".to_owned(), 30), ("drop-other".to_owned(), 0)]);
    Totals {
        reports: 2,
        started: 100,
        finished: 100,
        failed_to_send: 0,
        known_received: 70,
        dropped,
    }
}

fn balancer(unix_s: f64, lost: bool, fallback: bool) -> Event {
    let text = |is: bool| is.then(|| "why".to_owned());
    let connected = text(!lost && !fallback);
    Event {
        unix_s,
        what: What::Balancer { connected, lost: text(lost), list: None, fallback: text(fallback) },
    }
}

#[test]
fn sums_add_up_or_not() {
    let holds =
        |report: &Report, totals: &Totals| reports_add_up("x", report, totals, 100, "").holds;
    assert!(holds(&report(), &totals()));
    assert!(!holds(&Report::default(), &Totals::default()), "nothing was seen");
    assert!(!holds(&Report { attempts: None, ..report() }, &totals()));
    let with = |change: fn(&mut Totals)| {
        let mut totals = totals();
        change(&mut totals);
        holds(&report(), &totals)
    };
    assert!(!with(|totals| totals.started -= 1));
    assert!(!with(|totals| totals.finished += 1));
    assert!(!with(|totals| totals.failed_to_send += 1));
    assert!(!with(|totals| totals.known_received -= 1));
    assert!(!with(|totals| *totals.dropped.get_mut("drop-lab").expect("there") = 29));
    assert!(!with(|totals| *totals.dropped.get_mut("drop-other").expect("there") = 1));
}

#[test]
fn drops_are_counted_by_their_token_and_nothing_else_fails() {
    let holds = |report: &Report, token| dropped("x", report, token, 30.0, 100, "").holds;
    assert!(holds(&report(), "drop-lab"));
    assert!(!holds(&report(), "drop-other"));
    assert!(!holds(&Report { fail: 31, ..report() }, "drop-lab"), "another call failed");
    assert!(!holds(&Report { calls: 99, ..report() }, "drop-lab"), "too few");
    assert!(!holds(&Report { by_code: BTreeMap::new(), ..report() }, "drop-lab"));
    assert!(!dropped("x", &report(), "drop-lab", 28.0, 100, "").holds);
}

#[test]
fn a_balancer_is_replaced_in_time() {
    let events = [balancer(11.0, true, false), balancer(12.0, false, false)];
    assert!(moved_within("x", &events, 10.0, 2.0, "").holds);
    assert!(!moved_within("x", &events, 10.0, 1.0, "").holds);
    assert!(!moved_within("x", &events[..1], 10.0, 2.0, "").holds);
}

#[test]
fn the_last_list_serves_when_no_balancer_lives() {
    let holds = |report: &Report, events: &[Event]| {
        last_list_serves("x", report, events, (11.0, 13.0), 50, "").holds
    };
    let lost = [balancer(11.0, true, false)];
    assert!(holds(&report(), &lost));
    assert!(!holds(&report(), &[]), "no balancer was lost");
    assert!(!holds(&report(), &[balancer(11.0, true, false), balancer(12.0, false, true)]));
    assert!(!holds(&Report { slots: Vec::new(), ..report() }, &lost), "no calls");
    let failure = Failure {
        start_unix_s: 11.0,
        end_unix_s: 12.0,
        code: "UNAVAILABLE".to_owned(),
        message: String::new(),
    };
    assert!(!holds(&Report { failures: vec![failure], ..report() }, &lost));
}

#[test]
fn a_tail_is_better_or_not() {
    let of = |p99| Report {
        ok: 1,
        latency_ms: Latency { p99: Some(p99), ..Latency::default() },
        ..Report::default()
    };
    assert!(tail_better("x", &of(150.0), &of(100.0), 1.5, "").holds);
    assert!(!tail_better("x", &of(149.0), &of(100.0), 1.5, "").holds);
    assert!(!tail_better("x", &of(150.0), &Report { fail: 1, ..of(100.0) }, 1.5, "").holds);
    assert!(!tail_better("x", &Report::default(), &of(100.0), 1.5, "").holds, "nothing was seen");
}

#[test]
fn shares_are_calm_or_not() {
    let slot = |a, b| Slot {
        unix_s: 0.0,
        by_backend: BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]),
        fail: 0,
    };
    let parts = [("a".to_owned(), 2.0 / 3.0), ("b".to_owned(), 1.0 / 3.0)];
    let holds = |slots: Vec<Slot>| {
        calm_shares("x", &Report { slots, ..Report::default() }, &parts, 0.1, "").holds
    };
    let mut slots = vec![slot(50, 50); 7];
    slots.extend(vec![slot(200, 100); 6]);
    slots.push(slot(0, 1));
    assert!(holds(slots.clone()), "the first half and the last slot do not count");
    slots[9] = slot(50, 250);
    assert!(!holds(slots), "the half is off");
    assert!(!holds(Vec::new()), "nothing was seen");
    assert!(!holds(vec![Slot::default(); 10]), "no calls");
}
