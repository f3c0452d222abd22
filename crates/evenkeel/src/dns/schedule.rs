//! When a name is looked up next, and what channels are told of the last look-up. No clock, no
//! socket, no randomness of its own: these rules are about minutes, and are tested with numbers.
//! (`tokio::time::pause` would do for timers alone, but not while real sockets are pending.)

use std::{future::Future, net::IpAddr, time::Duration};

use evenkeel_core::{MILLISECOND_NS, Nanos};

use super::DnsOptions;

/// Below this a name that is published with TTL 0 would keep a core and a DNS server busy.
const INTERVAL_FLOOR_NS: Nanos = 10 * MILLISECOND_NS;

/// A look-up at TTL expiry comes later by up to this part of the interval, so that clients that
/// started together spread …
const TTL_JITTER: f64 = 0.1;
/// … and by at most this, so that a new backend is used within TTL + 1 s.
const TTL_JITTER_MAX_NS: Nanos = 500 * MILLISECOND_NS;

/// From one failed look-up to the next the wait grows by this factor, as gRPC's backoff does.
const BACKOFF_FACTOR: f64 = 1.6;
/// Each of those waits is longer by up to this part.
const BACKOFF_JITTER: f64 = 0.2;

/// A good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer<T = IpAddr> {
    /// In the order of the answer, each once, at least one.
    pub(super) addresses: Vec<T>,
    /// The least over all records that led to it.
    pub(super) ttl: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Failures of one kind in a row are logged once.
    pub(super) kind: FailureKind,
    /// Which name, which server, what came, what to do.
    pub(super) message: String,
}

/// Looks something up, again and again, and remembers what worked.
pub(super) trait LookUp: Send + 'static {
    /// One thing that it finds.
    type Found: Clone + Ord + Send + Sync + 'static;

    /// What there is now, within the time-out.
    fn run(&mut self) -> impl Future<Output = Result<Answer<Self::Found>, Failure>> + Send;
}

/// The kinds of [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The name does not exist.
    NoSuchName,
    /// The name exists, but has no address.
    NoRecords,
    /// The server answered with this other error code.
    Code(u16),
    /// Nothing came in time.
    Silence,
    /// The server can't be reached.
    Unreachable,
    /// The answer was cut, and the rest did not come over TCP.
    Truncated,
    /// Something came that is no answer.
    Unreadable,
    /// There is no server to ask.
    NoServer,
}

/// What there is to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T = IpAddr> {
    /// Look the name up, then call [`Schedule::finished`].
    LookUp,
    /// Tell the channels.
    Report(Report<T>),
    /// Nothing until this time, or until a request.
    Wait { until: Nanos },
}

/// What the channels are told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report<T = IpAddr> {
    /// Nothing new.
    Nothing,
    /// These are the addresses now.
    Update(Vec<T>),
    /// There are none; when expired, those of the last update are no longer trusted either.
    Error { message: String, expired: bool },
}

/// The state between look-ups of one name.
#[derive(Debug)]
pub(super) struct Schedule<T = IpAddr> {
    interval_min: Nanos,
    interval_max: Nanos,
    stale_max: Nanos,
    next: Nanos,
    /// When the last look-up ended.
    last: Option<Nanos>,
    /// The last good answer: when it came, and its addresses, sorted.
    good: Option<(Nanos, Vec<T>)>,
    /// Look-ups that failed since.
    failures: u32,
    failure: Option<Failure>,
    /// The last report was an error, so that even the same addresses are news.
    reported_error: bool,
    expired: bool,
}

impl<T: Clone + Ord> Schedule<T> {
    /// The first look-up is due at once.
    pub(super) fn new(options: &DnsOptions, now: Nanos) -> Self {
        let interval_min = nanos(options.interval_min).max(INTERVAL_FLOOR_NS);
        Self {
            interval_min,
            interval_max: nanos(options.interval_max).max(interval_min),
            stale_max: nanos(options.stale_max),
            next: now,
            last: None,
            good: None,
            failures: 0,
            failure: None,
            reported_error: false,
            expired: false,
        }
    }

    /// What to do now. Called again after each step.
    pub(super) fn next(&mut self, now: Nanos) -> Step<T> {
        let expiry = self.expiry();
        if expiry.is_some_and(|at| at <= now) {
            return Step::Report(self.expire());
        }
        if self.next <= now {
            return Step::LookUp;
        }
        Step::Wait { until: expiry.map_or(self.next, |at| at.min(self.next)) }
    }

    /// A channel wants a fresh look: it gets one at once, but not within the least interval.
    /// Another request before that look changes nothing.
    pub(super) fn requested(&mut self, now: Nanos) {
        let earliest = self.last.map_or(now, |last| last.saturating_add(self.interval_min));
        self.next = self.next.min(earliest.max(now));
    }

    /// A look-up ended. `random` is drawn evenly from 0 to 1.
    pub(super) fn finished(
        &mut self,
        now: Nanos,
        outcome: Result<Answer<T>, Failure>,
        random: f64,
    ) -> Report<T> {
        self.last = Some(now);
        match outcome {
            Ok(answer) => {
                let interval = nanos(answer.ttl).clamp(self.interval_min, self.interval_max);
                let jitter = fraction(interval, TTL_JITTER * random).min(TTL_JITTER_MAX_NS);
                self.next = now.saturating_add(interval).saturating_add(jitter);
                self.answered(now, answer.addresses)
            }
            Err(failure) => {
                let growth = BACKOFF_FACTOR.powi(self.failures.min(64).cast_signed());
                let wait = fraction(self.interval_min, growth).min(self.interval_max);
                let wait = wait.saturating_add(fraction(wait, BACKOFF_JITTER * random));
                self.next = now.saturating_add(wait);
                self.failed(now, failure)
            }
        }
    }

    /// What the last look-up ended with, if it failed.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn answered(&mut self, now: Nanos, addresses: Vec<T>) -> Report<T> {
        // DNS servers rotate their answers: the order alone is no news.
        let mut sorted = addresses.clone();
        sorted.sort_unstable();
        let news = self.reported_error || self.good.as_ref().is_none_or(|(_, g)| *g != sorted);
        self.good = Some((now, sorted));
        self.failures = 0;
        self.failure = None;
        self.reported_error = false;
        self.expired = false;
        if news { Report::Update(addresses) } else { Report::Nothing }
    }

    fn failed(&mut self, now: Nanos, failure: Failure) -> Report<T> {
        self.failures = self.failures.saturating_add(1);
        let message = failure.message.clone();
        self.failure = Some(failure);
        if self.good.is_none() {
            self.reported_error = true;
            return Report::Error { message, expired: false };
        }
        if self.expired || self.expiry().is_some_and(|at| at <= now) {
            return self.expire();
        }
        Report::Nothing
    }

    /// When the last good list stops being trusted, if look-ups go on failing.
    fn expiry(&self) -> Option<Nanos> {
        let (at, _) = self.good.as_ref()?;
        (self.failure.is_some() && !self.expired).then(|| at.saturating_add(self.stale_max))
    }

    fn expire(&mut self) -> Report<T> {
        self.expired = true;
        self.reported_error = true;
        let why = self.failure.as_ref().map_or("", |f| &f.message);
        let age_s = self.stale_max as f64 / 1e9;
        let message = format!("{why} (no good answer for {age_s} s: the last one is not trusted)");
        Report::Error { message, expired: true }
    }
}

pub(super) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// `part` times `whole`; a float too large for [`Nanos`] becomes its maximum.
fn fraction(whole: Nanos, part: f64) -> Nanos {
    (whole as f64 * part) as Nanos
}

#[cfg(test)]
#[path = "tests/schedule.rs"]
mod tests;
