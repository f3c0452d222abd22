//! What is counted for the balancer: calls whose pick came from its list, each attempt once. The
//! counters only grow and the reports are differences, so that a report takes nothing from calls
//! that end meanwhile, and what a lost balancer did not hear goes to the next one.
//!
//! A call may end while a report is made. It is read backwards (kinds of end, ends, beginnings) and
//! written forwards, so that no report has more ends than the beginnings up to it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{CallOutcome, CallSink, ClientStats, Dropped, Status};

/// Counters that threads don't share, if they are lucky.
const STRIPES: u64 = 16;
/// The tokens of drops that are counted apart; drops beyond them are counted under an empty one.
pub const DROP_TOKENS_MAX: usize = 1_024;

#[derive(Default)]
#[repr(align(128))]
struct Stripe {
    started: AtomicU64,
    finished: AtomicU64,
    failed_to_send: AtomicU64,
    known_received: AtomicU64,
}

/// The counters of calls.
#[derive(Default)]
pub(super) struct Calls {
    stripes: [Stripe; STRIPES as usize],
}

impl Calls {
    fn stripe(&self, token: u64) -> &Stripe {
        &self.stripes[(token % STRIPES) as usize]
    }

    /// A call was dropped.
    pub(super) fn drop_one(&self, random: u64, drop: &DropCounter) {
        let stripe = self.stripe(random);
        stripe.started.fetch_add(1, Ordering::Relaxed);
        stripe.finished.fetch_add(1, Ordering::Release);
        drop.count.fetch_add(1, Ordering::Release);
    }

    fn sum(&self, field: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        let each = self.stripes.iter().map(|stripe| field(stripe).load(Ordering::Acquire));
        each.fold(0, u64::wrapping_add)
    }
}

impl CallSink for Calls {
    fn begin(&self, token: u64) {
        self.stripe(token).started.fetch_add(1, Ordering::Relaxed);
    }

    fn complete(&self, token: u64, outcome: CallOutcome) {
        let stripe = self.stripe(token);
        if outcome == CallOutcome::Void {
            return;
        }
        stripe.finished.fetch_add(1, Ordering::Release);
        let kind = match outcome {
            CallOutcome::Finished(_) => &stripe.known_received,
            CallOutcome::NotSent => &stripe.failed_to_send,
            _ => return,
        };
        kind.fetch_add(1, Ordering::Release);
    }
}

/// Drops of one token.
pub(super) struct DropCounter {
    /// What a dropped call is told.
    pub(super) dropped: Dropped,
    count: AtomicU64,
}

struct Drops {
    counter: Arc<DropCounter>,
    reported: u64,
}

/// The policy's side of the counters.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) calls: Arc<Calls>,
    drops: BTreeMap<Arc<str>, Drops>,
    reported: ClientStats,
}

impl Stats {
    /// The counter of a token.
    pub(super) fn drop_counter(&mut self, token: &Arc<str>) -> Arc<DropCounter> {
        let token = match self.drops.contains_key(token) || self.drops.len() < DROP_TOKENS_MAX {
            true => token.clone(),
            false => "".into(),
        };
        let drops = self.drops.entry(token.clone()).or_insert_with(|| {
            let text = format!("the balancer drops this call (token {token:?})");
            let dropped = Dropped { status: Status::unavailable(text), category: token };
            let count = AtomicU64::new(0);
            Drops { counter: Arc::new(DropCounter { dropped, count }), reported: 0 }
        });
        drops.counter.clone()
    }

    /// What happened since the last report.
    pub(super) fn take(&mut self) -> ClientStats {
        let mut report = ClientStats::default();
        self.drops.retain(|token, drops| {
            let count = drops.counter.count.load(Ordering::Acquire);
            let new = count.wrapping_sub(drops.reported);
            drops.reported = count;
            if new > 0 {
                report.drops.insert(token.clone(), new);
            }
            // No picker has it any more, so that nothing can come.
            new > 0 || Arc::strong_count(&drops.counter) > 1
        });
        let since = |sum: u64, last: &mut u64| sum.wrapping_sub(std::mem::replace(last, sum));
        let (calls, last) = (&self.calls, &mut self.reported);
        report.known_received = since(calls.sum(|s| &s.known_received), &mut last.known_received);
        report.failed_to_send = since(calls.sum(|s| &s.failed_to_send), &mut last.failed_to_send);
        report.finished = since(calls.sum(|s| &s.finished), &mut last.finished);
        report.started = since(calls.sum(|s| &s.started), &mut last.started);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_counted_once_and_as_what_it_was() {
        let mut stats = Stats::default();
        let calls = stats.calls.clone();
        let ends = [
            CallOutcome::Finished(Some(0)),
            CallOutcome::Finished(Some(14)),
            CallOutcome::Finished(None),
            CallOutcome::Failed,
            CallOutcome::Cancelled,
            CallOutcome::NotSent,
            CallOutcome::Void,
        ];
        let tokens = [0, 1, 17, u64::MAX, 4, 5, 6, 7];
        tokens.iter().filter(|token| **token != 6).for_each(|token| calls.begin(*token));
        for (token, outcome) in tokens.into_iter().zip(ends) {
            calls.complete(token, outcome);
        }
        let counter = stats.drop_counter(&"lb".into());
        calls.drop_one(9, &counter);
        let want = ClientStats {
            started: 8,
            finished: 7,
            failed_to_send: 1,
            known_received: 3,
            drops: BTreeMap::from([("lb".into(), 1)]),
        };
        assert_eq!(stats.take(), want);
        assert!(stats.take().is_zero());
        calls.complete(tokens[7], CallOutcome::Finished(Some(0)));
        let later = ClientStats { finished: 1, known_received: 1, ..ClientStats::default() };
        assert_eq!(stats.take(), later);
    }

    #[test]
    fn tokens_are_forgotten_when_no_list_has_them_and_are_bounded() {
        let mut stats = Stats::default();
        let calls = stats.calls.clone();
        let old = stats.drop_counter(&"old".into());
        calls.drop_one(0, &old);
        drop(old);
        assert_eq!(stats.take().drops, BTreeMap::from([("old".into(), 1)]));
        assert!(stats.take().is_zero());
        assert!(stats.drops.is_empty());
        let kept: Vec<_> =
            (0..DROP_TOKENS_MAX + 10).map(|i| stats.drop_counter(&i.to_string().into())).collect();
        kept.iter().for_each(|counter| calls.drop_one(0, counter));
        let drops = stats.take().drops;
        assert_eq!((drops.len(), drops[""]), (DROP_TOKENS_MAX + 1, 10));
        assert_eq!(drops.values().sum::<u64>(), DROP_TOKENS_MAX as u64 + 10);
    }
}
