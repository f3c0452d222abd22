//! `pick_first` against a simulated fleet: gRFC A61 (happy eyeballs), A62 (sticky
//! TRANSIENT_FAILURE, shuffling), connectivity semantics, and connection-backoff.md.

use super::order::order;
use crate::{
    Address, ConnectivityState, Endpoint,
    testing::{Backend, Fleet, Picked, endpoint, endpoints, policy, v4, v6},
};

/// A fleet under `pick_first` whose resolver found one endpoint for each number.
fn fleet_of(numbers: impl IntoIterator<Item = u16>, backends: &[(u16, Backend)]) -> Fleet {
    let mut fleet = Fleet::new("pick_first");
    for (n, backend) in backends {
        fleet.set(v4(*n), *backend);
    }
    fleet.update(&endpoints(numbers));
    fleet
}

fn ready_on(fleet: &Fleet) -> Option<Address> {
    match fleet.pick() {
        Picked::Address(address) => Some(address),
        _ => None,
    }
}

#[test]
fn a_failure_starts_the_next_attempt_at_once() {
    let mut fleet = fleet_of(1..=3, &[(3, Backend::Up)]);
    assert_eq!(fleet.pick(), Picked::Queue);
    fleet.drive();
    let want = [
        "0 connect 10.0.0.1:80",
        "0 CONNECTING",
        "1 connect 10.0.0.2:80",
        "2 connect 10.0.0.3:80",
        "3 READY",
    ];
    assert_eq!(fleet.take_log(), want);
    assert_eq!(fleet.pick(), Picked::Address(v4(3)));
    fleet.run_ms(300_000);
    assert!(fleet.take_log().is_empty(), "nobody retries beside a connection");
}

#[test]
fn a_silent_attempt_gets_company_every_250_ms() {
    let hangs = Backend::HangsForEver;
    let mut fleet = fleet_of(1..=3, &[(1, hangs), (2, hangs), (3, Backend::Up)]);
    fleet.run_ms(249);
    assert_eq!(fleet.take_log(), ["0 connect 10.0.0.1:80", "0 CONNECTING"]);
    fleet.run_ms(1_000);
    let want = [
        "250 connect 10.0.0.2:80",
        "500 connect 10.0.0.3:80",
        "501 give up 10.0.0.1:80",
        "501 give up 10.0.0.2:80",
        "501 READY",
    ];
    assert_eq!(fleet.take_log(), want);
}

#[test]
fn an_earlier_attempt_may_still_win() {
    let slow = Backend::HangsUntil(300);
    let mut fleet = fleet_of(1..=3, &[(1, slow), (2, Backend::HangsForEver), (3, Backend::Up)]);
    fleet.drive();
    let want = [
        "0 connect 10.0.0.1:80",
        "0 CONNECTING",
        "250 connect 10.0.0.2:80",
        "301 give up 10.0.0.2:80",
        "301 READY",
    ];
    assert_eq!(fleet.take_log(), want);
    assert_eq!(ready_on(&fleet), Some(v4(1)));
    fleet.run_ms(10_000);
    assert!(fleet.take_log().is_empty(), "the timer of the third attempt is cancelled");
}

#[test]
fn only_a_failure_of_the_latest_attempt_cuts_the_delay_short() {
    let hangs = Backend::HangsForEver;
    let mut fleet = fleet_of(1..=4, &[(1, hangs), (2, hangs), (3, hangs), (4, hangs)]);
    fleet.run_ms(300);
    fleet.fail(&v4(1));
    fleet.take_log();
    fleet.run_ms(100);
    assert!(fleet.take_log().is_empty(), "the second attempt has its 250 ms");
    fleet.fail(&v4(2));
    assert_eq!(fleet.take_log(), ["400 connect 10.0.0.3:80"]);
}

#[test]
fn the_order_interleaves_families_and_drops_repeated_addresses() {
    let cases: [(&[Address], &[Address]); 6] = [
        (&[], &[]),
        (&[v4(1), v4(2)], &[v4(1), v4(2)]),
        (&[v6(1), v6(2), v6(3), v4(1)], &[v6(1), v4(1), v6(2), v6(3)]),
        (&[v4(1), v4(2), v6(1), v6(2), v6(3)], &[v4(1), v6(1), v4(2), v6(2), v6(3)]),
        (&[v4(1), v4(1), v6(1), v4(1), v6(1)], &[v4(1), v6(1)]),
        (&[v6(2), v4(2), v4(1), v6(1)], &[v6(2), v4(2), v6(1), v4(1)]),
    ];
    for (given, want) in cases {
        let each: Vec<Endpoint> = given.iter().cloned().map(Endpoint::new).collect();
        let one: Vec<Endpoint> = Endpoint::with_addresses(given.to_vec()).into_iter().collect();
        for list in [each, one] {
            assert_eq!(order(&list, false, &mut fastrand::Rng::with_seed(1)), want, "{given:?}");
        }
    }
}

#[test]
fn shuffling_moves_endpoints_and_keeps_each_ones_addresses_in_order() {
    let list = [endpoint(&[v4(1), v4(2)]), endpoint(&[v4(3), v4(4)]), endpoint(&[v4(5)])];
    let of = |seed| order(&list, true, &mut fastrand::Rng::with_seed(seed));
    let mut firsts = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let order = of(seed);
        assert_eq!(order, of(seed), "the same seed gives the same order");
        let place = |n| order.iter().position(|a| *a == v4(n)).unwrap();
        assert_eq!((place(1) + 1, place(3) + 1), (place(2), place(4)));
        firsts.insert(order[0].clone());
    }
    assert_eq!(firsts.into_iter().collect::<Vec<_>>(), [v4(1), v4(3), v4(5)]);
}

#[test]
fn shuffles_only_when_the_config_says_so() {
    let firsts = |text: &str| {
        let first_of = |seed| {
            let mut fleet = Fleet::with(crate::EngineOptions {
                seed,
                backoff: crate::Backoff::default(),
                default_policy: policy(text),
            });
            fleet.update(&endpoints(1..=8));
            fleet.connecting()[0].1.clone()
        };
        (0..50).map(first_of).collect::<std::collections::BTreeSet<Address>>().len()
    };
    assert_eq!(firsts(r#"[{"pick_first":{}}]"#), 1);
    assert_eq!(firsts(r#"[{"pick_first":{"shuffleAddressList":false}}]"#), 1);
    assert!(firsts(r#"[{"pick_first":{"shuffleAddressList":true}}]"#) >= 7);
}

#[test]
fn fails_calls_once_all_attempts_failed_and_says_whom_and_why() {
    let mut fleet = fleet_of(1..=7, &[]);
    fleet.run_ms(6);
    assert_eq!(fleet.pick(), Picked::Queue, "one attempt is still under way");
    fleet.run_ms(1);
    assert_eq!(fleet.state, ConnectivityState::TransientFailure);
    assert_eq!(
        fleet.failure(),
        "Unavailable: none of 7 addresses can be reached (10.0.0.1:80, 10.0.0.2:80, 10.0.0.3:80, \
         10.0.0.4:80, 10.0.0.5:80 and 2 more); last error: 10.0.0.7:80 refused"
    );
}

#[test]
fn the_message_that_fails_calls_tells_the_latest_error() {
    let mut fleet = fleet_of([1], &[]);
    fleet.run_ms(500);
    assert!(fleet.failure().ends_with("last error: 10.0.0.1:80 refused"));
    fleet.set(v4(1), Backend::HangsForEver);
    fleet.run_ms(21_000);
    assert!(fleet.failure().ends_with("last error: 10.0.0.1:80 timed out"));
}

#[test]
fn retries_each_address_by_its_own_backoff_and_asks_the_resolver_after_each_round() {
    let mut fleet = fleet_of(1..=2, &[]);
    fleet.run_ms(5_200);
    let want = [
        "0 connect 10.0.0.1:80",
        "0 CONNECTING",
        "1 connect 10.0.0.2:80",
        "2 resolve",
        "2 TRANSIENT_FAILURE",
        "1000 connect 10.0.0.1:80",
        "1001 connect 10.0.0.2:80",
        "1002 resolve",
        "2600 connect 10.0.0.1:80",
        "2601 connect 10.0.0.2:80",
        "2602 resolve",
        "5160 connect 10.0.0.1:80",
        "5161 connect 10.0.0.2:80",
        "5162 resolve",
    ];
    assert_eq!(fleet.take_log(), want);
}

#[test]
fn a_backoff_that_ends_during_the_first_pass_waits_for_its_end() {
    let mut fleet = fleet_of(1..=2, &[(1, Backend::HangsForEver)]);
    fleet.run_ms(10_000);
    assert_eq!(fleet.take_log()[2..], ["250 connect 10.0.0.2:80"]);
    fleet.run_ms(10_000);
    // And the first address, whose 1 s are over long since, comes a moment later.
    let want = ["20000 connect 10.0.0.2:80", "20000 resolve", "20000 TRANSIENT_FAILURE"];
    assert_eq!(fleet.take_log(), want);
}

#[test]
fn stays_in_transient_failure_until_it_is_ready() {
    let mut fleet = fleet_of(1..=2, &[]);
    fleet.run_ms(500);
    fleet.set(v4(1), Backend::HangsUntil(1_500));
    fleet.run_ms(700);
    assert_eq!(fleet.connecting().len(), 1, "an attempt is under way");
    assert!(fleet.failure().contains("10.0.0.2:80 refused"), "and calls still fail");
    fleet.run_ms(301);
    assert_eq!(fleet.state, ConnectivityState::Ready);
    assert_eq!(ready_on(&fleet), Some(v4(1)));
    let states = |line: &String| line.chars().any(char::is_uppercase);
    let states: Vec<String> = fleet.take_log().into_iter().filter(states).collect();
    assert_eq!(states, ["0 CONNECTING", "2 TRANSIENT_FAILURE", "1501 READY"]);
}

#[test]
fn keeps_its_connection_through_updates_that_hold_the_address() {
    let mut fleet = fleet_of(1..=2, &[(1, Backend::Up), (3, Backend::Up)]);
    fleet.drive();
    fleet.take_log();
    for numbers in [vec![1], vec![3, 2, 1], vec![1, 1], vec![2, 1, 3]] {
        fleet.update(&endpoints(numbers));
        fleet.drive();
        assert_eq!(ready_on(&fleet), Some(v4(1)));
    }
    assert!(fleet.take_log().is_empty());
}

#[test]
fn moves_on_when_its_address_is_removed() {
    let mut fleet = fleet_of(1..=2, &[(1, Backend::Up), (3, Backend::Up)]);
    fleet.drive();
    fleet.take_log();
    fleet.update(&endpoints([3]));
    assert_eq!(fleet.pick(), Picked::Queue, "no call goes to the removed address");
    fleet.drive();
    let want = ["1 close 10.0.0.1:80", "1 connect 10.0.0.3:80", "1 CONNECTING", "2 READY"];
    assert_eq!(fleet.take_log(), want);
}

#[test]
fn a_lost_connection_leaves_it_idle_until_a_call_comes() {
    let mut fleet = fleet_of(1..=2, &[(2, Backend::Up)]);
    fleet.drive();
    fleet.take_log();
    fleet.set(v4(1), Backend::Up);
    fleet.disconnect(&v4(2));
    fleet.run_ms(60_000);
    assert_eq!(fleet.take_log(), ["2 resolve", "2 IDLE"]);
    assert_eq!(fleet.pick(), Picked::Queue);
    fleet.exit_idle();
    fleet.exit_idle();
    fleet.drive();
    let want = ["60002 connect 10.0.0.1:80", "60002 CONNECTING", "60003 READY"];
    assert_eq!(fleet.take_log(), want, "and it begins with the first address again");
}

#[test]
fn an_update_while_idle_connects_nothing_until_a_call_comes() {
    let mut fleet = fleet_of([1], &[(1, Backend::Up), (2, Backend::Up)]);
    fleet.drive();
    fleet.disconnect(&v4(1));
    fleet.update(&endpoints([2, 3]));
    fleet.run_ms(1_000);
    fleet.take_log();
    assert_eq!(fleet.state, ConnectivityState::Idle);
    fleet.exit_idle();
    fleet.drive();
    assert_eq!(ready_on(&fleet), Some(v4(2)));
}

#[test]
fn an_empty_list_fails_calls_at_once_and_the_next_list_lets_them_wait() {
    let mut fleet = fleet_of([], &[(1, Backend::Up)]);
    assert_eq!(fleet.take_log(), ["0 resolve", "0 TRANSIENT_FAILURE"]);
    assert_eq!(fleet.failure(), "Unavailable: the resolver found no endpoints");
    fleet.update(&endpoints([1]));
    assert_eq!(fleet.pick(), Picked::Queue, "sticky are only failures to connect");
    fleet.drive();
    assert_eq!(ready_on(&fleet), Some(v4(1)));
    fleet.update(&[]);
    assert!(fleet.connected.is_empty());
    assert_eq!(fleet.failure(), "Unavailable: the resolver found no endpoints");
    fleet.exit_idle();
    fleet.run_ms(10_000);
    assert!(fleet.connecting().is_empty());
}

#[test]
fn a_resolver_error_fails_calls_only_while_there_is_no_list() {
    let mut fleet = fleet_of([], &[(1, Backend::Up)]);
    fleet.resolver_error("SERVFAIL", false);
    assert_eq!(fleet.failure(), "Unavailable: SERVFAIL");
    fleet.take_log();
    fleet.resolver_error("NXDOMAIN", false);
    assert!(fleet.take_log().is_empty(), "the answer to an error is not another question");
    fleet.update(&endpoints([1]));
    fleet.drive();
    fleet.resolver_error("SERVFAIL", false);
    assert_eq!(ready_on(&fleet), Some(v4(1)));
    fleet.kill(&v4(1));
    fleet.exit_idle();
    fleet.resolver_error("SERVFAIL", false);
    fleet.drive();
    assert!(fleet.failure().ends_with("last error: 10.0.0.1:80 refused"), "{}", fleet.failure());
}

#[test]
fn an_expired_list_serves_on_while_connected_and_connects_no_more() {
    let mut fleet = fleet_of(1..=2, &[(1, Backend::Up)]);
    fleet.drive();
    fleet.resolver_error("the list is too old", true);
    assert_eq!(ready_on(&fleet), Some(v4(1)));
    fleet.take_log();
    fleet.disconnect(&v4(1));
    fleet.exit_idle();
    fleet.run_ms(60_000);
    assert_eq!(fleet.take_log(), ["1 resolve", "1 TRANSIENT_FAILURE"]);
    assert_eq!(fleet.failure(), "Unavailable: the list is too old");
    fleet.update(&endpoints(1..=2));
    fleet.drive();
    assert_eq!(ready_on(&fleet), Some(v4(1)));
}

#[test]
fn a_list_that_expires_before_it_is_ready_is_given_up() {
    for lost in [false, true] {
        let mut fleet = fleet_of(1..=2, &[(1, Backend::HangsUntil(50))]);
        if lost {
            fleet.run_ms(100);
            fleet.disconnect(&v4(1));
        }
        fleet.resolver_error("the list is too old", true);
        assert_eq!(fleet.failure(), "Unavailable: the list is too old");
        assert!(fleet.connecting().is_empty());
        assert_eq!(fleet.engine.poll_timeout(), None, "no timer outlives the list");
    }
}

#[test]
fn a_fresh_list_lifts_the_expiry() {
    let mut fleet = fleet_of([1], &[(1, Backend::Up)]);
    fleet.drive();
    fleet.resolver_error("the list is too old", true);
    fleet.update(&endpoints([1]));
    fleet.disconnect(&v4(1));
    assert_eq!(fleet.state, ConnectivityState::Idle);
}

#[test]
fn the_same_list_again_disturbs_nothing() {
    let mut fleet = fleet_of(1..=3, &[(1, Backend::HangsForEver)]);
    fleet.run_ms(200);
    fleet.update(&endpoints(1..=3));
    fleet.run_ms(51);
    assert_eq!(fleet.take_log()[2..], ["250 connect 10.0.0.2:80", "251 connect 10.0.0.3:80"]);
    let mut fleet = fleet_of(1..=3, &[]);
    fleet.run_ms(10);
    fleet.take_log();
    for again in [vec![1, 2, 3], vec![3, 2, 1], vec![1, 2]] {
        fleet.update(&endpoints(again));
    }
    fleet.run_ms(900);
    assert!(fleet.take_log().is_empty(), "a question for each answer would never end");
    fleet.run_ms(100);
    assert_eq!(
        fleet.take_log(),
        ["1000 connect 10.0.0.1:80", "1001 connect 10.0.0.2:80", "1002 resolve"]
    );
}

#[test]
fn a_new_address_is_tried_at_once_while_the_others_wait_in_backoff() {
    let mut fleet = fleet_of(1..=2, &[(3, Backend::HangsUntil(1_500))]);
    fleet.run_ms(10);
    fleet.take_log();
    fleet.update(&endpoints([1, 3, 2]));
    assert_eq!(fleet.take_log(), ["10 connect 10.0.0.3:80"]);
    assert_eq!(fleet.state, ConnectivityState::TransientFailure, "until one is READY");
    fleet.run_ms(1_200);
    assert!(fleet.take_log().is_empty(), "each address has had its turn in this pass");
    fleet.run_ms(400);
    assert_eq!(fleet.take_log(), ["1501 READY"]);
}

#[test]
fn a_changed_list_begins_a_new_pass_and_keeps_the_attempts_under_way() {
    let hangs = Backend::HangsForEver;
    let mut fleet = fleet_of(1..=3, &[(1, hangs), (2, hangs), (4, hangs), (5, Backend::Up)]);
    fleet.run_ms(400);
    fleet.take_log();
    fleet.update(&endpoints([4, 2, 5]));
    assert_eq!(fleet.take_log(), ["400 give up 10.0.0.1:80", "400 connect 10.0.0.4:80"]);
    fleet.run_ms(2_000);
    let want = [
        "900 connect 10.0.0.5:80",
        "901 give up 10.0.0.4:80",
        "901 give up 10.0.0.2:80",
        "901 READY",
    ];
    assert_eq!(fleet.take_log(), want, "650: the second is under way already; 900: the third");
}

#[test]
fn an_attempt_that_fails_before_its_turn_is_made_again_unless_its_backoff_lasts() {
    let hanging: Vec<_> = (1..=7).map(|n| (n, Backend::HangsForEver)).collect();
    for (list, turn_ms) in [(vec![3, 4, 5, 2], 1_050), (vec![3, 4, 5, 6, 7, 2], 1_550)] {
        let mut fleet = fleet_of([1, 2], &hanging);
        fleet.run_ms(300);
        // A new pass while the attempt at 2, of 250 ms, is under way.
        fleet.update(&endpoints(list.clone()));
        fleet.fail(&v4(2));
        fleet.take_log();
        fleet.run_ms(1_700);
        let retried = fleet.take_log().contains(&format!("{turn_ms} connect 10.0.0.2:80"));
        assert_eq!(retried, turn_ms > 1_250, "its backoff ends at 1,250 ms");
        for n in list.iter().filter(|n| **n != 2) {
            assert_eq!(fleet.state, ConnectivityState::Connecting);
            fleet.fail(&v4(*n));
        }
        let want = [ConnectivityState::TransientFailure, ConnectivityState::Connecting];
        assert_eq!(fleet.state, want[usize::from(retried)], "it ends with the last attempt");
        fleet.fail(&v4(2));
        assert_eq!(fleet.state, ConnectivityState::TransientFailure);
    }
}

#[test]
fn the_connection_that_wins_before_its_turn_is_taken() {
    let hangs = Backend::HangsForEver;
    let mut fleet = fleet_of([1, 2], &[(1, Backend::HangsUntil(350)), (2, hangs), (3, hangs)]);
    fleet.run_ms(300);
    fleet.update(&endpoints([3, 2, 1]));
    fleet.run_ms(100);
    assert_eq!(ready_on(&fleet), Some(v4(1)));
    assert!(fleet.connecting().is_empty());
}
