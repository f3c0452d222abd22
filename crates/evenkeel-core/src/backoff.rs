//! Exponential backoff between connection attempts
//! (<https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md>).

use crate::{Nanos, SECOND_NS};

/// How the wait before the next attempt grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Wait after the first failure, in nanoseconds.
    pub initial_ns: Nanos,
    /// Factor from one wait to the next, at least 1.
    pub multiplier: f64,
    /// Each wait is drawn evenly from ± this fraction of itself, 0 to 1.
    pub jitter: f64,
    /// The longest wait before jitter, in nanoseconds.
    pub max_ns: Nanos,
}

impl Default for Backoff {
    /// gRPC's numbers: 1 s × 1.6 ± 20 % up to 120 s.
    fn default() -> Self {
        Self { initial_ns: SECOND_NS, multiplier: 1.6, jitter: 0.2, max_ns: 120 * SECOND_NS }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 for the first), in nanoseconds.
    pub fn wait_ns(&self, failures: u32, rng: &mut fastrand::Rng) -> Nanos {
        let exponent = failures.saturating_sub(1).min(1_000) as i32;
        // Kept finite, as 0 × ∞ is no number.
        let factor = self.multiplier.max(1.0).powi(exponent).min(f64::MAX);
        let grown = self.initial_ns as f64 * factor;
        let base = grown.min(self.max_ns as f64);
        let spread = 1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * rng.f64() - 1.0);
        (base * spread) as Nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_the_multiplier_up_to_the_maximum() {
        let b = Backoff { jitter: 0.0, ..Backoff::default() };
        let mut rng = fastrand::Rng::with_seed(1);
        let waits: Vec<Nanos> = [1, 2, 3, 30, u32::MAX].map(|n| b.wait_ns(n, &mut rng)).into();
        let s = SECOND_NS;
        assert_eq!(waits, [s, 16 * s / 10, 2_560_000_000, 120 * s, 120 * s]);
    }

    #[test]
    fn a_first_wait_of_nothing_stays_nothing() {
        let b = Backoff { initial_ns: 0, multiplier: f64::MAX, ..Backoff::default() };
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!([1, 2, 3, 1_000].map(|n| b.wait_ns(n, &mut rng)), [0; 4]);
    }

    #[test]
    fn jitter_stays_within_its_fraction_and_uses_all_of_it() {
        let b = Backoff::default();
        let mut rng = fastrand::Rng::with_seed(7);
        let waits: Vec<Nanos> = (0..10_000).map(|_| b.wait_ns(1, &mut rng)).collect();
        let (min, max) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
        assert!((800_000_000..805_000_000).contains(&min), "{min}");
        assert!((1_195_000_000..=1_200_000_000).contains(&max), "{max}");
    }
}
