//! What calls meet under a list.

use super::{super::*, stage::*};
use crate::{Watch, testing::v4};

#[test]
fn the_balancer_is_asked_for_the_targets_name_on_a_stream_of_its_own_name() {
    let mut stage = Stage::new();
    let (authority, service) = (Some("lb.test".into()), "greeter.test:80".into());
    assert_eq!(stage.fleet.watches(), [(v4(LB), Watch::Balancer { service, authority })]);
    assert_eq!(stage.pick().0, Met::Queue, "until a list is there");
    assert_eq!(stage.fleet.connected.len(), 1, "nobody else is connected yet");
    let config = r#"[{"grpclb":{"serviceName":"other"}}]"#;
    let mut stage = Stage::with(config);
    stage.all_up();
    stage.update(&[LB]);
    let (authority, service) = (Some("lb.test".into()), "other".into());
    assert_eq!(stage.fleet.watches(), [(v4(LB), Watch::Balancer { service, authority })]);
}

#[test]
fn calls_walk_the_list_in_its_order() {
    let mut stage = Stage::new();
    stage.say(initial(0));
    stage.say(list(&[
        server(1, "a"),
        drop_entry("lb"),
        server(2, "b"),
        server(1, "c"),
        drop_entry("rate"),
    ]));
    let want = [met(1, "a"), Met::Drop("lb".into()), met(2, "b"), met(1, "c")];
    let turns = stage.turns(10);
    assert_eq!((&turns[..4], &turns[5..9]), (&want[..], &want[..]));
    assert_eq!((&turns[4], &turns[9]), (&Met::Drop("rate".into()), &Met::Drop("rate".into())));
}

#[test]
fn shares_and_drops_of_100_000_calls_are_those_of_the_list() {
    let mut stage = Stage::new();
    stage.say(list(&[
        drop_entry("lb"),
        server(1, "1"),
        server(2, "2"),
        server(1, "1"),
        drop_entry("lb"),
        server(3, "3"),
        server(1, "1"),
        drop_entry("rate"),
        server(2, "2"),
        server(1, "1"),
    ]));
    let shares = stage.calls(100_000);
    let share = |met: Met| shares[&met];
    assert_eq!(share(Met::Drop("lb".into())), 20_000);
    assert_eq!(share(Met::Drop("rate".into())), 10_000);
    assert_eq!(share(met(1, "1")), 40_000);
    assert_eq!(share(met(2, "2")), 20_000);
    assert_eq!(share(met(3, "3")), 10_000);
}

#[test]
fn a_server_that_is_away_changes_no_share_of_drops() {
    let mut stage = Stage::new();
    stage.say(list(&[drop_entry("lb"), server(1, "1"), server(2, "2"), server(3, "3")]));
    stage.kill(2);
    let shares = stage.calls(100_000);
    assert_eq!(shares[&Met::Drop("lb".into())], 25_000);
    assert_eq!(shares.len(), 3, "{shares:?}");
    for n in [1, 3] {
        let share = shares[&met(n, &n.to_string())];
        assert!((36_500..=38_500).contains(&share), "{n} has {share} of 75,000");
    }
}

#[test]
fn a_new_list_keeps_the_connections_of_those_who_stay() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "a"), server(2, "a")]));
    stage.fleet.take_log();
    stage.say(list(&[server(2, "a"), server(3, "a"), server(2, "a")]));
    let log: Vec<String> =
        stage.fleet.take_log().iter().map(|l| l[l.find(' ').unwrap() + 1..].into()).collect();
    assert_eq!(log, ["close 10.0.0.1:80", "connect 10.0.0.3:80"]);
    let shares = stage.calls(300);
    assert_eq!((shares[&met(2, "a")], shares[&met(3, "a")], shares.len()), (200, 100, 2));
}

#[test]
fn a_changed_token_counts_from_the_next_call_on() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "old")]));
    assert_eq!(stage.pick().0, met(1, "old"));
    stage.fleet.take_log();
    stage.tell(list(&[server(1, "new")]));
    assert_eq!(stage.pick().0, met(1, "new"));
    stage.tell(list(&[server(1, "")]));
    assert_eq!(stage.pick().0, met(1, ""));
    assert!(stage.fleet.take_log().is_empty(), "no connection is touched");
}

#[test]
fn a_list_of_only_drops_drops_at_once() {
    let mut stage = Stage::new();
    stage.tell(list(&[drop_entry("a"), drop_entry("b")]));
    assert_eq!(stage.fleet.state, ConnectivityState::Ready);
    assert_eq!(stage.turns(3), ["a", "b", "a"].map(|token| Met::Drop(token.into())));
}

#[test]
fn while_no_server_is_ready_nothing_is_dropped() {
    let mut stage = Stage::new();
    stage.fleet.set(v4(1), crate::testing::Backend::HangsForEver);
    stage.say(list(&[drop_entry("lb"), server(1, "")]));
    assert_eq!(stage.turns(4), [Met::Queue, Met::Queue, Met::Queue, Met::Queue]);
    stage.up(2);
    stage.say(list(&[drop_entry("lb"), server(2, "")]));
    assert_eq!(stage.calls(100)[&Met::Drop("lb".into())], 50);
}

#[test]
fn an_empty_list_fails_calls_at_once() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "")]));
    stage.tell(list(&[]));
    let text = "the balancer's list has no servers";
    assert_eq!(stage.pick().0, Met::Fail(text.into()));
    stage.say(list(&[server(1, "")]));
    assert_eq!(stage.pick().0, met(1, ""));
}

#[test]
fn bad_entries_are_ignored_and_counted() {
    let mut stage = Stage::new();
    let mut bad = [server(2, "x"), server(3, "x"), server(4, "a\u{7f}")];
    bad[0].address.pop();
    bad[1].port = 70_000;
    stage.news();
    stage.say(list(&[bad[0].clone(), server(1, ""), bad[1].clone(), bad[2].clone()]));
    let ignored = Ignored { address: 1, port: 1, token: 1, surplus: 0 };
    assert_eq!(stage.news(), [BalancerNews::List { servers: 1, drops: 0, ignored }]);
    assert_eq!(stage.calls(10).len(), 1);
}

#[test]
fn pick_first_sends_all_to_one_and_drops_its_share() {
    let mut stage = Stage::with(r#"[{"grpclb":{"childPolicy":[{"pick_first":{}}]}}]"#);
    stage.all_up();
    stage.update(&[LB]);
    stage.say(list(&[server(1, "a"), drop_entry("lb"), server(2, "b"), server(3, "c")]));
    let shares = stage.calls(100_000);
    assert_eq!((shares[&met(1, "a")], shares[&Met::Drop("lb".into())]), (75_000, 25_000));
    stage.kill(1);
    assert_eq!(stage.fleet.state, ConnectivityState::Idle);
    stage.fleet.exit_idle();
    stage.fleet.run_ms(10);
    assert_eq!(stage.calls(4)[&met(2, "b")], 3);
}

#[test]
fn another_child_policy_takes_over_with_the_list_that_is_there() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "a"), server(2, "b")]));
    let pick_first = crate::testing::policy(r#"[{"grpclb":{"childPolicy":[{"pick_first":{}}]}}]"#);
    stage.fleet.update_with(&crate::testing::endpoints([OWN]), &pick_first);
    stage.fleet.run_ms(10);
    assert_eq!(stage.calls(10), [(met(1, "a"), 10)].into());
    assert_eq!(stage.streams(), 1, "the balancer's stream goes on");
}

#[test]
fn servers_of_the_list_are_not_asked_for_their_health() {
    let mut stage = Stage::new();
    stage.fleet.check(Some("greeter"));
    stage.say(list(&[server(1, "")]));
    assert_eq!(stage.pick().0, met(1, ""));
    assert_eq!(stage.streams(), 1, "the balancer's only");
}
