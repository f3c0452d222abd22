//! What the balancer hears of calls.

use std::collections::BTreeMap;

use super::{super::*, stage::*};
use crate::{CallOutcome, ClientStats};

fn stats(started: u64, finished: u64, failed_to_send: u64, known_received: u64) -> ClientStats {
    let drops = BTreeMap::new();
    ClientStats { started, finished, failed_to_send, known_received, drops }
}

/// A balancer that wants a report every 200 ms, and its list.
fn reported(entries: &[ServerEntry]) -> Stage {
    let mut stage = Stage::new();
    stage.tell(initial(200));
    stage.say(list(entries));
    stage
}

#[test]
fn reports_come_at_the_interval_that_the_balancer_asks_for() {
    let mut stage = reported(&[server(1, "")]);
    stage.calls(5);
    stage.fleet.run_ms(180);
    assert_eq!(stage.reports(), []);
    stage.fleet.run_ms(20);
    assert_eq!(stage.reports(), [stats(5, 5, 0, 5)]);
    stage.calls(7);
    stage.fleet.run_ms(200);
    assert_eq!(stage.reports(), [stats(7, 7, 0, 7)]);
}

#[test]
fn a_report_of_nothing_comes_once() {
    let mut stage = reported(&[server(1, "")]);
    stage.fleet.run_ms(10_000);
    assert_eq!(stage.reports(), [stats(0, 0, 0, 0)]);
    stage.calls(1);
    stage.fleet.run_ms(10_000);
    assert_eq!(stage.reports(), [stats(1, 1, 0, 1), stats(0, 0, 0, 0)]);
}

#[test]
fn without_an_interval_there_is_no_report_and_a_short_one_is_stretched() {
    let mut stage = Stage::new();
    stage.tell(initial(0));
    stage.say(list(&[server(1, "")]));
    stage.calls(10);
    stage.fleet.run_ms(10_000);
    stage.fleet.engine.shutdown(stage.fleet.now);
    stage.fleet.drain();
    assert_eq!(stage.reports(), []);
    let mut stage = Stage::new();
    stage.tell(initial(1));
    stage.say(list(&[server(1, "")]));
    for _ in 0..1_000 {
        stage.calls(1);
        stage.fleet.run_ms(1);
    }
    assert_eq!(stage.reports().len(), 10);
}

#[test]
fn each_attempt_counts_as_what_became_of_it() {
    let mut stage = reported(&[server(1, ""), drop_entry("lb"), server(2, ""), drop_entry("x")]);
    let ends = [CallOutcome::Finished(Some(0)), CallOutcome::Failed, CallOutcome::NotSent];
    let mut ends = ends.into_iter();
    for _ in 0..6 {
        if let (_, Some((sink, token))) = stage.pick() {
            sink.begin(token);
            sink.complete(token, ends.next().unwrap());
        }
    }
    // One goes on, one is dropped, and one is no attempt.
    let (_, open) = stage.pick();
    open.inspect(|(sink, token)| sink.begin(*token)).unwrap();
    let (_, dropped) = stage.pick();
    assert!(dropped.is_none());
    let (sink, token) = stage.pick().1.unwrap();
    sink.complete(token, CallOutcome::Void);
    stage.fleet.run_ms(200);
    let drops = BTreeMap::from([("lb".into(), 2), ("x".into(), 2)]);
    assert_eq!(stage.reports(), [ClientStats { drops, ..stats(8, 7, 1, 1) }]);
}

#[test]
fn fallback_calls_are_not_reported() {
    let mut stage = reported(&[server(1, "")]);
    stage.say(BalancerMessage::Fallback);
    stage.calls(100);
    stage.fleet.run_ms(200);
    assert_eq!(stage.reports(), [stats(0, 0, 0, 0)]);
}

#[test]
fn what_a_lost_balancer_did_not_hear_goes_to_the_next() {
    let mut stage = reported(&[server(1, "")]);
    stage.fleet.run_ms(5_000);
    stage.reports();
    stage.calls(3);
    stage.end();
    stage.calls(4);
    stage.fleet.run_ms(1_000);
    assert_eq!(stage.reports(), []);
    stage.say(initial(200));
    stage.fleet.run_ms(200);
    assert_eq!(stage.reports(), [stats(7, 7, 0, 7)]);
}

#[test]
fn a_last_report_closes_the_sums() {
    let mut stage = reported(&[server(1, ""), drop_entry("lb")]);
    stage.fleet.run_ms(1_000);
    stage.reports();
    stage.calls(10);
    stage.fleet.engine.shutdown(stage.fleet.now);
    stage.fleet.drain();
    let drops = BTreeMap::from([("lb".into(), 5)]);
    assert_eq!(stage.reports(), [ClientStats { drops, ..stats(10, 10, 0, 5) }]);
    assert_eq!((stage.open(), stage.fleet.engine.poll_timeout()), (None, None));
    // Likewise when the channel goes IDLE, and when another policy takes over.
    let mut stage = reported(&[server(1, "")]);
    stage.calls(10);
    stage.fleet.engine.enter_idle(stage.fleet.now);
    stage.fleet.drain();
    assert_eq!(stage.reports(), [stats(10, 10, 0, 10)]);
    let mut stage = reported(&[server(1, "")]);
    stage.calls(10);
    let round_robin = crate::testing::policy("round_robin");
    stage.fleet.update_with(&crate::testing::endpoints([OWN]), &round_robin);
    stage.fleet.run_ms(10);
    assert_eq!(stage.reports(), [stats(10, 10, 0, 10)]);
}

#[test]
fn a_second_initial_response_changes_nothing() {
    let mut stage = reported(&[server(1, "")]);
    stage.say(initial(1_000_000));
    stage.calls(1);
    stage.fleet.run_ms(400);
    assert_eq!(stage.reports()[0], stats(1, 1, 0, 1));
}
