//! How long calls took: all of them, since a run has some hundred thousand and a percentile of a
//! histogram would have its buckets' error.

use evenkeel_core::Nanos;

/// The times of calls that ended.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    ns: Vec<Nanos>,
}

impl Latencies {
    pub(crate) fn add(&mut self, ns: Nanos) {
        self.ns.push(ns);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ns.len()
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ns.is_empty()
    }

    /// The time within which this fraction (0 to 1) of the calls ended; `None` without calls.
    #[must_use]
    pub fn percentile(&self, fraction: f64) -> Option<Nanos> {
        let mut sorted = self.ns.clone();
        let index = (fraction * sorted.len() as f64).ceil() as usize;
        let index = index.clamp(1, sorted.len().max(1)) - 1;
        if sorted.is_empty() {
            return None;
        }
        Some(*sorted.select_nth_unstable(index).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_time_of_a_call() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(0.5), None);
        (1..=100).rev().for_each(|ns| latencies.add(ns));
        assert_eq!(latencies.percentile(0.5), Some(50));
        assert_eq!(latencies.percentile(0.99), Some(99));
        assert_eq!((latencies.percentile(0.0), latencies.percentile(1.0)), (Some(1), Some(100)));
    }
}
