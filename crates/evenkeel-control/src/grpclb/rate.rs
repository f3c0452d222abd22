//! How often a client may report: it was told an interval, and a client that does not keep to it is
//! counted, one that floods is cut off. Two buckets of reports that fill with time; one report that
//! comes early is none too many, because a client that ends says its last word when it ends.

use std::time::Duration;

use tokio::time::Instant;

/// How much faster than agreed a client may report for long.
pub const STATS_RATE_FACTOR_MAX: u32 = 10;
/// Reports that may come at once.
pub const STATS_BURST: u32 = 20;
/// How much faster than agreed a client reports for long before it is counted, and how many reports
/// may come early before that: clocks and machines are not exact.
const EARLY_FACTOR: f64 = 1.25;
const EARLY_BURST: f64 = 3.0;
/// The interval that counts where no reports were asked for.
const UNASKED_INTERVAL: Duration = Duration::from_secs(10);

/// What to think of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Good,
    /// Not the first before its time.
    Early,
    /// Too much.
    Flood,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    last: Option<Instant>,
    /// In reports, until it is a flood.
    level: f64,
    /// In reports, until they are too early.
    early: f64,
}

impl Bucket {
    /// For reports at this interval; zero: none.
    pub(crate) fn new(interval: Duration) -> Self {
        let interval = if interval.is_zero() { UNASKED_INTERVAL } else { interval };
        Self { interval, last: None, level: f64::from(STATS_BURST), early: EARLY_BURST }
    }

    /// A report came.
    pub(crate) fn take(&mut self, now: Instant) -> Pace {
        let since = self.last.map(|last| now.saturating_duration_since(last));
        self.last = Some(now);
        let intervals = since.map_or(0.0, |since| since.div_duration_f64(self.interval));
        let gained = intervals * f64::from(STATS_RATE_FACTOR_MAX);
        self.level = (self.level + gained).min(f64::from(STATS_BURST));
        self.early = (self.early + intervals * EARLY_FACTOR).min(EARLY_BURST);
        if self.level < 1.0 {
            return Pace::Flood;
        }
        self.level -= 1.0;
        if self.early < 1.0 {
            return Pace::Early;
        }
        self.early -= 1.0;
        Pace::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn run(apart: Duration, reports: u32) -> Vec<Pace> {
        let (mut bucket, begun) = (Bucket::new(INTERVAL), Instant::now());
        (0..reports).map(|n| bucket.take(begun + apart * n)).collect()
    }

    #[test]
    fn who_keeps_to_the_interval_is_never_too_fast() {
        assert!(run(INTERVAL, 1000).iter().all(|pace| *pace == Pace::Good));
    }

    #[test]
    fn five_times_too_fast_is_counted_and_goes_on() {
        let paces = run(INTERVAL / 5, 1000);
        assert!(!paces.contains(&Pace::Flood));
        let early = paces.iter().filter(|pace| **pace == Pace::Early).count();
        assert!((700..800).contains(&early), "{early}");
    }

    #[test]
    fn one_that_comes_early_is_none_too_many() {
        let (mut bucket, begun) = (Bucket::new(INTERVAL), Instant::now());
        for at_ms in [1000, 2000, 2900, 4100, 4950, 6000, 6010] {
            let now = begun + Duration::from_millis(at_ms);
            assert_eq!(bucket.take(now), Pace::Good, "{at_ms}");
        }
    }

    #[test]
    fn a_flood_ends_after_its_burst() {
        let paces = run(Duration::ZERO, 100);
        let flood = paces.iter().position(|pace| *pace == Pace::Flood);
        assert_eq!(flood, Some(STATS_BURST as usize));
        let slower = run(INTERVAL / 20, 100);
        assert!(slower.contains(&Pace::Flood), "20 times too fast");
    }

    #[test]
    fn who_was_not_asked_may_still_send_some() {
        let mut bucket = Bucket::new(Duration::ZERO);
        assert_eq!(bucket.take(Instant::now()), Pace::Good);
    }
}
