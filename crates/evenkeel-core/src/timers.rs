//! The one set of timers of an engine. Both maps forget a timer when it is cancelled: most are (an
//! attempt succeeds, a subchannel goes), and a heap would keep them until they come up.

use std::collections::BTreeMap;

use crate::{Nanos, SubchannelId};

/// Names a timer that a policy set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(u64);

/// Whom a timer wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakes {
    /// The policy that set it.
    Policy,
    /// A subchannel whose backoff ends.
    Subchannel(SubchannelId),
    /// A subchannel's health check whose backoff ends.
    Health(SubchannelId),
}

#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeMap<(Nanos, TimerId), Wakes>,
    at: BTreeMap<TimerId, Nanos>,
    next: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Nanos, wakes: Wakes) -> TimerId {
        let id = TimerId(self.next);
        self.next += 1;
        self.due.insert((at, id), wakes);
        self.at.insert(id, at);
        id
    }

    pub(crate) fn cancel(&mut self, id: TimerId) {
        if let Some(at) = self.at.remove(&id) {
            self.due.remove(&(at, id));
        }
    }

    /// When the next timer is due.
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Nanos) -> Option<(TimerId, Wakes)> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, id), wakes) = entry.remove_entry();
        self.at.remove(&id);
        Some((id, wakes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_of_time_then_of_setting_and_never_when_cancelled() {
        let mut t = Timers::default();
        let late = t.set(20, Wakes::Policy);
        let first = t.set(10, Wakes::Policy);
        let second = t.set(10, Wakes::Policy);
        let gone = t.set(5, Wakes::Policy);
        t.cancel(gone);
        assert_eq!(t.next_at(), Some(10));
        assert_eq!(t.pop_due(9), None);
        assert_eq!(t.pop_due(15).map(|x| x.0), Some(first));
        assert_eq!(t.pop_due(15).map(|x| x.0), Some(second));
        assert_eq!(t.pop_due(15), None);
        assert_eq!(t.pop_due(20).map(|x| x.0), Some(late));
        assert_eq!(t.next_at(), None);
    }
}
