//! The newest calls of a show that goes on. Nobody judges it, so what is older than the call that
//! is shown is forgotten: a show may go on for days.

use std::collections::HashSet;

use super::{
    example::Trace,
    ledger::Ledger,
    record::{Kind, Record},
};

/// How long the spans of a call may be on their way. What is not whole by then was to come from a
/// process that was killed.
const WAIT_NS: u64 = 3_000_000_000;

/// Calls whose spans are all here.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    /// The newest that was answered.
    pub(crate) answered: Option<Trace>,
    /// The newest that failed.
    pub(crate) failed: Option<Trace>,
}

impl Ledger {
    /// The newest calls, of those that came since this was last asked; they and older ones are
    /// forgotten.
    pub(super) fn take_latest(&mut self) -> Latest {
        let sent = || self.records.iter().filter(|record| record.kind == Kind::Sent);
        let newest = |is_ok: bool| {
            let whole =
                sent().filter(|record| record.is_ok() == is_ok && self.is_whole(record.trace));
            let newest = whole.max_by_key(|record| record.end_ns)?;
            Some((newest.end_ns, self.drawn(newest.trace)))
        };
        let (answered, failed) = (newest(true), newest(false));
        let shown_ns = answered.iter().chain(&failed).map(|(end_ns, _)| *end_ns).max();
        let done: HashSet<u128> = sent()
            .filter(|record| shown_ns.is_some_and(|shown| record.end_ns <= shown))
            .map(|record| record.trace)
            .collect();
        let last_ns = self.records.iter().map(|record| record.end_ns).max().unwrap_or_default();
        let late_ns = last_ns.saturating_sub(WAIT_NS);
        self.retain(|record| record.end_ns > late_ns && !done.contains(&record.trace));
        let trace = |found: Option<(u64, Trace)>| found.map(|(_, trace)| trace);
        Latest { answered: trace(answered), failed: trace(failed) }
    }

    fn drawn(&self, trace: u128) -> Trace {
        let mut spans: Vec<&Record> =
            self.records.iter().filter(|record| record.trace == trace).collect();
        spans.sort_unstable_by_key(|record| record.start_ns);
        Trace::of(self, &spans)
    }
}
