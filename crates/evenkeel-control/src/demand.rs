//! Services that nobody configured and somebody asked for, in namespaces that are served as a
//! whole. They come with the first client and go when they have had none for a while, or do not
//! exist: a typing error must not be watched for ever. Without clock: `now` comes in.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::key::ServiceKey;

/// The most services that are there because they were asked for.
pub const ON_DEMAND_MAX: usize = 500;
/// How long one without clients is kept.
pub const ON_DEMAND_IDLE: Duration = Duration::from_secs(600);
/// How long it is remembered that one does not exist.
pub const ABSENT_TIME: Duration = Duration::from_secs(10);
/// The most that are remembered not to exist.
const ABSENT_MAX: usize = 1_000;

/// Why a service is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It did not exist a moment ago.
    Absent,
    /// There are too many.
    TooMany,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Each with the time from which it had no clients.
    present: BTreeMap<ServiceKey, Option<Instant>>,
    absent: BTreeMap<ServiceKey, Instant>,
}

impl Demand {
    /// Somebody asks; true when it is new.
    pub(crate) fn add(&mut self, key: &ServiceKey, now: Instant) -> Result<bool, Refused> {
        self.absent.retain(|_, since| now.saturating_duration_since(*since) < ABSENT_TIME);
        if self.absent.contains_key(key) {
            return Err(Refused::Absent);
        }
        if let Some(idle) = self.present.get_mut(key) {
            *idle = None;
            return Ok(false);
        }
        if self.present.len() >= ON_DEMAND_MAX {
            return Err(Refused::TooMany);
        }
        self.present.insert(key.clone(), None);
        Ok(true)
    }

    /// It does not exist; true when it was here.
    pub(crate) fn is_absent(&mut self, key: &ServiceKey, now: Instant) -> bool {
        let was_here = self.present.remove(key).is_some();
        if was_here {
            if self.absent.len() >= ABSENT_MAX {
                self.absent.pop_first();
            }
            self.absent.insert(key.clone(), now);
        }
        was_here
    }

    /// Takes those out that have had no clients for long; true when there were some.
    pub(crate) fn sweep(&mut self, now: Instant, is_used: impl Fn(&ServiceKey) -> bool) -> bool {
        let before = self.present.len();
        self.present.retain(|key, idle| {
            if is_used(key) {
                *idle = None;
                return true;
            }
            let since = *idle.get_or_insert(now);
            now.saturating_duration_since(since) < ON_DEMAND_IDLE
        });
        self.present.len() < before
    }

    /// Those that are here.
    pub(crate) fn keys(&self) -> BTreeSet<ServiceKey> {
        self.present.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ServiceKey {
        ServiceKey::parse(&format!("s{n}"), "default").expect("a key")
    }

    #[test]
    fn they_go_when_nobody_has_used_them_for_long() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        assert_eq!(demand.add(&key(1), now), Ok(true));
        assert_eq!(demand.add(&key(1), now), Ok(false));
        assert!(!demand.sweep(now, |_| false));
        assert!(!demand.sweep(now + ON_DEMAND_IDLE / 2, |_| true), "used again");
        assert!(!demand.sweep(now + ON_DEMAND_IDLE, |_| false));
        assert!(!demand.sweep(now + ON_DEMAND_IDLE * 2 - Duration::from_secs(1), |_| false));
        assert!(demand.sweep(now + ON_DEMAND_IDLE * 2, |_| false));
        assert_eq!(demand.keys(), [].into());
    }

    #[test]
    fn what_does_not_exist_is_not_looked_for_at_once_again() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        assert!(!demand.is_absent(&key(1), now), "it was configured, perhaps");
        demand.add(&key(1), now).expect("new");
        assert!(demand.is_absent(&key(1), now));
        assert_eq!(demand.add(&key(1), now), Err(Refused::Absent));
        assert_eq!(demand.add(&key(1), now + ABSENT_TIME), Ok(true));
    }

    #[test]
    fn there_are_limits() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        for n in 0..ON_DEMAND_MAX {
            assert_eq!(demand.add(&key(n), now), Ok(true));
        }
        assert_eq!(demand.add(&key(ON_DEMAND_MAX), now), Err(Refused::TooMany));
        for n in 0..2 * ABSENT_MAX {
            let _ = demand.add(&key(n), now);
            demand.is_absent(&key(n), now);
        }
        assert!(demand.absent.len() <= ABSENT_MAX);
    }
}
