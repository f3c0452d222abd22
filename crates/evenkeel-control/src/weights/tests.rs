//! The loop by hand, and in simulated time with the list that clients get and the policy that they
//! use: must help where a backend is slow, and stay calm.

use std::collections::BTreeMap;

use evenkeel_sim::{Backend, Channel, Simulation, Sums, address};

use super::*;
use crate::grpclb::{Entry, entries};

const SECOND: Nanos = 1_000_000_000;
const MS: Nanos = 1_000_000;

fn at(n: u16) -> SocketAddr {
    ([10, 0, 0, 1], n).into()
}

fn load(qps: f64, utilization: f64) -> Load {
    Load { qps, eps: 0.0, utilization }
}

fn settings() -> LoadAware {
    LoadAware { blackout_ns: 0, ..LoadAware::default() }
}

/// Two endpoints that have reported these weights at time 0.
fn two(first: f64, second: f64) -> Weights {
    let mut weights = Weights::new(settings());
    weights.report(0, at(1), &load(first, 1.0));
    weights.report(0, at(2), &load(second, 1.0));
    weights
}

#[test]
fn a_weight_is_what_the_backend_could_serve() {
    assert_eq!(load(100.0, 0.5).weight(1.0), Some(200.0));
    assert_eq!(load(50.0, 0.25).weight(1.0), Some(200.0), "whatever it gets");
    let failing = Load { qps: 100.0, eps: 50.0, utilization: 0.5 };
    assert_eq!(failing.weight(1.0), Some(100.0));
    assert_eq!(failing.weight(0.0), Some(200.0));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(load(bad, 0.5).weight(1.0), None, "{bad}");
        assert_eq!(load(100.0, bad).weight(1.0), None, "{bad}");
        let failing = Load { qps: 100.0, eps: bad, utilization: 0.5 };
        assert_eq!(failing.weight(1.0), Some(200.0), "{bad} errors are none");
    }
    assert_eq!(load(f64::MAX, f64::MIN_POSITIVE).weight(1.0), None);
}

#[test]
fn the_applications_word_is_preferred_to_the_cpus() {
    let mut report = evenkeel_proto::xds::data::orca::v3::OrcaLoadReport {
        cpu_utilization: 0.2,
        rps_fractional: 10.0,
        eps: 1.0,
        ..Default::default()
    };
    assert_eq!(Load::from(&report), Load { qps: 10.0, eps: 1.0, utilization: 0.2 });
    report.application_utilization = 0.9;
    assert_eq!(Load::from(&report).utilization, 0.9);
}

#[test]
fn factors_are_relative_to_the_mean_and_published_when_they_move() {
    let mut weights = two(100.0, 300.0);
    assert_eq!(weights.update(0), Some([(at(1), 10), (at(2), 30)].into()));
    assert_eq!(weights.update(0), None, "too early");
    assert_eq!(weights.update(10 * SECOND), None, "nothing has moved");
    for second in 10..60 {
        weights.report(second * SECOND, at(1), &load(300.0, 1.0));
    }
    let moved = weights.update(60 * SECOND).expect("it has moved");
    assert_eq!(moved, [(at(1), 20), (at(2), 20)].into());
}

#[test]
fn one_report_moves_little() {
    let mut weights = two(100.0, 100.0);
    assert_eq!(weights.update(0), None, "equal is what there is without weights");
    weights.report(SECOND, at(1), &load(1.0, 1.0));
    let moved = weights.update(10 * SECOND).expect("more than 5 per cent");
    assert!(moved[&at(1)] >= 17, "{moved:?}");
}

#[test]
fn none_gets_nothing_and_none_gets_all() {
    let mut weights = two(1.0, 1e9);
    weights.report(0, at(3), &load(1e9, 1.0));
    let factors = weights.update(0).expect("far apart");
    assert_eq!(factors[&at(1)], (FLOOR * f64::from(FACTOR_MEAN)) as u32);
    let ratio = f64::from(factors[&at(2)]) / f64::from(factors[&at(1)]);
    assert!(ratio <= RATIO_MAX, "{factors:?}");
}

#[test]
fn who_has_just_begun_or_says_nothing_has_the_mean() {
    let mut weights = Weights::new(LoadAware { blackout_ns: 10 * SECOND, ..settings() });
    for second in 0..=10 {
        weights.report(second * SECOND, at(1), &load(100.0, 1.0));
        weights.report(second * SECOND, at(2), &load(300.0, 1.0));
        assert_eq!(weights.update(second * SECOND).is_some(), second == 10, "{second}");
    }
    weights.report(10 * SECOND, at(3), &load(900.0, 1.0));
    weights.report(10 * SECOND, at(4), &load(0.0, 0.0));
    assert_eq!(weights.update(12 * SECOND), None, "at(3) is in its blackout, at(4) said nothing");

    // The reports of at(2) cease; in the end nobody can be compared.
    for second in 11..400 {
        weights.report(second * SECOND, at(1), &load(100.0, 1.0));
    }
    assert_eq!(weights.update(400 * SECOND), Some(Factors::new()));
    assert_eq!(weights.update(500 * SECOND), None);
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut weights = two(100.0, 300.0);
    assert!(weights.update(0).is_some());
    weights.retain(|address| *address != at(2));
    weights.report(SECOND, at(2), &load(100.0, 1.0));
    assert_eq!(weights.update(10 * SECOND), Some([(at(1), 20), (at(2), 20)].into()));
}

/// A fleet of ten with one at half speed: capacity 9.5, of which 75 % come as calls.
const FLEET: usize = 10;
const SLOW: usize = 3;
const CAPACITY: usize = 4;
const SERVICE_NS: Nanos = 20 * MS;
const CALLS_PER_S: f64 = 0.75 * 9.5 * 200.0;

fn fleet() -> Vec<Backend> {
    let service_ns = |index| if index == SLOW { 2 * SERVICE_NS } else { SERVICE_NS };
    (0..FLEET).map(|index| Backend::new(CAPACITY, service_ns(index))).collect()
}

/// The balancer of a simulation: reports in, lists out.
struct Balancer {
    weights: Weights,
    before: Vec<Sums>,
    lists: usize,
}

impl Balancer {
    fn new(settings: LoadAware) -> Self {
        let weights = Weights::new(settings);
        Self { weights, before: vec![Sums::default(); FLEET], lists: 0 }
    }

    /// Every backend reports its last second; a list is sent if the weights have moved.
    fn second(&mut self, simulation: &mut Simulation, channel: &mut Channel) {
        let now = simulation.now();
        for index in 0..FLEET {
            let sums = simulation.sums(index);
            let before = std::mem::replace(&mut self.before[index], sums);
            let (qps, utilization) = (sums.qps_since(&before), sums.utilization_since(&before));
            self.weights.report(now, address(index), &load(qps, utilization));
        }
        if let Some(factors) = self.weights.update(now) {
            self.send(now, channel, &factors);
        }
    }

    fn send(&mut self, now: Nanos, channel: &mut Channel, factors: &Factors) {
        let factor = |n| factors.get(&address(n)).copied().unwrap_or(FACTOR_MEAN);
        let weights: Vec<u32> = (0..FLEET).map(factor).collect();
        let list = entries(&weights, &[]).into_iter().filter_map(|entry| match entry {
            Entry::Endpoint(index) => Some(index),
            Entry::Drop(_) => None,
        });
        channel.list(now, list);
        self.lists += 1;
    }
}

/// What the second half of a run came to.
struct Run {
    p99: Nanos,
    /// Picks of each backend in each slot of 10 s.
    slots: Vec<BTreeMap<usize, u64>>,
    lists: usize,
}

fn play(settings: Option<LoadAware>, seed: u64) -> Run {
    let mut simulation = Simulation::new(fleet(), CALLS_PER_S, seed);
    let mut channel = Channel::grpclb(FLEET, seed);
    let mut balancer = Balancer::new(settings.unwrap_or_default());
    simulation.run(&mut channel, 10 * MS);
    balancer.send(simulation.now(), &mut channel, &Factors::new());
    simulation.run(&mut channel, 10 * MS);
    simulation.forget();
    let mut second = |simulation: &mut Simulation| {
        simulation.run(&mut channel, SECOND);
        if settings.is_some() {
            balancer.second(simulation, &mut channel);
        }
    };
    (0..60).for_each(|_| second(&mut simulation));
    let mut slots = Vec::new();
    let mut counted = BTreeMap::new();
    simulation.forget();
    for _ in 0..6 {
        (0..10).for_each(|_| second(&mut simulation));
        let all = simulation.picked().clone();
        let slot = all.iter().map(|(index, n)| (*index, n - counted.get(index).unwrap_or(&0)));
        slots.push(slot.collect());
        counted = all;
    }
    assert_eq!(simulation.without_backend(), 0);
    let p99 = simulation.latencies().percentile(0.99).expect("calls ended");
    Run { p99, slots, lists: balancer.lists }
}

#[test]
fn a_slow_backend_costs_the_tail_far_less_than_with_equal_weights() {
    for seed in [1, 2, 3] {
        let (equal, aware) = (play(None, seed), play(Some(LoadAware::default()), seed));
        let ratio = equal.p99 as f64 / aware.p99 as f64;
        println!("seed {seed}: p99 {} ms, not {} ms", aware.p99 / MS, equal.p99 / MS);
        assert!(ratio >= 1.5, "seed {seed}: only {ratio} times better");
        // Nor is it far from the best there is: nobody waits for long at 75 %.
        assert!(aware.p99 < 300 * MS, "seed {seed}: {} ms", aware.p99 / MS);
    }
}

#[test]
fn shares_do_not_swing() {
    for seed in [1, 2, 3] {
        let run = play(Some(LoadAware::default()), seed);
        for index in 0..FLEET {
            let counts: Vec<f64> = run.slots.iter().map(|slot| slot[&index] as f64).collect();
            let calls: f64 = run.slots.iter().flat_map(|slot| slot.values()).sum::<u64>() as f64;
            let share = counts.iter().sum::<f64>() / calls;
            let expected = if index == SLOW { 0.5 / 9.5 } else { 1.0 / 9.5 };
            let off = (share / expected - 1.0).abs();
            assert!(off < 0.1, "seed {seed}: backend {index} has {share}, not {expected}");
            for (slot, count) in run.slots.iter().zip(&counts) {
                let all = slot.values().sum::<u64>() as f64;
                let off = (count / all / share - 1.0).abs();
                assert!(off <= 0.1, "seed {seed}: backend {index} swings by {off}");
            }
        }
        assert!(run.lists < 40, "{} lists in 120 s", run.lists);
    }
}

#[test]
fn a_backend_that_recovers_gets_its_share_back() {
    let mut simulation = Simulation::new(fleet(), CALLS_PER_S, 5);
    let mut channel = Channel::grpclb(FLEET, 5);
    let mut balancer = Balancer::new(LoadAware::default());
    simulation.run(&mut channel, 10 * MS);
    balancer.send(simulation.now(), &mut channel, &Factors::new());
    for _ in 0..60 {
        simulation.run(&mut channel, SECOND);
        balancer.second(&mut simulation, &mut channel);
    }
    simulation.backend(SLOW).set_service_ns(SERVICE_NS);
    for _ in 0..30 {
        simulation.run(&mut channel, SECOND);
        balancer.second(&mut simulation, &mut channel);
    }
    simulation.forget();
    simulation.run(&mut channel, 10 * SECOND);
    let share =
        simulation.picked()[&SLOW] as f64 / simulation.picked().values().sum::<u64>() as f64;
    assert!((share - 0.1).abs() < 0.01, "{share}");
}

#[test]
fn settings_are_read_and_refused_by_name() {
    let read = |yaml: &str| serde_saphyr::from_str::<LoadAware>(yaml).map_err(|e| e.to_string());
    assert_eq!(read("{}"), Ok(LoadAware::default()));
    let got = read("{report_interval_s: 0.5, blackout_s: 0, error_penalty: 2}").expect("good");
    assert_eq!((got.report_interval_ns, got.blackout_ns), (SECOND / 2, 0));
    for (yaml, expected) in [
        ("{report_interval_s: 0}", "expected 0.01 to 86400 seconds, got 0"),
        ("{expiration_s: .nan}", "got NaN"),
        ("{error_penalty: -1}", "error_penalty: expected 0 to 1000, got -1"),
        ("{interval: 1}", "interval"),
    ] {
        let error = read(yaml).expect_err(yaml);
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}
