//! The spans that wait to be sent: a list with a limit. Not a channel, which would wake the
//! exporter's task for each span; this one wakes it for each batch.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What became of the spans that ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanCounts {
    /// Those that ended.
    pub ended: u64,
    /// Those that a collector has taken.
    pub sent: u64,
    /// Those that are lost: there was no room, or no collector took them.
    pub dropped: u64,
}

pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// Told when there is a batch.
    batch: Notify,
    max: usize,
    batch_max: usize,
}

#[derive(Default)]
struct Inner {
    /// Each as it is sent: an OTLP `Span` in Protobuf.
    spans: Vec<Vec<u8>>,
    counts: SpanCounts,
}

impl Queue {
    /// At most `max` spans, which go out at most `batch_max` at once.
    pub(crate) fn new(max: usize, batch_max: usize) -> Self {
        Self { inner: Mutex::default(), batch: Notify::new(), max, batch_max: batch_max.min(max) }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Takes a span that has ended, or drops it when there is no room.
    pub(crate) fn push(&self, span: Vec<u8>) {
        let mut inner = self.lock();
        inner.counts.ended += 1;
        if inner.spans.len() == self.max {
            inner.counts.dropped += 1;
            return;
        }
        inner.spans.push(span);
        let is_batch = inner.spans.len().is_multiple_of(self.batch_max);
        drop(inner);
        if is_batch {
            self.batch.notify_one();
        }
    }

    /// Waits for a batch; returns at once when there was one since the last wait.
    pub(crate) async fn filled(&self) {
        self.batch.notified().await;
    }

    /// The oldest spans, at most a batch of them.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        let mut inner = self.lock();
        let count = inner.spans.len().min(self.batch_max);
        if count == inner.spans.len() {
            return std::mem::take(&mut inner.spans);
        }
        inner.spans.drain(..count).collect()
    }

    /// So many were taken by a collector.
    pub(crate) fn sent(&self, count: u64) {
        self.lock().counts.sent += count;
    }

    /// So many that were taken from here are lost.
    pub(crate) fn lost(&self, count: u64) {
        self.lock().counts.dropped += count;
    }

    pub(crate) fn counts(&self) -> SpanCounts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A list and numbers are whole after every step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Vec<u8> {
        name.into()
    }

    #[test]
    fn there_is_room_for_so_many_and_the_rest_is_counted() {
        let queue = Queue::new(3, 2);
        for name in ["a", "b", "c", "d", "e"] {
            queue.push(named(name));
        }
        assert_eq!(queue.take(), [b"a", b"b"]);
        assert_eq!(queue.take(), [b"c"]);
        assert!(queue.take().is_empty());
        let counts = SpanCounts { ended: 5, sent: 0, dropped: 2 };
        assert_eq!(queue.counts(), counts);
        queue.push(named("f"));
        assert_eq!(queue.take(), [b"f"]);
    }

    #[tokio::test]
    async fn a_full_batch_is_told_of_once() {
        let queue = Queue::new(10, 2);
        queue.push(named("a"));
        queue.push(named("b"));
        queue.filled().await;
        queue.push(named("c"));
        let second = std::pin::pin!(queue.filled());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(second.poll(&mut cx).is_pending());
    }
}
