//! Brings inputs to the child that they concern. A child creates subchannels, begins watches and
//! sets timers through the same [`Ctx`] as its parent; the router watches what comes and goes
//! during its `handle` and remembers whose it is, so that an event costs one look-up per level of
//! the tree.

use std::collections::BTreeMap;

use crate::{Ctx, Input, LbPolicy, SubchannelId, TimerId, WatchEvent, WatchId, policy::Owned};

/// Whose each subchannel, timer and watch is. `K` names a child.
pub struct Router<K> {
    subchannels: BTreeMap<SubchannelId, K>,
    timers: BTreeMap<TimerId, K>,
    watches: BTreeMap<WatchId, K>,
}

impl<K> Default for Router<K> {
    fn default() -> Self {
        Self { subchannels: BTreeMap::new(), timers: BTreeMap::new(), watches: BTreeMap::new() }
    }
}

impl<K: Copy> Router<K> {
    /// The child that an input about a subchannel, a timer or a watch is for; `None` for inputs
    /// that concern everybody, and for what nobody owns any more.
    pub fn owner(&self, input: &Input<'_>) -> Option<K> {
        match input {
            Input::SubchannelState { id, .. } | Input::SubchannelHealth { id, .. } => {
                self.subchannels.get(id).copied()
            }
            Input::WatchEvent { id, .. } => self.watches.get(id).copied(),
            Input::Timer(id) => self.timers.get(id).copied(),
            _ => None,
        }
    }

    /// Hands `input` to the child named `key` and notes what it creates. True when the child has
    /// something new to publish.
    pub fn deliver(
        &mut self,
        key: K,
        child: &mut dyn LbPolicy,
        input: Input<'_>,
        ctx: &mut Ctx<'_>,
    ) -> bool {
        match input {
            Input::Timer(id) => drop(self.timers.remove(&id)),
            Input::WatchEvent { id, event: WatchEvent::Ended(_) } => drop(self.watches.remove(&id)),
            _ => {}
        }
        let mark = ctx.mark();
        let publishes = ctx.intercept_publish(|ctx| child.handle(input, ctx));
        for owned in ctx.owned_since(mark) {
            match *owned {
                Owned::Subchannel(id) => drop(self.subchannels.insert(id, key)),
                Owned::SubchannelGone(id) => drop(self.subchannels.remove(&id)),
                Owned::Timer(id) => drop(self.timers.insert(id, key)),
                Owned::TimerGone(id) => drop(self.timers.remove(&id)),
                Owned::Watch(id) => drop(self.watches.insert(id, key)),
                Owned::WatchGone(id) => drop(self.watches.remove(&id)),
            }
        }
        publishes
    }

    /// Shuts down all subchannels and cancels all timers and watches of children that `keep` does
    /// not want.
    pub fn retain(&mut self, keep: impl Fn(K) -> bool, ctx: &mut Ctx<'_>) {
        self.subchannels.retain(|&id, &mut key| {
            let kept = keep(key);
            if !kept {
                ctx.shutdown_subchannel(id);
            }
            kept
        });
        self.timers.retain(|&id, &mut key| {
            let kept = keep(key);
            if !kept {
                ctx.cancel_timer(id);
            }
            kept
        });
        self.watches.retain(|&id, &mut key| {
            let kept = keep(key);
            if !kept {
                ctx.unwatch(id);
            }
            kept
        });
    }
}
