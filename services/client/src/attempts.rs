//! What the client itself counts of attempts, to be held against what a balancer hears of them
//! (`ClientStats`): each attempt that the channel sent, once, by how it ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use evenkeel::{AttemptLayer, AttemptStart, OnAttemptEnd, core::CallOutcome};
use serde::Serialize;
use tonic::Status;

/// The counters, as a layer of the channel. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Attempts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    started: AtomicU64,
    finished: AtomicU64,
    failed_to_send: AtomicU64,
    known_received: AtomicU64,
}

impl AttemptLayer for Attempts {
    fn start(&self, _attempt: &mut AttemptStart<'_>) -> Result<Option<OnAttemptEnd>, Status> {
        Ok(Some(Box::new(self.begin())))
    }
}

impl Attempts {
    /// An attempt begins; returns who wants to hear of its end.
    fn begin(&self) -> impl FnOnce(CallOutcome) + Send + 'static {
        let counts = self.0.clone();
        counts.started.fetch_add(1, Ordering::Relaxed);
        move |outcome| {
            counts.finished.fetch_add(1, Ordering::Relaxed);
            match outcome {
                CallOutcome::Finished(_) => counts.known_received.fetch_add(1, Ordering::Relaxed),
                CallOutcome::NotSent => counts.failed_to_send.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
        }
    }

    /// The counts so far. Dropped calls, which the channel tells apart, are part of the first two
    /// sums, as in a balancer's reports.
    pub fn report(&self, drops: BTreeMap<String, u64>) -> AttemptsReport {
        let dropped: u64 = drops.values().sum();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        AttemptsReport {
            started: read(&self.0.started) + dropped,
            finished: read(&self.0.finished) + dropped,
            failed_to_send: read(&self.0.failed_to_send),
            known_received: read(&self.0.known_received),
            drops,
        }
    }
}

/// Attempts of calls, by the names of `grpc.lb.v1.ClientStats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AttemptsReport {
    /// Attempts that began, and dropped calls.
    pub started: u64,
    /// Those that ended.
    pub finished: u64,
    /// Those that reached no server, without dropped calls.
    pub failed_to_send: u64,
    /// Those to which a server answered.
    pub known_received: u64,
    /// Dropped calls, by token.
    pub drops: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_counts_once_and_drops_are_part_of_the_sums() {
        let attempts = Attempts::default();
        let ends = [
            CallOutcome::Finished(Some(0)),
            CallOutcome::Finished(None),
            CallOutcome::Failed,
            CallOutcome::NotSent,
        ];
        for outcome in ends {
            let end = attempts.begin();
            end(outcome);
        }
        let drops = BTreeMap::from([("lb".to_owned(), 3), ("rate".to_owned(), 2)]);
        let want = AttemptsReport {
            started: 9,
            finished: 9,
            failed_to_send: 1,
            known_received: 2,
            drops: drops.clone(),
        };
        assert_eq!(attempts.report(drops), want);
    }
}
