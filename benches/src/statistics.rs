//! Medians of paired ratios with an interval that assumes nothing of their distribution.

use serde::Serialize;

/// A median and the interval that holds the true one with at least 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// How often such an interval holds the true median, 0 to 1. Below 0.95 there were too few
    /// rounds: six are the least.
    pub confidence: f64,
}

impl Estimate {
    /// The sign interval (order statistics under the binomial with p = ½): the narrowest symmetric
    /// one with at least 95 %, or all there is. `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (n, last) = (sorted.len(), sorted.len().checked_sub(1)?);
        let mut cut = 0;
        while 2 * (cut + 1) < n && confidence(n, cut + 1) >= 0.95 {
            cut += 1;
        }
        Some(Self {
            median: (sorted[last / 2] + sorted[n / 2]) / 2.0,
            low: sorted[cut],
            high: sorted[last - cut],
            confidence: confidence(n, cut),
        })
    }

    /// Of the ratios of values that were measured in the same round.
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }
}

/// How often the true median is between the values of rank `cut` from below and from above, of `n`.
fn confidence(n: usize, cut: usize) -> f64 {
    let half_to_n = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let (mut term, mut outside) = (half_to_n, 0.0);
    for k in 0..=cut {
        outside += 2.0 * term;
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    1.0 - outside
}

/// The value in the middle, or the mean of the two there; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    Estimate::of(values).map_or(0.0, |e| e.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_narrowest_with_95_percent() {
        let values = |n: u32| (1..=n).map(f64::from).collect::<Vec<_>>();
        let bounds = |n| Estimate::of(&values(n)).map(|e| (e.low, e.median, e.high)).unwrap();
        // The ranks of the usual tables of the sign test.
        assert_eq!(bounds(6), (1.0, 3.5, 6.0));
        assert_eq!(bounds(7), (1.0, 4.0, 7.0));
        assert_eq!(bounds(9), (2.0, 5.0, 8.0));
        assert_eq!(bounds(15), (4.0, 8.0, 12.0));
    }

    #[test]
    fn too_few_rounds_say_so() {
        let confidence = |n: usize| Estimate::of(&vec![1.0; n]).unwrap().confidence;
        assert_eq!((confidence(5), confidence(6)), (0.9375, 0.96875));
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let estimate = Estimate::of_ratios(&[1.0, 20.0, 300.0], &[2.0, 40.0, 600.0]).unwrap();
        assert_eq!((estimate.low, estimate.median, estimate.high), (0.5, 0.5, 0.5));
    }
}
