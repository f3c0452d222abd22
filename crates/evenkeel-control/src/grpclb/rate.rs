//! How often a client may report: it was told an interval, and a client that does not keep to it is
//! counted, one that floods is cut off. A bucket of reports that fills with time.

use std::time::Duration;

use tokio::time::Instant;

/// How much faster than agreed a client may report for long.
pub const STATS_RATE_FACTOR_MAX: u32 = 10;
/// Reports that may come at once.
pub const STATS_BURST: u32 = 20;
/// The interval that counts where no reports were asked for.
const UNASKED_INTERVAL: Duration = Duration::from_secs(10);

/// What to think of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Good,
    /// Well before its time.
    Early,
    /// Too much.
    Flood,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    last: Option<Instant>,
    /// In reports.
    level: f64,
}

impl Bucket {
    /// For reports at this interval; zero: none.
    pub(super) fn new(interval: Duration) -> Self {
        let interval = if interval.is_zero() { UNASKED_INTERVAL } else { interval };
        Self { interval, last: None, level: f64::from(STATS_BURST) }
    }

    /// A report came.
    pub(super) fn take(&mut self, now: Instant) -> Pace {
        let since = self.last.map(|last| now.saturating_duration_since(last));
        self.last = Some(now);
        if let Some(since) = since {
            let gained = since.div_duration_f64(self.interval) * f64::from(STATS_RATE_FACTOR_MAX);
            self.level = (self.level + gained).min(f64::from(STATS_BURST));
        }
        if self.level < 1.0 {
            return Pace::Flood;
        }
        self.level -= 1.0;
        match since {
            Some(since) if since < self.interval / 2 => Pace::Early,
            _ => Pace::Good,
        }
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
        assert_eq!(paces[0], Pace::Good);
        assert!(paces[1..].iter().all(|pace| *pace == Pace::Early));
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
