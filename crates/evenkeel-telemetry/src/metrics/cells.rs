//! Numbers that many threads count in and one reads now and then. Each thread has a stripe, so that
//! callers do not fight for a cache line; a lock, or OpenTelemetry's own counters with a map behind
//! each, would cost more than a pick.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::available_parallelism,
};

/// Stripes at most; threads beyond share them.
const STRIPES_MAX: usize = 8;
/// Numbers that fill two cache lines, which processors fetch together.
const LINE: usize = 16;

/// Threads so far that counted.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

fn stripes() -> usize {
    static STRIPES: OnceLock<usize> = OnceLock::new();
    *STRIPES.get_or_init(|| {
        let threads = available_parallelism().map_or(STRIPES_MAX, usize::from);
        threads.min(STRIPES_MAX).next_power_of_two()
    })
}

/// A row of numbers, once for each stripe.
pub(super) struct Striped {
    cells: Box<[AtomicU64]>,
    /// From a number to the same one in the next stripe.
    stride: usize,
    /// Which bits of a thread's number say its stripe: there are a power of two.
    mask: usize,
}

impl Striped {
    pub(super) fn new(len: usize) -> Self {
        let (stride, stripes) = (len.next_multiple_of(LINE), stripes());
        let cells = (0..stride * stripes).map(|_| AtomicU64::new(0)).collect();
        Self { cells, stride, mask: stripes - 1 }
    }

    /// This thread's numbers.
    fn own(&self) -> &[AtomicU64] {
        let stripe = THREAD.with(|thread| *thread) & self.mask;
        &self.cells[stripe * self.stride..][..self.stride]
    }

    pub(super) fn add(&self, index: usize, count: u64) {
        self.own()[index].fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn sum(&self, index: usize) -> u64 {
        let cells = self.cells[index..].iter().step_by(self.stride);
        cells.map(|cell| cell.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// The upper bounds of a histogram's ranges, in whole steps of what is recorded.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) values: &'static [u64],
    /// Steps in one unit of the metric.
    pub(super) per_unit: f64,
}

impl Bounds {
    /// Numbers of a histogram: one range above the last bound, and the sum.
    fn cells(&self) -> usize {
        self.values.len() + 2
    }

    fn record(&self, cells: &[AtomicU64], value: u64) {
        let range = self.values.partition_point(|bound| *bound < value);
        cells[range].fetch_add(1, Ordering::Relaxed);
        cells[self.values.len() + 1].fetch_add(value, Ordering::Relaxed);
    }
}

/// How many values were in which range, and their sum: of `N` things that are recorded together,
/// one behind the other in each stripe.
pub(super) struct Histograms<const N: usize> {
    bounds: [&'static Bounds; N],
    cells: Striped,
}

impl<const N: usize> Histograms<N> {
    pub(super) fn new(bounds: [&'static Bounds; N]) -> Self {
        Self { bounds, cells: Striped::new(bounds.iter().map(|bounds| bounds.cells()).sum()) }
    }

    pub(super) fn record(&self, values: [u64; N]) {
        let mut cells = self.cells.own();
        for (bounds, value) in self.bounds.iter().zip(values) {
            bounds.record(cells, value);
            cells = &cells[bounds.cells()..];
        }
    }

    /// Of the thing at this index.
    pub(super) fn read(&self, which: usize) -> Distribution {
        let Bounds { values, per_unit } = self.bounds[which];
        let begin: usize = self.bounds[..which].iter().map(|bounds| bounds.cells()).sum();
        let counts = (0..=values.len()).map(|range| self.cells.sum(begin + range)).collect();
        let sum = self.cells.sum(begin + values.len() + 1) as f64 / per_unit;
        let bounds = values.iter().map(|bound| *bound as f64 / per_unit).collect();
        Distribution { bounds, counts, sum }
    }
}

/// What a histogram has seen so far.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Distribution {
    /// The upper bounds of the ranges, which include them; above the last is one more range.
    pub bounds: Vec<f64>,
    /// Values in each range.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
}

impl Distribution {
    /// Both together: they have the same bounds.
    pub(super) fn plus(mut self, other: Self) -> Self {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
        self
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::instruments::{LATENCY, SIZE};

    #[test]
    fn a_bound_is_in_the_range_below_it() {
        let histograms = Histograms::new([&SIZE]);
        for value in [0, 1, 1024, 1025, u64::from(u32::MAX) + 1, u64::from(u32::MAX) + 2] {
            histograms.record([value]);
        }
        let seen = histograms.read(0);
        assert_eq!(seen.counts, [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(seen.count(), 6);
        assert_eq!(seen.sum, 8_589_934_592.0 + 2_050.0 + 1.0);
    }

    #[test]
    fn things_that_are_recorded_together_stay_apart() {
        let histograms = Histograms::new([&LATENCY, &SIZE, &SIZE]);
        histograms.record([u64::MAX, 0, 5]);
        histograms.record([0, 7, u64::MAX]);
        let [times, small, large] = [0, 1, 2].map(|which| histograms.read(which));
        assert_eq!((times.counts[0], times.counts[41], times.count()), (1, 1, 2));
        assert_eq!((&small.counts[..2], small.count(), small.sum), (&[1, 1][..], 2, 7.0));
        assert_eq!((large.counts[1], large.counts[14], large.count()), (1, 1, 2));
    }

    #[test]
    fn bounds_of_times_are_a66s_decimals_exactly() {
        let bounds = Histograms::new([&LATENCY]).read(0).bounds;
        assert_eq!(bounds[..5], [0.0, 0.00001, 0.00005, 0.0001, 0.0003]);
        assert_eq!(bounds[32..36], [0.65, 0.8, 1.0, 2.0]);
        assert_eq!(bounds.len(), 41);
        assert!(bounds.is_sorted());
    }

    #[test]
    fn what_threads_count_adds_up() {
        let cells = Striped::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES_MAX {
                scope.spawn(|| (0..1_000).for_each(|_| cells.add(2, 1)));
            }
        });
        assert_eq!((cells.sum(0), cells.sum(2)), (0, 16_000));
    }
}
