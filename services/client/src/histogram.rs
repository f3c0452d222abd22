//! Latencies in bounded memory. A vector of samples grows with the run (8 bytes a call, 700 MB a
//! day at 1,000 calls/s) and sorting it at the end stalls; a reservoir loses the tail, which is
//! what a load test is about. This is the log-linear idea of HdrHistogram
//! (<http://hdrhistogram.org>): exact to the microsecond below 256 µs, 128 buckets for each power
//! of two above.
//!
//! Error bound of a quantile: half a microsecond, or 1/256 (0.4 %) of the value, whichever is more.
//! Count, mean and maximum are exact. At most 7,424 counters (58 KiB), 2,688 for runs below a
//! minute.

use std::time::Duration;

/// Values below this many microseconds have a bucket each.
const EXACT_BELOW_US: u64 = 256;
/// Buckets for each power of two from there on.
const BUCKETS_PER_OCTAVE: u64 = EXACT_BELOW_US / 2;

/// Counts durations; see the head of the module for its error bound and its size.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum_ns: u128,
    max: Duration,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let us = (duration.as_nanos() + 500) / 1_000;
        let index = bucket(u64::try_from(us).unwrap_or(u64::MAX));
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
        self.count += 1;
        self.sum_ns += duration.as_nanos();
        self.max = self.max.max(duration);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The value of rank `q · (count − 1)`, rounded, in milliseconds; `None` when nothing was
    /// counted. `q` goes from 0 to 1.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let last = self.count.checked_sub(1)?;
        let rank = (q * last as f64).round() as u64;
        let mut seen = 0;
        let index = self.counts.iter().position(|n| {
            seen += n;
            seen > rank
        })?;
        // A bucket's middle may lie above the largest value in it.
        Some((middle_us(index) / 1e3).min(self.max.as_secs_f64() * 1e3))
    }

    /// What was counted after `earlier`, which is a copy of this one from then. The maximum is not
    /// told apart: it stays that of both.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let had = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(had);
        Self {
            counts: counts.map(|(now, had)| now.saturating_sub(had)).collect(),
            count: self.count.saturating_sub(earlier.count),
            sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns),
            max: self.max,
        }
    }

    /// The longest duration in milliseconds; `None` when nothing was counted.
    pub fn max_ms(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max.as_secs_f64() * 1e3)
    }

    /// The mean in milliseconds; `None` when nothing was counted.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64 / 1e6)
    }
}

/// The bucket of a value.
fn bucket(us: u64) -> usize {
    if us < EXACT_BELOW_US {
        return us as usize;
    }
    // The top eight bits choose the bucket; `shift` bits below them are dropped.
    let shift = u64::from(us.ilog2() + 1 - EXACT_BELOW_US.ilog2());
    let top = us >> shift;
    (EXACT_BELOW_US + (shift - 1) * BUCKETS_PER_OCTAVE + (top - BUCKETS_PER_OCTAVE)) as usize
}

/// The middle of a bucket's values, in microseconds.
fn middle_us(index: usize) -> f64 {
    let index = index as u64;
    if index < EXACT_BELOW_US {
        return index as f64;
    }
    let (octave, place) = (
        (index - EXACT_BELOW_US) / BUCKETS_PER_OCTAVE,
        (index - EXACT_BELOW_US) % BUCKETS_PER_OCTAVE,
    );
    let width = 2f64.powi(octave as i32 + 1);
    (BUCKETS_PER_OCTAVE + place) as f64 * width + (width - 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_us(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|us| histogram.record(Duration::from_micros(us)));
        histogram
    }

    #[test]
    fn what_came_since_a_copy_has_quantiles_of_its_own() {
        let mut histogram = of_us([100; 1_000]);
        let earlier = histogram.clone();
        assert_eq!(histogram.since(&earlier).quantile_ms(0.5), None);
        for us in [900, 30_000] {
            histogram.record(Duration::from_micros(us));
        }
        let since = histogram.since(&earlier);
        assert_eq!(since.count(), 2);
        assert!((since.quantile_ms(0.0).unwrap() - 0.9).abs() < 0.01);
        assert!((since.mean_ms().unwrap() - 15.45).abs() < 1e-9);
        assert_eq!(since.since(&since).count(), 0);
    }

    #[test]
    fn every_value_lies_within_the_error_bound_of_its_bucket() {
        let mut previous = 0;
        let mut us = 1u64;
        while us < u64::MAX / 3 {
            for value in [us - 1, us, us + us / 3] {
                let middle = middle_us(bucket(value));
                let bound = (value as f64 / 256.0).max(0.5);
                assert!((middle - value as f64).abs() <= bound, "{value} -> {middle}");
            }
            assert!(bucket(us) > previous || us < 2, "buckets are ordered at {us}");
            previous = bucket(us);
            us *= 2;
        }
        assert_eq!(bucket(u64::MAX), 7_423, "the size that the head of the module promises");
        assert!(bucket(60_000_000) < 2_688);
    }

    #[test]
    fn neighbouring_values_have_the_same_or_the_next_bucket() {
        for us in 0..100_000u64 {
            assert!(bucket(us + 1) - bucket(us) <= 1, "{us}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_samples() {
        let histogram = of_us((1..=200).rev());
        // The rank is round(q · 199), as in the peers.
        for (q, us) in [(0.0, 1.0), (0.5, 101.0), (0.9, 180.0), (0.99, 198.0), (1.0, 200.0)] {
            assert_eq!(histogram.quantile_ms(q), Some(us / 1e3), "{q}");
        }
        assert_eq!(histogram.max_ms(), Some(0.2));
        assert!((histogram.mean_ms().unwrap() - 0.1005).abs() < 1e-9);
    }

    #[test]
    fn quantiles_of_wide_samples_stay_within_the_bound() {
        let mut state = 7u64;
        let mut samples: Vec<u64> = (0..10_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % 10u64.pow((state >> 60) as u32 % 7 + 1)
            })
            .collect();
        let histogram = of_us(samples.iter().copied());
        samples.sort_unstable();
        for q in [0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = samples[(q * (samples.len() - 1) as f64).round() as usize] as f64;
            let got = histogram.quantile_ms(q).unwrap() * 1e3;
            assert!((got - exact).abs() <= (exact / 256.0).max(0.5) + 1e-6, "{q}: {got} {exact}");
        }
    }

    #[test]
    fn no_quantile_exceeds_the_maximum() {
        let histogram = of_us([1_000_001]);
        assert_eq!(histogram.quantile_ms(0.5), histogram.max_ms());
    }

    #[test]
    fn nothing_counted_has_no_quantile() {
        let histogram = Histogram::default();
        assert_eq!(
            (histogram.quantile_ms(0.5), histogram.max_ms(), histogram.mean_ms()),
            (None, None, None)
        );
    }
}
