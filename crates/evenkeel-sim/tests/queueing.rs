//! The simulator against theory: what is known of queues must come out, or nothing that it says of
//! policies is worth anything.

use evenkeel_core::{MILLISECOND_NS, SECOND_NS};
use evenkeel_sim::{Backend, Channel, Simulation};

fn run(backend: &Backend, backends: usize, calls_per_s: f64, seed: u64) -> Simulation {
    let all = std::iter::repeat_n(backend.clone(), backends);
    let mut simulation = Simulation::new(all, calls_per_s, seed);
    let mut channel = Channel::round_robin(backends, seed);
    // The connections, and the queue's own balance.
    simulation.run(&mut channel, 5 * SECOND_NS);
    simulation.forget();
    simulation.run(&mut channel, 300 * SECOND_NS);
    simulation
}

#[test]
fn one_server_has_the_percentiles_of_m_m_1() {
    // At half load the time in the system is exponential with mean 10 ms / (1 - 0.5).
    let simulation = run(&Backend::new(1, 10 * MILLISECOND_NS), 1, 50.0, 1);
    for fraction in [0.5f64, 0.9, 0.99] {
        let expected = -(1.0 - fraction).ln() * 20e6;
        let got = simulation.latencies().percentile(fraction).expect("calls") as f64;
        assert!((got / expected - 1.0).abs() < 0.12, "{fraction}: {got}, not {expected}");
    }
}

#[test]
fn utilization_is_load_over_capacity() {
    let mut simulation = run(&Backend::new(4, 10 * MILLISECOND_NS), 3, 600.0, 2);
    for index in 0..3 {
        let sums = simulation.sums(index);
        let utilization = sums.utilization_since(&Default::default());
        let qps = sums.qps_since(&Default::default());
        assert!((utilization - 0.5).abs() < 0.02, "{index}: {utilization}");
        assert!((qps - 200.0).abs() < 6.0, "{index}: {qps}");
    }
}

#[test]
fn round_robin_is_exact_and_loses_nothing() {
    let simulation = run(&Backend::new(4, 10 * MILLISECOND_NS), 3, 300.0, 3);
    let counts: Vec<u64> = simulation.picked().values().copied().collect();
    assert_eq!(counts.len(), 3);
    assert!(counts.iter().max().zip(counts.iter().min()).is_some_and(|(a, b)| a - b <= 1));
    assert_eq!(simulation.without_backend(), 0);
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let p99 = |seed| {
        let simulation = run(&Backend::new(2, 10 * MILLISECOND_NS), 2, 200.0, seed);
        (simulation.latencies().percentile(0.99), simulation.latencies().len())
    };
    assert_eq!(p99(7), p99(7));
    assert_ne!(p99(7), p99(8));
}
