//! The open calls of a connection. It wraps hyper's stream tasks and not our service's futures,
//! because a streaming call's future ends with its first response header while its task runs until
//! the body is written: only the task tells whether a connection is idle, and only the task can end
//! a response whose client gives no window, because hyper does not poll that body any more.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use crate::observe::{Event, Reporter};

/// The executor that hyper spawns a connection's stream tasks on, and what the tasks share.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    reporter: Reporter,
    max_stall: Duration,
    open: AtomicUsize,
    opened: AtomicU64,
    answered: AtomicU64,
    broken: AtomicU64,
    began: Instant,
    /// When the last open call ended, in nanoseconds since `began`.
    idle_since_ns: AtomicU64,
    /// Handed from the service to the executor, which hyper calls one after the other.
    announced: Mutex<Option<Arc<Progress>>>,
}

impl Streams {
    pub(crate) fn new(reporter: Reporter, max_stall: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                reporter,
                max_stall,
                open: AtomicUsize::new(0),
                opened: AtomicU64::new(0),
                answered: AtomicU64::new(0),
                broken: AtomicU64::new(0),
                began: Instant::now(),
                idle_since_ns: AtomicU64::new(0),
                announced: Mutex::new(None),
            }),
        }
    }

    /// Calls whose response is not yet handed to the connection.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Calls that began on this connection.
    pub(crate) fn opened(&self) -> u64 {
        self.shared.opened.load(Ordering::Relaxed)
    }

    /// When the last open call ended, or the connection began.
    pub(crate) fn idle_since(&self) -> Instant {
        self.shared.began + Duration::from_nanos(self.shared.idle_since_ns.load(Ordering::Relaxed))
    }

    /// Responses of which the last frame was handed to the socket.
    pub(crate) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Streams that were reset, by either side.
    pub(crate) fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// The end of a response was written.
    pub(crate) fn answer(&self) {
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn record(&self, event: Event) {
        if matches!(event, Event::StreamReset | Event::ResponseStalled) {
            self.shared.broken.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.reporter.record(event);
    }

    /// The progress of the call whose task hyper spawns next.
    pub(crate) fn announce(&self, deadline: Option<Instant>) -> Arc<Progress> {
        let (handed, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let progress = Arc::new(Progress { deadline, handed, received });
        *self.announced() = Some(Arc::clone(&progress));
        progress
    }

    fn announced(&self) -> std::sync::MutexGuard<'_, Option<Arc<Progress>>> {
        // Whole at any time, whatever panicked beside it.
        self.shared.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        self.shared.opened.fetch_add(1, Ordering::Relaxed);
        let progress = self.announced().take();
        // The task needs no handle: h2 wakes it with an error when its connection is dropped.
        tokio::spawn(Counted {
            stream: Some(stream),
            progress,
            waits_for: 0,
            timer: None,
            open: Open { streams: self.clone() },
        });
    }
}

/// How far the response of one call is.
#[derive(Debug)]
pub(crate) struct Progress {
    deadline: Option<Instant>,
    /// Twice the frames that hyper took from the body, and one more while it waits to send the last
    /// of them; even while it waits for the handler.
    handed: AtomicU64,
    /// Bytes of messages that the handler took, where they are counted.
    received: AtomicU64,
}

impl Progress {
    /// So many bytes of messages came so far.
    pub(crate) fn receive(&self, total: u64) {
        self.received.store(total, Ordering::Relaxed);
    }

    /// The bytes of messages that came.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// hyper polled the body; `ready`: and got something to send.
    pub(crate) fn polled(&self, ready: bool) {
        // One task writes; the others only read.
        let frames = self.handed.load(Ordering::Relaxed) / 2;
        let handed = if ready { 2 * (frames + 1) + 1 } else { 2 * frames };
        self.handed.store(handed, Ordering::Relaxed);
    }

    /// The frame that waits for its client, if one does.
    fn waits_for_client(&self) -> Option<u64> {
        let handed = self.handed.load(Ordering::Relaxed);
        (handed % 2 == 1).then_some(handed)
    }
}

/// One open call; counted down on drop, so that a cancelled task counts too.
struct Open {
    streams: Streams,
}

impl Drop for Open {
    fn drop(&mut self) {
        let Shared { open, began, idle_since_ns, .. } = &*self.streams.shared;
        // Before the count, so that nobody sees an idle connection with an old time.
        let now_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        idle_since_ns.store(now_ns, Ordering::Relaxed);
        open.fetch_sub(1, Ordering::Release);
    }
}

pin_project! {
    struct Counted<F> {
        #[pin]
        stream: Option<F>,
        progress: Option<Arc<Progress>>,
        waits_for: u64,
        timer: Option<Pin<Box<Sleep>>>,
        open: Open,
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.stream.as_mut().as_pin_mut().is_none_or(|stream| stream.poll(cx).is_ready()) {
            return Poll::Ready(());
        }
        let Some(progress) = this.progress else { return Poll::Pending };
        let Some(frame) = progress.waits_for_client() else { return Poll::Pending };
        if *this.waits_for != frame {
            *this.waits_for = frame;
            let stalled_at = Instant::now() + this.open.streams.shared.max_stall;
            let until = progress.deadline.map_or(stalled_at, |deadline| deadline.min(stalled_at));
            match this.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => *this.timer = Some(Box::pin(sleep_until(until))),
            }
        }
        if this.timer.as_mut().is_none_or(|timer| timer.as_mut().poll(cx).is_pending()) {
            return Poll::Pending;
        }
        let late = progress.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let event = if late { Event::DeadlineExceeded } else { Event::ResponseStalled };
        debug!(?event, "the client gives the response no window; resetting the stream");
        this.open.streams.record(event);
        // Resets the stream and frees what the handler made.
        this.stream.set(None);
        Poll::Ready(())
    }
}
