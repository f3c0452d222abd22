//! Streams as a resource. A server says how many it takes at once; h2 would queue what is beyond
//! that behind our back, where no picker can send it elsewhere. So each connection counts, and
//! calls that find nothing free stand in one line per channel.
//!
//! A stream that becomes free while calls wait is never free for all: it is handed along the line
//! until somebody wants it. With a mere wake-up, a caller in a loop would take the stream again
//! before the one that waited is polled, and with a picker that wants one certain connection, the
//! wake-up could go to a call that has no use for it while the one that has sleeps on.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    ops::Bound,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use super::Transport;
use crate::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

/// One of the streams that the server allows. When it is dropped it goes to the first call in line
/// or becomes free.
pub(crate) struct StreamSlot {
    pub(crate) transport: Arc<Transport>,
    /// The call with this ticket and those before it had the choice already.
    declined_by: Option<u64>,
    /// It carries no call but a stream of the channel's own.
    is_own: bool,
}

impl StreamSlot {
    /// Takes a slot if one is free.
    pub(crate) fn take(transport: &Arc<Transport>) -> Option<Self> {
        transport.seen.try_open().then(|| Self::new(transport.clone(), None))
    }

    /// Waits in line with the calls for a slot of one certain connection, for a stream of the
    /// channel's own: it takes one of those that the server allows, but keeps no channel busy.
    pub(crate) async fn wait_for_own(transport: &Arc<Transport>) -> Self {
        let mut slot = match Self::take(transport) {
            Some(slot) => slot,
            None => {
                let place = transport.queue.join();
                loop {
                    // Also after an offer: what became free meanwhile was not offered to us.
                    if let Some(slot) = Self::take(transport) {
                        break slot;
                    }
                    let slot = poll_fn(|cx| place.poll_offer(cx)).await;
                    if Arc::ptr_eq(&slot.transport, transport) {
                        break slot;
                    }
                    place.decline(slot);
                }
            }
        };
        slot.is_own = true;
        transport.seen.begin_own();
        slot
    }

    /// Its stream ended with OK. One of the channel's own is no call that succeeded.
    pub(crate) fn succeed(&self) {
        if !self.is_own {
            self.transport.seen.succeed();
        }
    }

    fn new(transport: Arc<Transport>, declined_by: Option<u64>) -> Self {
        Self { transport, declined_by, is_own: false }
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let Transport { seen, queue, .. } = &*self.transport;
        if self.is_own {
            seen.end_own();
        }
        if !queue.is_empty() && seen.is_usable() && seen.is_within_limit() {
            queue.give(&self.transport, self.declined_by);
            return;
        }
        seen.close_one();
        if !queue.is_empty() {
            // A call joined after we looked and may have tried before the slot was free.
            queue.offer_free(&self.transport);
        }
    }
}

#[derive(Default)]
struct Line {
    next_ticket: u64,
    /// By ticket, so in the order of arrival.
    places: BTreeMap<u64, InLine>,
}

#[derive(Default)]
struct InLine {
    waker: Option<Waker>,
    /// A slot, already counted as open, that is this call's to take or to decline.
    offer: Option<Arc<Transport>>,
}

/// The calls of a channel that wait for a stream.
#[derive(Default)]
pub(crate) struct SlotQueue {
    line: Mutex<Line>,
    /// The length of the line, so that a call that ends takes no lock when nobody waits. Together
    /// with the count of open streams it needs one total order: a call joins and then tries, a
    /// slot becomes free and then looks for who joined.
    len: AtomicUsize,
}

impl SlotQueue {
    fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// How many stand in line.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Stands at the end of the line. Whoever joins tries once more before waiting.
    pub(crate) fn join(self: &Arc<Self>) -> Place {
        let mut line = self.lock();
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        line.places.insert(ticket, InLine::default());
        self.len.store(line.places.len(), Ordering::SeqCst);
        Place { queue: self.clone(), ticket }
    }

    /// Offers what is free on a connection: its limit was raised, say.
    pub(crate) fn offer_free(&self, transport: &Arc<Transport>) {
        let seen = &transport.seen;
        while !self.is_empty() && seen.is_usable() && seen.try_open() && self.give(transport, None)
        {
        }
    }

    /// Hands an open slot to the first in line behind `after` that has no offer yet. Without one
    /// it becomes free; false then.
    fn give(&self, transport: &Arc<Transport>, after: Option<u64>) -> bool {
        let mut line = self.lock();
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut places = line.places.range_mut((behind, Bound::Unbounded));
        let Some((_, place)) = places.find(|(_, place)| place.offer.is_none()) else {
            // Under the lock: who joins from here on finds it free.
            transport.seen.close_one();
            return false;
        };
        place.offer = Some(transport.clone());
        let waker = place.waker.take();
        drop(line);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// No code that holds this lock can panic; should it ever, the line is whole all the same.
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's place in the line; dropping it leaves.
pub(crate) struct Place {
    queue: Arc<SlotQueue>,
    ticket: u64,
}

impl Place {
    /// Ready with a slot on some connection. A call that can't use it gives it to
    /// [`Place::decline`] and keeps its place.
    pub(crate) fn poll_offer(&self, cx: &mut Context<'_>) -> Poll<StreamSlot> {
        let mut line = self.queue.lock();
        let Some(place) = line.places.get_mut(&self.ticket) else { return Poll::Pending };
        if let Some(transport) = place.offer.take() {
            return Poll::Ready(StreamSlot::new(transport, None));
        }
        match &mut place.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Lets those behind have it.
    pub(crate) fn decline(&self, mut slot: StreamSlot) {
        slot.declined_by = Some(self.ticket);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.queue.lock();
        let left = line.places.remove(&self.ticket);
        self.queue.len.store(line.places.len(), Ordering::SeqCst);
        drop(line);
        if let Some(transport) = left.and_then(|place| place.offer) {
            drop(StreamSlot::new(transport, Some(self.ticket)));
        }
    }
}
