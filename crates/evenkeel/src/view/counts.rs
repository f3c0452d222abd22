//! What connections can't count: calls that never got one, and attempts that were repeated. All of
//! it happens on cold paths, so one line of counters for the whole channel does.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::channel::Shared;

/// Counters of one channel.
#[derive(Default)]
pub(crate) struct Counts {
    failed_unsent: AtomicU64,
    retries: AtomicU64,
    transparent_retries: AtomicU64,
    /// Those of them that their connection counts as a stream that failed.
    unprocessed: AtomicU64,
    in_backoff: AtomicUsize,
}

impl Counts {
    /// A call ended without being on a connection.
    pub(crate) fn failed_unsent(&self) {
        self.failed_unsent.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt is sent again; `written`: and reached the socket before.
    pub(crate) fn transparent_retry(&self, written: bool) {
        self.transparent_retries.fetch_add(1, Ordering::Relaxed);
        self.unprocessed.fetch_add(u64::from(written), Ordering::Relaxed);
    }

    /// See [`crate::view::CallCounts`].
    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// See [`crate::view::CallCounts`].
    pub(super) fn transparent_retries(&self) -> u64 {
        self.transparent_retries.load(Ordering::Relaxed)
    }

    /// Calls that wait to be repeated.
    pub(super) fn in_backoff(&self) -> usize {
        self.in_backoff.load(Ordering::Relaxed)
    }

    /// How many calls failed when this many streams did: those that had no stream come on top,
    /// those that went on with another one are no failures of a call.
    pub(super) fn failed_calls(&self, streams: u64) -> u64 {
        let repeated = self.retries() + self.unprocessed.load(Ordering::Relaxed);
        (streams + self.failed_unsent.load(Ordering::Relaxed)).saturating_sub(repeated)
    }
}

/// A call that waits for its next attempt.
pub(crate) struct InBackoff(Arc<Shared>);

impl InBackoff {
    /// An attempt failed and will be repeated.
    pub(crate) fn begin(shared: &Arc<Shared>) -> Self {
        shared.counts.retries.fetch_add(1, Ordering::Relaxed);
        shared.counts.in_backoff.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }
}

impl Drop for InBackoff {
    fn drop(&mut self) {
        self.0.counts.in_backoff.fetch_sub(1, Ordering::Relaxed);
    }
}
