//! What several rounds say together. A mean would let one round in which the machine did something
//! else speak for all; the median does not, and the least and greatest value show how far to
//! believe it.

use serde::Serialize;

/// A value that was measured in each round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// Of what each round measured; `None` without rounds, or when one is no number.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        if !(least.is_finite() && greatest.is_finite()) {
            return None;
        }
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), least, greatest })
    }
}

/// How often the range from the least to the greatest of `rounds` values holds the true median,
/// whatever their distribution is (the sign test): all of them lie on one side of it otherwise.
pub(crate) fn confidence(rounds: usize) -> f64 {
    1.0 - 2.0 * 0.5_f64.powi(i32::try_from(rounds).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_there_and_one_stray_round_does_not_move_it() {
        let of = |values: &[f64]| Spread::of(values.iter().copied()).unwrap();
        assert_eq!(of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, greatest: 3.0 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(of(&[5.0]), Spread { median: 5.0, least: 5.0, greatest: 5.0 });
        assert_eq!(of(&[1.0, 1.1, 0.9, 1.0, 900.0]).median, 1.0);
    }

    #[test]
    fn nothing_and_what_is_no_number_have_no_spread() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([1.0, f64::NAN]), None);
        assert_eq!(Spread::of([1.0, f64::INFINITY]), None);
        assert_eq!(Spread::of([f64::NEG_INFINITY, 1.0]), None);
    }

    #[test]
    fn seven_rounds_are_more_than_98_percent_and_five_are_less_than_95() {
        assert_eq!(confidence(7), 0.984375);
        assert_eq!(confidence(5), 0.9375);
    }
}
