//! Counts the open calls of a connection. It wraps hyper's stream tasks and not our service's
//! futures, because a streaming call's future ends with its first response header while its task
//! runs until the body is written: only the task tells whether a connection is idle.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;

/// The executor that hyper spawns a connection's stream tasks on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams {
    open: Arc<AtomicUsize>,
}

impl Streams {
    /// Calls whose response is not yet handed to the connection.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.open.fetch_add(1, Ordering::Relaxed);
        // The task needs no handle: h2 wakes it with an error when its connection is dropped.
        tokio::spawn(Counted { stream, _open: Open { count: Arc::clone(&self.open) } });
    }
}

/// One open call; counted down on drop, so that a cancelled task counts too.
struct Open {
    count: Arc<AtomicUsize>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    struct Counted<F> {
        #[pin]
        stream: F,
        _open: Open,
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().stream.poll(cx)
    }
}
