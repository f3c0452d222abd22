//! Look-ups that channels share: a process with 100 channels to one name asks for it once per TTL,
//! and what one of them asks again for, all learn.
//!
//! There is no task for it, because a task belongs to one runtime, and the channels of a process
//! may run on several, of which each may end, or stand still, before the others. Every channel's
//! own resolver task knows when the next look-up is due; who comes first makes it, the others wait
//! for what it brings. Who is dropped in the middle of it, or takes longer than its time-out
//! allows, is replaced by the next. With the last of these tasks all of it is gone.
//!
//! The registry is the only global of the crate: without one, channels that know nothing of each
//! other can't find each other. It keeps nothing alive.

use std::{
    collections::HashMap,
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use evenkeel_core::{Nanos, ResolverSink, Status};
use hickory_resolver::proto::rr::Name;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    DnsOptions,
    lookup::{Lookup, SrvLookup, txt::TxtLookup},
    schedule::{Answer, Failure, LookUp, Report, Schedule, Step, nanos},
};

/// A look-up that is not over this long after its time-out is on a runtime that stands still.
const LATE: Duration = Duration::from_secs(1);

static PROCESS: LazyLock<Arc<Registry>> = LazyLock::new(Arc::default);
static PROCESS_SRV: LazyLock<Arc<Registry<SrvLookup>>> = LazyLock::new(Arc::default);
static PROCESS_TXT: LazyLock<Arc<Registry<TxtLookup>>> = LazyLock::new(Arc::default);

/// Which look-ups are one: of the same name, from the same server, with the same options. Channels
/// with other options share nothing: none of them gets an interval that it did not ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) name: Name,
    /// `None`: the system's files and servers.
    pub(super) server: Option<SocketAddr>,
    pub(super) options: DnsOptions,
}

/// The look-ups that somebody uses now.
pub(super) struct Registry<L: LookUp = Lookup> {
    entries: Mutex<HashMap<Key, Weak<Shared<L>>>>,
}

impl<L: LookUp> Default for Registry<L> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl Registry<SrvLookup> {
    /// The one for balancers.
    pub(super) fn of_process_for_balancers() -> Arc<Self> {
        PROCESS_SRV.clone()
    }
}

impl Registry<TxtLookup> {
    /// The one for service configs.
    pub(super) fn of_process_for_configs() -> Arc<Self> {
        PROCESS_TXT.clone()
    }
}

impl Registry {
    /// The one in which all channels find each other.
    pub(super) fn of_process() -> Arc<Self> {
        PROCESS.clone()
    }
}

impl<L: LookUp> Registry<L> {
    /// Becomes a user of a look-up. `rng` and `lookup` count only for the first one; `lookup` makes
    /// the same each time.
    pub(super) fn join(
        self: &Arc<Self>,
        key: Key,
        rng: fastrand::Rng,
        lookup: impl Fn() -> L + Send + Sync + 'static,
    ) -> User<L> {
        let mut entries = lock(&self.entries);
        if let Some(shared) = entries.get(&key).and_then(Weak::upgrade) {
            // An entry that is dropped here would want the lock.
            drop(entries);
            shared.joined();
            return User { shared, seen: 0, fails: false };
        }
        let state = State {
            schedule: Schedule::new(&key.options, 0),
            rng,
            resting: None,
            flight: None,
            flights: 0,
            news: None,
            version: 0,
        };
        let shared = Arc::new(Shared {
            key: key.clone(),
            registry: self.clone(),
            lookup: Box::new(lookup),
            epoch: Instant::now(),
            state: Mutex::new(state),
            changed: Notify::new(),
        });
        entries.insert(key, Arc::downgrade(&shared));
        User { shared, seen: 0, fails: false }
    }

    /// How many look-ups are in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.entries).len()
    }
}

/// What the users of one look-up have in common.
struct Shared<L: LookUp> {
    key: Key,
    registry: Arc<Registry<L>>,
    lookup: Box<dyn Fn() -> L + Send + Sync>,
    epoch: Instant,
    state: Mutex<State<L>>,
    /// A look-up is over, so that the next one is due at another time, or a list has expired.
    changed: Notify,
}

struct State<L: LookUp> {
    schedule: Schedule<L::Found>,
    rng: fastrand::Rng,
    /// Between two flights: it knows which suffix and which server worked.
    resting: Option<Box<L>>,
    flight: Option<Flight>,
    /// Flights so far.
    flights: u64,
    /// The last report that was news.
    news: Option<Arc<Report<L::Found>>>,
    /// Reports that were news so far.
    version: u64,
}

/// A look-up under way.
struct Flight {
    number: u64,
    /// When the others cease to wait for it.
    given_up: Nanos,
    /// Somebody asked for a fresh look meanwhile, and what comes may be older than the reason.
    again: bool,
}

/// What a user does next.
enum Turn<L: LookUp> {
    LookUp(Claim<L>),
    Tell(Arc<Report<L::Found>>),
    Wait(Nanos),
}

/// One user of a look-up.
pub(super) struct User<L: LookUp = Lookup> {
    shared: Arc<Shared<L>>,
    /// The version that this user was told last; they count from 1.
    seen: u64,
    /// It was told that look-ups fail.
    fails: bool,
}

impl<L: LookUp> User<L> {
    /// The next report that this user has to hear; those that a newer one has replaced are left
    /// out. Makes look-ups when nobody else does, and passes on the requests of `sink`.
    pub(super) async fn report(&mut self, sink: &dyn ResolverSink) -> Arc<Report<L::Found>> {
        let shared = self.shared.clone();
        loop {
            // Before the look at the state, so that no change after it is missed.
            let changed = shared.changed.notified();
            self.tell_renewal(sink);
            let until = match self.turn() {
                Turn::LookUp(claim) => {
                    claim.run().await;
                    continue;
                }
                Turn::Tell(report) => return report,
                Turn::Wait(until) => until,
            };
            let wait = Duration::from_nanos(until.saturating_sub(shared.now()));
            tokio::select! {
                () = sleep(wait) => {}
                () = changed => {}
                () = poll_fn(|cx| sink.poll_requested(cx)) => shared.requested(),
            }
        }
    }

    /// Look-ups began to fail, or work again: of that there is no report while the last list is
    /// good.
    fn tell_renewal(&mut self, sink: &dyn ResolverSink) {
        let state = lock(&self.shared.state);
        let failure = state.schedule.failure();
        if failure.is_some() == self.fails {
            return;
        }
        self.fails = failure.is_some();
        let error = failure.map(|failure| Status::unavailable(failure.message.clone()));
        drop(state);
        sink.renewal(error.as_ref());
    }

    fn turn(&mut self) -> Turn<L> {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let flying = state.flight_at(now).map(|flight| flight.given_up);
        let until = match flying {
            Some(given_up) => given_up,
            None => match state.schedule.next(now) {
                Step::LookUp => return Turn::LookUp(self.shared.claim(&mut state, now)),
                Step::Report(report) => {
                    state.publish(report);
                    self.shared.changed.notify_waiters();
                    now
                }
                Step::Wait { until } => until,
            },
        };
        // A newcomer need not hear why an earlier look-up failed while another one is under way.
        let skip = |report: &Report<L::Found>| {
            self.seen == 0 && flying.is_some() && matches!(report, Report::Error { .. })
        };
        match &state.news {
            Some(news) if self.seen != state.version && !skip(news) => {
                self.seen = state.version;
                Turn::Tell(news.clone())
            }
            _ => Turn::Wait(until),
        }
    }
}

impl<L: LookUp> Shared<L> {
    fn now(&self) -> Nanos {
        nanos(self.epoch.elapsed())
    }

    /// While look-ups fail, a newcomer is a reason to look again before the wait is over.
    fn joined(&self) {
        let now = self.now();
        let mut state = lock(&self.state);
        if state.flight_at(now).is_none() && state.schedule.failure().is_some() {
            state.schedule.requested(now);
        }
    }

    /// A channel wants a fresh look. The others need not be woken for it: who asks, and who joins,
    /// looks at the state next, and makes the look-up when it is due.
    fn requested(&self) {
        let now = self.now();
        let mut state = lock(&self.state);
        match state.flight_at(now) {
            Some(flight) => flight.again = true,
            None => state.schedule.requested(now),
        }
    }

    fn claim(self: &Arc<Self>, state: &mut State<L>, now: Nanos) -> Claim<L> {
        state.flights += 1;
        let patience = nanos(self.key.options.timeout).saturating_add(nanos(LATE));
        let given_up = now.saturating_add(patience);
        state.flight = Some(Flight { number: state.flights, given_up, again: false });
        let lookup = state.resting.take().unwrap_or_else(|| (self.lookup)().into());
        Claim { shared: self.clone(), number: state.flights, lookup: Some(lookup), outcome: None }
    }

    /// A flight ended, without an outcome when its user was dropped.
    fn landed(&self, number: u64, lookup: Option<Box<L>>, outcome: Option<Outcome<L>>) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        // Another one was started in its place when it was given up.
        let Some(flight) = state.flight.take_if(|flight| flight.number == number) else {
            return;
        };
        state.resting = lookup;
        if let Some(outcome) = outcome {
            let now = self.now();
            let before = state.schedule.failure().map(|f| f.kind);
            let report = state.schedule.finished(now, outcome, state.rng.f64());
            let failure = state.schedule.failure();
            if failure.map(|f| f.kind) != before {
                log(&self.key.name, failure);
            }
            if flight.again {
                state.schedule.requested(now);
            }
            state.publish(report);
        }
        self.changed.notify_waiters();
    }
}

impl<L: LookUp> Drop for Shared<L> {
    fn drop(&mut self) {
        let mut entries = lock(&self.registry.entries);
        // A new one for the same key may have come between the last user's end and this.
        if entries.get(&self.key).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(&self.key);
        }
    }
}

impl<L: LookUp> State<L> {
    /// The look-up under way, unless it was given up.
    fn flight_at(&mut self, now: Nanos) -> Option<&mut Flight> {
        self.flight.as_mut().filter(|flight| now < flight.given_up)
    }

    fn publish(&mut self, report: Report<L::Found>) {
        if !matches!(report, Report::Nothing) {
            self.news = Some(Arc::new(report));
            self.version += 1;
        }
    }
}

/// The right to make the look-up that is due; it is given back by dropping it.
struct Claim<L: LookUp> {
    shared: Arc<Shared<L>>,
    number: u64,
    lookup: Option<Box<L>>,
    outcome: Option<Outcome<L>>,
}

/// How a look-up ended.
type Outcome<L> = Result<Answer<<L as LookUp>::Found>, Failure>;

impl<L: LookUp> Claim<L> {
    async fn run(mut self) {
        if let Some(lookup) = &mut self.lookup {
            self.outcome = Some(lookup.run().await);
        }
    }
}

impl<L: LookUp> Drop for Claim<L> {
    fn drop(&mut self) {
        self.shared.landed(self.number, self.lookup.take(), self.outcome.take());
    }
}

/// Called when look-ups begin or cease to fail, or fail in another way.
fn log(name: &Name, failure: Option<&Failure>) {
    match failure {
        Some(failure) => tracing::warn!(%name, "{}", failure.message),
        None => tracing::info!(%name, "DNS look-ups work again"),
    }
}

/// No code that holds these locks can panic; should it ever, the data is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
