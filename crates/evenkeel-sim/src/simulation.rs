//! The run: calls come at random, are picked for, wait and are worked on, all in the order of time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use evenkeel_core::{Nanos, SECOND_NS};

use crate::{
    backend::{Backend, Sums, exponential},
    channel::{Channel, Picked, finished},
    latencies::Latencies,
};

/// Backends, the calls in them, and what came of those that ended.
pub struct Simulation {
    now: Nanos,
    rng: fastrand::Rng,
    backends: Vec<Backend>,
    /// Of all calls together.
    calls_per_s: f64,
    next_call: Nanos,
    /// Ends of calls: when, an ordinal so that equal times have an order, where, and when it came.
    ends: BinaryHeap<Reverse<(Nanos, u64, usize, Nanos)>>,
    ordinal: u64,
    latencies: Latencies,
    picked: BTreeMap<usize, u64>,
    without_backend: u64,
}

impl Simulation {
    /// Calls come as a Poisson process of this rate, from time 0 on.
    #[must_use]
    pub fn new(backends: impl IntoIterator<Item = Backend>, calls_per_s: f64, seed: u64) -> Self {
        Self {
            now: 0,
            rng: fastrand::Rng::with_seed(seed),
            backends: backends.into_iter().collect(),
            calls_per_s,
            next_call: 0,
            ends: BinaryHeap::new(),
            ordinal: 0,
            latencies: Latencies::default(),
            picked: BTreeMap::new(),
            without_backend: 0,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Lets this much time pass.
    pub fn run(&mut self, channel: &mut Channel, span_ns: Nanos) {
        let until = self.now + span_ns;
        loop {
            let end = self.ends.peek().map(|Reverse((at, ..))| *at);
            let next = end.map_or(self.next_call, |end| end.min(self.next_call));
            if next > until {
                break;
            }
            self.now = next;
            if end == Some(next) {
                self.end();
            } else {
                self.call(channel);
            }
        }
        self.now = until;
        channel.run(until);
    }

    fn end(&mut self) {
        let Some(Reverse((at, _, index, came))) = self.ends.pop() else { return };
        self.latencies.add(at - came);
        if let Some((came, service_ns)) = self.backends[index].finish(at, &mut self.rng) {
            self.begin(index, came, service_ns);
        }
    }

    fn call(&mut self, channel: &mut Channel) {
        let mean_ns = SECOND_NS as f64 / self.calls_per_s;
        self.next_call = self.now + exponential(mean_ns, &mut self.rng);
        let Picked::Backend(index, on_complete) = channel.pick(self.now) else {
            self.without_backend += 1;
            return;
        };
        // No policy here listens to how long calls take; it may be told at once.
        finished(on_complete);
        *self.picked.entry(index).or_default() += 1;
        if let Some(service_ns) = self.backends[index].arrive(self.now, &mut self.rng) {
            self.begin(index, self.now, service_ns);
        }
    }

    fn begin(&mut self, index: usize, came: Nanos, service_ns: Nanos) {
        self.ordinal += 1;
        self.ends.push(Reverse((self.now + service_ns, self.ordinal, index, came)));
    }

    /// What backend `index` has done so far.
    pub fn sums(&mut self, index: usize) -> Sums {
        self.backends[index].sums(self.now)
    }

    /// Backend `index`, to change it.
    pub fn backend(&mut self, index: usize) -> &mut Backend {
        &mut self.backends[index]
    }

    /// The times of the calls that ended, since [`Simulation::forget`].
    #[must_use]
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// How often each backend was picked since [`Simulation::forget`].
    #[must_use]
    pub fn picked(&self) -> &BTreeMap<usize, u64> {
        &self.picked
    }

    /// Calls for which there was no backend, since [`Simulation::forget`].
    #[must_use]
    pub fn without_backend(&self) -> u64 {
        self.without_backend
    }

    /// Forgets what was counted; what runs, runs on.
    pub fn forget(&mut self) {
        self.latencies = Latencies::default();
        self.picked.clear();
        self.without_backend = 0;
    }
}
