//! Watches that users share: all channels of a process on one Service of one cluster are one
//! request to its API server.
//!
//! There is no task for it, as there is none for shared DNS look-ups: a task belongs to one
//! runtime, and the users of a process may run on several, of which each may end, or stand still,
//! before the others. One of the users *leads*: it holds a lease, asks, and applies what comes; the
//! others wait for what it brings. When it is dropped, or does not renew its lease, the next user
//! takes over, where the last one was, over a connection of its own. With the last user all of it
//! is gone.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    Cluster, ServiceKey, Slices, WatchError, WatchErrorKind,
    cluster::Settings,
    connection::{Answer, Connection},
    error::Refusal,
    follow::{Ended, Follower, Heard, Request},
};

/// A leader that is silent for so long is on a runtime that stands still.
const LEASE: Duration = Duration::from_secs(3);
/// How often it says that it is there.
const LEASE_RENEWAL: Duration = Duration::from_secs(1);
/// Without another initial event for so long, a streaming list is taken for one that the server
/// does not know: it began a plain watch.
const INITIAL_EVENT_WAIT: Duration = Duration::from_secs(5);
/// From a failure to the next try when a newcomer is waiting for it.
const NEWCOMER_WAIT: Duration = Duration::from_secs(1);
/// A watch that the server should have ended is given up after this time.
const WATCH_GRACE: Duration = Duration::from_secs(5);

static PROCESS: LazyLock<Mutex<HashMap<Key, Weak<Shared>>>> = LazyLock::new(Mutex::default);

/// What is known of a Service.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// The first answer has not come yet.
    Pending,
    /// The newest complete set. With an error it may be old: changes are not seen at the moment.
    #[non_exhaustive]
    Good {
        /// All EndpointSlices of the Service.
        slices: Arc<Slices>,
        /// Why nothing newer comes, when that is so.
        error: Option<Arc<WatchError>>,
    },
    /// There never was a complete set, and this is why. It is tried on.
    Failed(Arc<WatchError>),
}

/// Which watches are one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    cluster: Arc<Settings>,
    service: ServiceKey,
}

/// One user of a watch. Nothing is asked while no user awaits [`Watch::changed`].
pub struct Watch {
    shared: Arc<Shared>,
    /// The version that this user was told last; they count from 1.
    seen: u64,
    /// The leader's work.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

struct Shared {
    key: Key,
    cluster: Cluster,
    state: Mutex<Inner>,
    /// There is news, or the lease is free.
    changed: Notify,
}

struct Inner {
    follower: Follower,
    rng: fastrand::Rng,
    news: State,
    version: u64,
    lease: Option<Lease>,
    /// Leases so far.
    leases: u64,
    /// The next request waits until then.
    not_before: Instant,
    /// When the last one ended.
    attempted: Instant,
}

#[derive(Clone, Copy)]
struct Lease {
    number: u64,
    until: Instant,
}

/// What a user does next.
enum Turn {
    Tell(State),
    Lead(Leader),
    Wait { until: Instant },
}

impl Watch {
    pub(crate) fn join(cluster: Cluster, service: ServiceKey) -> Self {
        let key = Key { cluster: cluster.settings().clone(), service };
        let mut entries = lock(&PROCESS);
        if let Some(shared) = entries.get(&key).and_then(Weak::upgrade) {
            // An entry that is dropped here would want the lock.
            drop(entries);
            let seen = shared.joined();
            return Self { shared, seen, work: None };
        }
        let inner = Inner {
            follower: Follower::new(key.service.clone(), cluster.server()),
            rng: fastrand::Rng::new(),
            news: State::Pending,
            version: 0,
            lease: None,
            leases: 0,
            not_before: Instant::now(),
            attempted: Instant::now(),
        };
        let shared = Arc::new(Shared {
            key: key.clone(),
            cluster,
            state: Mutex::new(inner),
            changed: Notify::new(),
        });
        entries.insert(key, Arc::downgrade(&shared));
        Self { shared, seen: 0, work: None }
    }

    /// The Service.
    pub fn key(&self) -> &ServiceKey {
        &self.shared.key.service
    }

    /// What is known now.
    pub fn state(&self) -> State {
        lock(&self.shared.state).news.clone()
    }

    /// Waits for a state that this user has not been told yet; those that a newer one has replaced
    /// are left out. This is where the work is done, for all users of the watch: a user that ceases
    /// to await it leaves it to the others after a moment. Cancelling loses nothing.
    pub async fn changed(&mut self) -> State {
        loop {
            // Before the look at the state, so that no change after it is missed.
            let shared = self.shared.clone();
            let changed = shared.changed.notified();
            let until = match self.turn() {
                Turn::Tell(state) => return state,
                Turn::Lead(leader) => {
                    self.work = Some(Box::pin(leader.lead()));
                    continue;
                }
                Turn::Wait { until } => until,
            };
            match &mut self.work {
                Some(work) => tokio::select! {
                    () = work => self.work = None,
                    () = changed => {}
                },
                None => tokio::select! {
                    () = sleep_until(until) => {}
                    () = changed => {}
                },
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let now = Instant::now();
        let mut state = lock(&self.shared.state);
        if self.seen != state.version {
            self.seen = state.version;
            return Turn::Tell(state.news.clone());
        }
        match state.lease {
            // Who leads waits for news and its work only.
            Some(lease) if now < lease.until || self.work.is_some() => {
                Turn::Wait { until: lease.until }
            }
            _ => {
                state.leases += 1;
                let number = state.leases;
                state.lease = Some(Lease { number, until: now + LEASE });
                Turn::Lead(Leader { shared: self.shared.clone(), number, connection: None })
            }
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("key", self.key()).finish_non_exhaustive()
    }
}

/// Asks the API server, as long as its lease holds.
struct Leader {
    shared: Arc<Shared>,
    number: u64,
    connection: Option<Connection>,
}

impl Leader {
    async fn lead(mut self) {
        let (shared, number) = (self.shared.clone(), self.number);
        let renewal = async {
            let mut ticks = interval(LEASE_RENEWAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if !shared.renew(number) {
                    return;
                }
            }
        };
        tokio::select! {
            () = renewal => {}
            () = self.ask() => {}
        }
    }

    async fn ask(&mut self) {
        loop {
            self.shared.due().await;
            let Some(request) = self.inner(|inner| inner.follower.request(&mut inner.rng)) else {
                return;
            };
            let ended = match self.serve(&request).await {
                Ok(ended) => ended,
                Err(error) => Ended::Failed(error),
            };
            if !matches!(ended, Ended::InTime) {
                self.connection = None;
            }
            if self.inner(|inner| inner.ended(&self.shared, &request, ended)).is_none() {
                return;
            }
        }
    }

    /// One request and its whole answer.
    async fn serve(&mut self, request: &Request) -> Result<Ended, WatchError> {
        let began = Instant::now();
        let mut answer = self.answer(request).await?;
        let shared = self.shared.clone();
        let (cluster, key) = (&shared.cluster, &shared.key.service);
        let Some(connection) = &mut self.connection else { return Ok(Ended::Early) };
        if !answer.status().is_success() {
            let refusal = connection.refusal(cluster, key, answer).await;
            if refusal.error.kind == WatchErrorKind::Unauthorized {
                cluster.forget_credentials();
            }
            return Ok(Ended::Refused(refusal));
        }
        let Some(timeout_s) = request.timeout_s() else {
            let body = connection.whole(cluster, &mut answer).await?;
            let heard = self.apply(|follower| follower.list(&body));
            return heard.map(|_| Ended::InTime);
        };
        let timeout = Duration::from_secs(timeout_s.into());
        let until = began + timeout + WATCH_GRACE;
        let mut initial = matches!(request, Request::StreamingList { .. });
        if !initial {
            self.inner(|inner| inner.recovered(&shared));
        }
        loop {
            let Some(connection) = &mut self.connection else { return Ok(Ended::Early) };
            let patience = Instant::now() + INITIAL_EVENT_WAIT;
            let until = if initial { patience.min(until) } else { until };
            let line = match connection.line(cluster, &mut answer, until).await {
                Ok(Some(line)) => line,
                // A second early is in time: the server counts in its own way.
                Ok(None) if began.elapsed() + Duration::from_secs(1) >= timeout && !initial => {
                    return Ok(Ended::InTime);
                }
                Ok(None) => return Ok(Ended::Early),
                Err(e) if initial && e.kind == WatchErrorKind::Timeout => {
                    return Ok(Ended::NoInitialEventsEnd);
                }
                Err(e) => return Err(e),
            };
            match self.apply(|follower| follower.line(&line)) {
                Ok(Heard::Nothing) => {}
                Ok(Heard::Complete | Heard::Changed) => initial = false,
                Err(Refusal { error, .. }) if error.kind == WatchErrorKind::Unreadable => {
                    return Err(error);
                }
                Err(refusal) => return Ok(Ended::Refused(refusal)),
            }
        }
    }

    /// Over the connection that there is, or a new one.
    async fn answer(&mut self, request: &Request) -> Result<Answer, WatchError> {
        let shared = self.shared.clone();
        let (cluster, key) = (&shared.cluster, &shared.key.service);
        let path = request.path(key);
        let authorization = cluster.authorization().await.map_err(|reason| {
            let message =
                format!("no credentials for the API server {}: {reason}", cluster.server());
            WatchError::new(WatchErrorKind::Credentials, message)
        })?;
        if let Some(mut kept) = self.connection.take().filter(Connection::is_usable) {
            // The server may have closed it while nothing was asked.
            if let Ok(answer) = kept.get(cluster, authorization.clone(), &path).await {
                self.connection = Some(kept);
                return Ok(answer);
            }
        }
        let mut opened = Connection::open(cluster).await?;
        let answer = opened.get(cluster, authorization, &path).await?;
        self.connection = Some(opened);
        Ok(answer)
    }

    /// Gives the follower what came, and tells the users when that is news.
    fn apply<E>(&self, take: impl FnOnce(&mut Follower) -> Result<Heard, E>) -> Result<Heard, E> {
        let began = Instant::now();
        let heard = self.inner(|inner| {
            let heard = take(&mut inner.follower)?;
            match heard {
                Heard::Nothing => {}
                Heard::Complete => inner.recovered(&self.shared),
                Heard::Changed => inner.publish_slices(&self.shared, began),
            }
            Ok(heard)
        });
        heard.unwrap_or(Ok(Heard::Nothing))
    }

    /// `None` when somebody else leads by now.
    fn inner<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> Option<T> {
        let mut state = lock(&self.shared.state);
        state.lease.is_some_and(|lease| lease.number == self.number).then(|| act(&mut state))
    }
}

/// The next user need not wait for the lease to run out.
impl Drop for Leader {
    fn drop(&mut self) {
        if self.inner(|inner| inner.lease = None).is_some() {
            self.shared.changed.notify_waiters();
        }
    }
}

impl Inner {
    fn publish(&mut self, shared: &Shared, news: State) {
        self.news = news;
        self.version += 1;
        shared.changed.notify_waiters();
    }

    fn publish_slices(&mut self, shared: &Shared, began: Instant) {
        let error_before = self.error().is_some();
        let Some(mut slices) = self.follower.slices() else { return };
        slices.applied_in = began.elapsed();
        let slices = Arc::new(slices);
        self.publish(shared, State::Good { slices, error: None });
        if error_before {
            log_recovery(shared);
        }
    }

    /// The set that is there is the newest again.
    fn recovered(&mut self, shared: &Shared) {
        if let State::Good { slices, error: Some(_) } = &self.news {
            let slices = slices.clone();
            self.publish(shared, State::Good { slices, error: None });
            log_recovery(shared);
        }
    }

    fn error(&self) -> Option<&Arc<WatchError>> {
        match &self.news {
            State::Pending => None,
            State::Good { error, .. } => error.as_ref(),
            State::Failed(error) => Some(error),
        }
    }

    fn ended(&mut self, shared: &Shared, request: &Request, ended: Ended) {
        let wait_ns = self.follower.ended(request, &ended, &mut self.rng);
        self.attempted = Instant::now();
        self.not_before = self.attempted + Duration::from_nanos(wait_ns);
        let error = match ended {
            // What is asked next tells whether something is wrong.
            Ended::InTime | Ended::NoInitialEventsEnd => return,
            Ended::Refused(_) if wait_ns == 0 => return,
            Ended::Refused(Refusal { error, .. }) if error.kind == WatchErrorKind::Gone => return,
            Ended::Early => {
                let server = shared.cluster.server();
                let message = format!("the API server {server} ended a watch before its time");
                WatchError::new(WatchErrorKind::Connection, message)
            }
            Ended::Refused(Refusal { error, .. }) | Ended::Failed(error) => error,
        };
        let is_known = self.error().is_some_and(|before| **before == error);
        if is_known && matches!(self.news, State::Good { .. }) {
            return;
        }
        if self.error().is_none_or(|before| before.kind != error.kind) {
            tracing::warn!(service = %shared.key.service, "{error}");
        }
        let error = Arc::new(error);
        let news = match &self.news {
            State::Good { slices, .. } => {
                State::Good { slices: slices.clone(), error: Some(error) }
            }
            State::Pending | State::Failed(_) => State::Failed(error),
        };
        self.publish(shared, news);
    }
}

fn log_recovery(shared: &Shared) {
    tracing::info!(service = %shared.key.service, "the watch on EndpointSlices works again");
}

impl Shared {
    /// A newcomer that finds nothing but a failure is a reason to try again soon, and hears of
    /// that, not of what was. Returns the version that it need not be told.
    fn joined(&self) -> u64 {
        let mut state = lock(&self.state);
        if !matches!(state.news, State::Failed(_)) {
            return 0;
        }
        state.not_before = state.not_before.min(state.attempted + NEWCOMER_WAIT);
        let version = state.version;
        drop(state);
        self.changed.notify_waiters();
        version
    }

    /// Waits until the next request may be made.
    async fn due(&self) {
        loop {
            // Before the look at the state, so that no change after it is missed.
            let changed = self.changed.notified();
            let not_before = lock(&self.state).not_before;
            if not_before <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(not_before) => {}
                () = changed => {}
            }
        }
    }

    /// False when somebody else leads by now.
    fn renew(&self, number: u64) -> bool {
        let mut state = lock(&self.state);
        match &mut state.lease {
            Some(lease) if lease.number == number => {
                lease.until = Instant::now() + LEASE;
                true
            }
            _ => false,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut entries = lock(&PROCESS);
        // A new one for the same key may have come between the last user's end and this.
        if entries.get(&self.key).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(&self.key);
        }
    }
}

/// No code that holds these locks can panic; should it ever, the data is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
