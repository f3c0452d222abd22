//! A backend: so many calls at once, each for a random time, and a line for the others.

use std::collections::VecDeque;

use evenkeel_core::{Nanos, SECOND_NS};

/// Calls in one backend's line; one more is refused.
pub const WAITING_MAX: usize = 100_000;

/// A queue with servers (M/M/c, where calls come at random).
#[derive(Clone, Debug)]
pub struct Backend {
    /// Calls that are worked on at once.
    capacity: usize,
    /// How long a call takes on average.
    service_ns: Nanos,
    /// When the calls in line came.
    waiting: VecDeque<Nanos>,
    working: usize,
    sums: Sums,
}

/// What a backend has done up to a moment; two of them give rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// The moment.
    pub at: Nanos,
    /// Calls that ended.
    pub finished: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// The time that calls were worked on, added up.
    pub busy_ns: u128,
    /// Servers of the backend.
    pub capacity: usize,
}

impl Sums {
    /// Calls a second that ended since `before`; 0 when no time has passed.
    #[must_use]
    pub fn qps_since(&self, before: &Self) -> f64 {
        let span_ns = self.at.saturating_sub(before.at);
        if span_ns == 0 {
            return 0.0;
        }
        (self.finished - before.finished) as f64 * SECOND_NS as f64 / span_ns as f64
    }

    /// The share of the servers that was busy since `before`, 0 to 1.
    #[must_use]
    pub fn utilization_since(&self, before: &Self) -> f64 {
        let span_ns = self.at.saturating_sub(before.at) as f64 * self.capacity as f64;
        if span_ns > 0.0 { (self.busy_ns - before.busy_ns) as f64 / span_ns } else { 0.0 }
    }
}

impl Backend {
    /// `capacity` calls at once, each of `service_ns` on average (exponentially distributed).
    #[must_use]
    pub fn new(capacity: usize, service_ns: Nanos) -> Self {
        let sums = Sums { capacity, ..Sums::default() };
        Self { capacity, service_ns, waiting: VecDeque::new(), working: 0, sums }
    }

    /// Calls from now on take this long on average.
    pub fn set_service_ns(&mut self, service_ns: Nanos) {
        self.service_ns = service_ns;
    }

    /// Calls in line and at work.
    #[must_use]
    pub fn load(&self) -> usize {
        self.waiting.len() + self.working
    }

    /// What it has done up to `now`.
    pub fn sums(&mut self, now: Nanos) -> Sums {
        self.advance(now);
        self.sums
    }

    fn advance(&mut self, now: Nanos) {
        let span_ns = now.saturating_sub(self.sums.at);
        self.sums.busy_ns += u128::from(span_ns) * self.working as u128;
        self.sums.at = self.sums.at.max(now);
    }

    /// A call comes. `Some`: it begins at once, and takes so long.
    pub(crate) fn arrive(&mut self, now: Nanos, rng: &mut fastrand::Rng) -> Option<Nanos> {
        self.advance(now);
        if self.working < self.capacity {
            self.working += 1;
            return Some(self.service(rng));
        }
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(now);
        } else {
            self.sums.refused += 1;
        }
        None
    }

    /// A call ends. `Some`: the next in line, which came then, begins and takes so long.
    pub(crate) fn finish(&mut self, now: Nanos, rng: &mut fastrand::Rng) -> Option<(Nanos, Nanos)> {
        self.advance(now);
        self.sums.finished += 1;
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.working -= 1;
        }
        next.map(|came| (came, self.service(rng)))
    }

    fn service(&self, rng: &mut fastrand::Rng) -> Nanos {
        exponential(self.service_ns as f64, rng)
    }
}

/// A random time with this mean, at least 1 ns.
pub(crate) fn exponential(mean_ns: f64, rng: &mut fastrand::Rng) -> Nanos {
    // 1 - f64() is in (0, 1], so that the logarithm is finite.
    (-(1.0 - rng.f64()).ln() * mean_ns).max(1.0) as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_beyond_the_capacity_wait_and_time_is_counted() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backend = Backend::new(2, 10);
        let before = backend.sums(0);
        assert!(backend.arrive(0, &mut rng).is_some() && backend.arrive(0, &mut rng).is_some());
        assert_eq!(backend.arrive(SECOND_NS / 2, &mut rng), None);
        assert_eq!(backend.load(), 3);
        let (came, _) = backend.finish(SECOND_NS, &mut rng).expect("one waits");
        assert_eq!(came, SECOND_NS / 2);
        assert_eq!(backend.finish(SECOND_NS, &mut rng), None);
        let after = backend.sums(2 * SECOND_NS);
        assert_eq!(after.qps_since(&before), 1.0);
        assert_eq!(after.utilization_since(&before), 0.75);
        assert_eq!((after.qps_since(&after), after.utilization_since(&after)), (0.0, 0.0));
    }

    #[test]
    fn random_times_have_their_mean() {
        let mut rng = fastrand::Rng::with_seed(1);
        let sum: Nanos = (0..10_000).map(|_| exponential(1e6, &mut rng)).sum();
        let mean = sum as f64 / 1e4;
        assert!((0.95e6..1.05e6).contains(&mean), "{mean}");
    }
}
