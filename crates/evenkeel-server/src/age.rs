//! The age that each new connection may reach. Without jitter, connections that were opened
//! together (a rollout, a restart of the clients) would be closed together for ever after.

use std::time::Duration;

use crate::config::AGE_JITTER;

/// Draws ages from one seeded generator, in the order in which connections are accepted.
pub(crate) struct Ages {
    base: Option<Duration>,
    rng: fastrand::Rng,
}

impl Ages {
    pub(crate) fn new(base: Option<Duration>, seed: Option<u64>) -> Self {
        let rng = seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self { base, rng }
    }

    /// The age of the next connection: the base ± 10 %, or `None` when connections have no age.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        let spread = 1.0 + AGE_JITTER * (2.0 * self.rng.f64() - 1.0);
        self.base.map(|base| base.mul_f64(spread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(10);

    fn draw(seed: u64) -> Vec<Duration> {
        let mut ages = Ages::new(Some(BASE), Some(seed));
        (0..1000).map(|_| ages.next().expect("there is an age")).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_ages() {
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn ages_spread_over_ten_percent_to_both_sides() {
        let ages = draw(7);
        let (min, max) = (ages.iter().min().expect("some"), ages.iter().max().expect("some"));
        assert!(*min >= Duration::from_secs(9) && *min < Duration::from_millis(9_100), "{min:?}");
        assert!(*max <= Duration::from_secs(11) && *max > Duration::from_millis(10_900), "{max:?}");
    }

    #[test]
    fn no_base_means_no_age() {
        assert_eq!(Ages::new(None, Some(7)).next(), None);
    }
}
