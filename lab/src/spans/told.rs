//! What a client counted itself: what the spans are held against.

use std::collections::BTreeMap;

use crate::client::{Report, SpanCounts};

/// The counts of one client, or of several that had the same name one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) calls: u64,
    pub(super) ok: u64,
    pub(super) by_backend: BTreeMap<String, u64>,
    pub(super) transparent_retries: u64,
    /// Calls that were still in flight when it had to end: some have a span, and some got an answer
    /// that it did not count.
    pub(super) given_up: u64,
    /// Attempts that were sent, where it counts them.
    pub(super) attempts: Option<u64>,
    /// What became of its spans; `None` when it made none.
    pub(super) spans: Option<SpanCounts>,
}

impl Told {
    pub(super) fn of(report: &Report) -> Self {
        let by_backend = report.by_backend.iter();
        Self {
            calls: report.calls,
            ok: report.ok,
            by_backend: by_backend.map(|(name, of)| (name.clone(), of.calls)).collect(),
            transparent_retries: report.transparent_retries,
            // No backend of the lab ends a call so.
            given_up: report.by_code.get("CANCELLED").copied().unwrap_or_default(),
            // Dropped calls are attempts for a balancer, and none for anybody else.
            attempts: report
                .attempts
                .as_ref()
                .map(|of| of.started.saturating_sub(of.drops.values().sum::<u64>())),
            spans: report.spans,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.ok += other.ok;
        for (name, calls) in &other.by_backend {
            *self.by_backend.entry(name.clone()).or_default() += calls;
        }
        self.transparent_retries += other.transparent_retries;
        self.given_up += other.given_up;
        self.attempts = self.attempts.zip(other.attempts).map(|(a, b)| a + b);
        self.spans = self.spans.zip(other.spans).map(|(a, b)| SpanCounts {
            ended: a.ended + b.ended,
            sent: a.sent + b.sent,
            dropped: a.dropped + b.dropped,
        });
    }
}
