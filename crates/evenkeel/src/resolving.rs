//! Where a resolver leaves its answers and hears that new ones are wanted: a mailbox for one. A
//! newer answer replaces one that the driver has not taken yet, so it can't overflow.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use evenkeel_core::{
    ResolverError, ResolverSink, ResolverUpdate, Status,
    observe::{Event, Recorder},
};
use tokio::sync::Notify;

/// What a resolver reported.
pub(crate) enum Answer {
    Update(ResolverUpdate),
    Error(ResolverError),
}

#[derive(Default)]
struct Requests {
    wanted: bool,
    waker: Option<Waker>,
}

/// See the module's head.
pub(crate) struct Inbox {
    latest: Mutex<Option<Answer>>,
    arrived: Notify,
    requests: Mutex<Requests>,
    recorder: Arc<dyn Recorder>,
    /// The resolver says that it can't renew what it knows.
    fails: AtomicBool,
}

impl Inbox {
    pub(crate) fn new(recorder: Arc<dyn Recorder>) -> Self {
        let (latest, arrived) = (Mutex::default(), Notify::default());
        let (requests, fails) = (Mutex::default(), AtomicBool::new(false));
        Self { latest, arrived, requests, recorder, fails }
    }

    /// There is no resolver any more, or another one: it does not fail.
    pub(crate) fn vacate(&self) {
        if self.fails.swap(false, Ordering::Relaxed) {
            self.recorder.record(&Event::ResolverRenewal(None));
        }
    }

    /// The next answer.
    pub(crate) async fn answer(&self) -> Answer {
        loop {
            let arrived = self.arrived.notified();
            if let Some(answer) = self.take() {
                return answer;
            }
            arrived.await;
        }
    }

    /// The next answer, if it is there already.
    pub(crate) fn take(&self) -> Option<Answer> {
        lock(&self.latest).take()
    }

    /// Asks the resolver to look again.
    pub(crate) fn request(&self) {
        let waker = {
            let mut requests = lock(&self.requests);
            requests.wanted = true;
            requests.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn put(&self, answer: Answer) {
        *lock(&self.latest) = Some(answer);
        self.arrived.notify_one();
    }
}

impl ResolverSink for Inbox {
    fn update(&self, update: ResolverUpdate) {
        self.put(Answer::Update(update));
    }

    fn error(&self, error: ResolverError) {
        // A list that the driver has not seen yet is worth more than the news that there is no
        // newer one.
        let mut latest = lock(&self.latest);
        if !error.expired && matches!(*latest, Some(Answer::Update(_))) {
            return;
        }
        *latest = Some(Answer::Error(error));
        drop(latest);
        self.arrived.notify_one();
    }

    fn renewal(&self, error: Option<&Status>) {
        self.fails.store(error.is_some(), Ordering::Relaxed);
        self.recorder.record(&Event::ResolverRenewal(error));
    }

    fn poll_requested(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut requests = lock(&self.requests);
        if std::mem::take(&mut requests.wanted) {
            return Poll::Ready(());
        }
        requests.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// No code that holds these locks can panic; should it ever, the data is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<bool>>);

    impl Recorder for Heard {
        fn record(&self, event: &Event<'_>) {
            if let Event::ResolverRenewal(error) = event {
                lock(&self.0).push(error.is_some());
            }
        }
    }

    #[test]
    fn a_resolver_that_is_gone_does_not_fail_any_more() {
        let heard = Arc::new(Heard::default());
        let inbox = Inbox::new(heard.clone());
        inbox.vacate();
        inbox.renewal(Some(&Status::unavailable("no answer")));
        inbox.vacate();
        inbox.vacate();
        assert_eq!(*lock(&heard.0), [true, false]);
    }
}
