//! `round_robin` against a simulated fleet: exact turns, who is in and who is out, what an update
//! leaves alone, and connection-backoff.md.

use std::collections::BTreeMap;

use crate::{
    Address, Backoff, ConnectivityState, EngineOptions, MILLISECOND_NS,
    testing::{Backend, Fleet, Picked, endpoint, endpoints, policy, v4, v6},
};

/// A fleet under `round_robin` whose backends of these numbers are up and in the resolver's list.
fn fleet_of(numbers: impl IntoIterator<Item = u16> + Clone) -> Fleet {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up(numbers.clone().into_iter().map(v4));
    fleet.update(&endpoints(numbers));
    fleet.drive();
    fleet.take_log();
    fleet
}

/// Who is picked in so many rounds, checked to be even.
fn served(fleet: &Fleet) -> Vec<Address> {
    let n = fleet.connected.len();
    let shares = fleet.shares(n * 7);
    assert!(shares.values().all(|share| *share == 7), "{shares:?}");
    shares.into_keys().collect()
}

#[test]
fn takes_every_endpoint_in_turn() {
    let fleet = fleet_of(1..=3);
    let shares = fleet.shares(100_000);
    let (min, max) = (shares.values().min().unwrap(), shares.values().max().unwrap());
    assert_eq!((shares.len(), *min, *max), (3, 33_333, 33_334));
    let mut turns: Vec<Picked> = (0..6).map(|_| fleet.pick()).collect();
    assert_eq!(turns.split_off(3), turns, "the same order in each round");
}

#[test]
fn clients_begin_at_random_places() {
    let mut firsts = BTreeMap::new();
    for seed in 0..300 {
        let mut fleet = Fleet::with(EngineOptions {
            seed,
            backoff: Backoff::default(),
            default_policy: policy("round_robin"),
        });
        fleet.all_up((1..=3).map(v4));
        fleet.update(&endpoints(1..=3));
        fleet.drive();
        *firsts.entry(format!("{:?}", fleet.pick())).or_insert(0) += 1;
    }
    assert!(firsts.len() == 3 && firsts.values().all(|n| (60..140).contains(n)), "{firsts:?}");
}

#[test]
fn a_new_picker_goes_on_where_the_old_one_was() {
    let mut fleet = fleet_of(1..=4);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..400 {
        *counts.entry(format!("{:?}", fleet.pick())).or_insert(0) += 1;
        let before = fleet.publishes;
        fleet.update(&endpoints(1..=4));
        assert_eq!(fleet.publishes, before + 1, "a new picker after each pick");
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [100; 4]);
}

#[test]
fn an_endpoint_with_several_addresses_is_one_turn() {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1), v6(1), v4(2)]);
    fleet.update(&[endpoint(&[v4(1), v6(1)]), endpoint(&[v6(2), v4(2)])]);
    fleet.drive();
    assert_eq!(served(&fleet), [v4(1), v4(2)]);
    fleet.kill(&v4(1));
    fleet.drive();
    assert_eq!(served(&fleet), [v4(2), v6(1)], "its other address takes over");
}

#[test]
fn repeated_endpoints_count_once_whatever_the_order_of_their_addresses() {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1), v4(2), v4(3)]);
    let list = [vec![v4(1)], vec![v4(2), v4(3)], vec![v4(1)], vec![v4(3), v4(2)]];
    let list = list.map(|addresses| endpoint(&addresses));
    fleet.update(&list);
    fleet.drive();
    assert_eq!(served(&fleet), [v4(1), v4(2)]);
    fleet.take_log();
    fleet.update(&[endpoint(&[v4(3), v4(2)]), endpoint(&[v4(1), v4(1)])]);
    fleet.drive();
    assert!(fleet.take_log().is_empty(), "the same endpoints, so nothing moves");
}

#[test]
fn a_dead_endpoint_gets_nothing() {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1), v4(3)]);
    fleet.update(&endpoints(1..=3));
    fleet.drive();
    assert_eq!(served(&fleet), [v4(1), v4(3)]);
    fleet.run_ms(200_000);
    assert_eq!(served(&fleet), [v4(1), v4(3)]);
}

#[test]
fn the_first_ready_endpoint_serves_while_others_hang() {
    let mut fleet = Fleet::new("round_robin");
    fleet.set(v4(1), Backend::HangsForEver);
    fleet.set(v4(2), Backend::Up);
    fleet.update(&endpoints(1..=2));
    assert_eq!((fleet.state, fleet.pick()), (ConnectivityState::Connecting, Picked::Queue));
    fleet.drive();
    assert_eq!(served(&fleet), [v4(2)]);
}

#[test]
fn a_lost_connection_is_made_again_at_once() {
    let mut fleet = fleet_of(1..=3);
    fleet.disconnect(&v4(2));
    assert_eq!(served(&fleet), [v4(1), v4(3)]);
    fleet.drive();
    let ms = fleet.now / MILLISECOND_NS;
    let (lost, ready) = (ms - 1, ms);
    assert_eq!(
        fleet.take_log(),
        [format!("{lost} connect 10.0.0.2:80"), format!("{lost} resolve"),]
    );
    assert_eq!((ready, served(&fleet)), (lost + 1, vec![v4(1), v4(2), v4(3)]));
}

#[test]
fn a_killed_backend_is_tried_by_backoff_and_never_picked_until_it_is_back() {
    let mut fleet = fleet_of(1..=2);
    let start = fleet.now;
    fleet.kill(&v4(1));
    let mut attempts = vec![0];
    let until = start + 400_000 * MILLISECOND_NS;
    while fleet.step(until) {
        for line in fleet.take_log() {
            let (ms, what) = line.split_once(' ').unwrap();
            if what.starts_with("connect") {
                attempts.push(ms.parse::<u64>().unwrap() - start / MILLISECOND_NS);
            }
        }
        assert_eq!(served(&fleet), [v4(2)]);
    }
    let waits: Vec<u64> = attempts.windows(2).map(|w| w[1] - w[0]).collect();
    // From start to start of each attempt, up to the maximum; the first one is made at once.
    let want =
        [0, 1_000, 1_600, 2_560, 4_096, 6_553, 10_486, 16_777, 26_844, 42_949, 68_720, 109_951];
    assert_eq!(waits.len(), want.len(), "{waits:?}");
    for (got, want) in waits.iter().zip(want) {
        assert!(got.abs_diff(want) <= 1, "got {waits:?}");
    }
    fleet.set(v4(1), Backend::Up);
    fleet.run_ms(120_000);
    assert_eq!(served(&fleet), [v4(1), v4(2)]);
    fleet.kill(&v4(1));
    fleet.run_ms(999);
    fleet.set(v4(1), Backend::Up);
    fleet.run_ms(3);
    assert_eq!(served(&fleet), [v4(1), v4(2)], "a connection resets the backoff to 1 s");
}

#[test]
fn backoff_counts_from_the_start_of_the_attempt() {
    let mut fleet = Fleet::new("round_robin");
    fleet.set(v4(1), Backend::HangsForEver);
    fleet.update(&endpoints([1]));
    fleet.run_ms(19_999);
    fleet.take_log();
    fleet.run_ms(2);
    let log = fleet.take_log();
    assert!(log.contains(&"20000 connect 10.0.0.1:80".into()), "1 s is over long since: {log:?}");
}

#[test]
fn backoff_is_jittered_by_a_fifth() {
    let first_wait = |seed| {
        let mut fleet = Fleet::with(EngineOptions {
            seed,
            backoff: Backoff::default(),
            default_policy: policy("round_robin"),
        });
        fleet.update(&endpoints([1]));
        fleet.drive();
        fleet.engine.poll_timeout().unwrap() / MILLISECOND_NS
    };
    let waits: Vec<u64> = (0..500).map(first_wait).collect();
    let (min, max) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
    assert!((800..820).contains(&min) && (1_180..=1_200).contains(&max), "{min} to {max} ms");
}

#[test]
fn an_update_leaves_unchanged_endpoints_alone() {
    let mut fleet = fleet_of(1..=3);
    fleet.all_up([v4(4)]);
    fleet.update(&endpoints([4, 3, 2]));
    fleet.drive();
    let log: Vec<String> =
        fleet.take_log().iter().map(|line| line.split_once(' ').unwrap().1.into()).collect();
    assert_eq!(log, ["close 10.0.0.1:80", "connect 10.0.0.4:80"]);
    assert_eq!(served(&fleet), [v4(2), v4(3), v4(4)]);
}

#[test]
fn a_removed_endpoint_is_out_with_its_update() {
    let mut fleet = fleet_of(1..=3);
    fleet.update(&endpoints([2]));
    assert_eq!(served(&fleet), [v4(2)]);
    fleet.update(&endpoints([3]));
    assert_eq!(fleet.pick(), Picked::Queue, "3 was closed before and connects again");
    fleet.drive();
    assert_eq!(served(&fleet), [v4(3)]);
}

#[test]
fn an_empty_list_fails_calls_at_once() {
    let mut fleet = fleet_of(1..=2);
    fleet.update(&[]);
    assert_eq!(fleet.failure(), "Unavailable: the resolver found no endpoints");
    assert!(fleet.connected.is_empty());
    fleet.update(&endpoints([2]));
    assert_eq!(fleet.pick(), Picked::Queue);
    fleet.drive();
    assert_eq!(served(&fleet), [v4(2)]);
}

#[test]
fn a_failure_names_the_endpoints_and_the_last_error() {
    let mut fleet = Fleet::new("round_robin");
    fleet.update(&endpoints([7, 6]));
    fleet.drive();
    assert_eq!(
        fleet.failure(),
        "Unavailable: none of 2 endpoints can be reached (10.0.0.7:80, 10.0.0.6:80); \
         last error: 10.0.0.6:80 refused"
    );
    fleet.set(v4(7), Backend::HangsForEver);
    fleet.run_ms(21_000);
    assert!(fleet.failure().ends_with("last error: 10.0.0.7:80 timed out"), "the latest one");
    fleet.update(&endpoints(1..=100));
    fleet.run_ms(2);
    let failure = fleet.failure();
    assert!(failure.contains("none of 100 endpoints"), "{failure}");
    assert!(failure.contains("10.0.0.5:80 and 95 more)"), "{failure}");
}

#[test]
fn asks_the_resolver_when_a_connection_is_lost_and_when_an_endpoint_cannot_be_reached() {
    let mut fleet = fleet_of(1..=2);
    fleet.disconnect(&v4(1));
    let resolves =
        |fleet: &mut Fleet| fleet.take_log().iter().filter(|l| l.ends_with("resolve")).count();
    assert_eq!(resolves(&mut fleet), 1);
    fleet.kill(&v4(2));
    fleet.run_ms(2_000);
    assert_eq!(resolves(&mut fleet), 3, "lost, failed at once, failed after 1 s");
    for _ in 0..100 {
        fleet.update(&endpoints(1..=2));
    }
    assert_eq!(resolves(&mut fleet), 0, "an answer is not another question");
}

#[test]
fn an_expired_list_keeps_what_is_ready_and_drops_the_rest() {
    let mut fleet = Fleet::new("round_robin");
    fleet.all_up([v4(1), v4(2)]);
    fleet.set(v4(3), Backend::HangsForEver);
    fleet.update(&endpoints(1..=4));
    fleet.drive();
    fleet.take_log();
    fleet.resolver_error("the list is too old", true);
    assert_eq!(fleet.take_log().len(), 1, "the attempt at 3 is given up");
    assert_eq!(served(&fleet), [v4(1), v4(2)]);
    assert_eq!(fleet.engine.poll_timeout(), None, "and 4 is not tried again");
    fleet.disconnect(&v4(1));
    assert_eq!(served(&fleet), [v4(2)]);
    let attempts = fleet.attempts;
    fleet.disconnect(&v4(2));
    fleet.exit_idle();
    fleet.run_ms(100_000);
    assert_eq!(fleet.failure(), "Unavailable: the list is too old");
    assert_eq!(fleet.attempts, attempts, "not even for a moment");
    assert!(fleet.take_log().iter().all(|line| !line.contains("connect")));
    fleet.update(&endpoints(1..=2));
    fleet.drive();
    assert_eq!(served(&fleet), [v4(1), v4(2)]);
}

#[test]
fn a_resolver_error_leaves_the_last_list_in_use() {
    let mut fleet = fleet_of(1..=2);
    fleet.resolver_error("SERVFAIL", false);
    fleet.kill(&v4(1));
    fleet.run_ms(100);
    fleet.set(v4(1), Backend::Up);
    fleet.run_ms(1_000);
    assert_eq!(served(&fleet), [v4(1), v4(2)]);
    fleet.update(&[]);
    fleet.resolver_error("SERVFAIL", false);
    assert_eq!(fleet.failure(), "Unavailable: SERVFAIL");
}

#[test]
fn the_state_is_the_best_of_the_endpoints() {
    let mut fleet = Fleet::new("round_robin");
    fleet.set(v4(2), Backend::HangsUntil(1_500));
    fleet.update(&endpoints(1..=2));
    fleet.run_ms(2_000);
    fleet.kill(&v4(2));
    fleet.run_ms(5_000);
    let states: Vec<String> =
        fleet.take_log().into_iter().filter(|l| l.contains(char::is_uppercase)).collect();
    let want = ["0 CONNECTING", "1501 READY", "2000 CONNECTING", "2001 TRANSIENT_FAILURE"];
    assert_eq!(states, want, "and it stays there while the endpoints are tried again");
}

#[test]
fn a_dead_endpoint_beside_live_ones_causes_no_new_pickers() {
    let mut fleet = fleet_of(1..=3);
    fleet.kill(&v4(1));
    fleet.drive();
    let before = fleet.publishes;
    fleet.run_ms(300_000);
    assert_eq!(fleet.publishes, before);
    assert!(fleet.take_log().len() > 10, "though it was tried many times");
}

#[test]
fn a_thousand_endpoints_are_served_evenly() {
    let fleet = fleet_of(0..1_000);
    let shares = fleet.shares(100_000);
    assert_eq!(shares.len(), 1_000);
    assert!(shares.values().all(|n| *n == 100));
}
