//! What a call waits for before it can be sent, and how it is woken: by the next snapshot, or by a
//! slot that somebody hands to it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use evenkeel_core::Status as CoreStatus;
use pin_project_lite::pin_project;
use tokio::{sync::futures::OwnedNotified, time::Instant};

use crate::{
    channel::Shared,
    edge::Status,
    transport::{Place, StreamSlot},
};

/// What would let the call go on.
pub(crate) enum WaitFor {
    /// A picker that offers a connection; with why the present one fails, for a call that waits
    /// for ready.
    Picker(Option<CoreStatus>),
    /// A stream on one of the connections.
    Slot,
}

/// What woke the call.
pub(crate) enum Woken {
    Snapshot,
    Slot(StreamSlot),
}

pin_project! {
    /// A call that waits, on the channel's account.
    pub(crate) struct Waiting {
        wait_for: WaitFor,
        since: Instant,
        #[pin]
        changed: Option<OwnedNotified>,
        place: Option<Place>,
        account: Account,
    }
}

/// One of the calls that may wait.
struct Account(Arc<Shared>);

impl Drop for Account {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting {
    /// Fails when too many wait already.
    pub(crate) fn begin(shared: &Arc<Shared>, now: Instant) -> Result<Self, Status> {
        let max = shared.defaults.waiting_calls_max;
        let before = shared.waiting.fetch_add(1, Ordering::Relaxed);
        let account = Account(shared.clone());
        if before >= max {
            return Err(Status::resource_exhausted(format!(
                "target {}: {max} calls wait for a connection already; see waiting_calls_max",
                shared.target
            )));
        }
        let wait_for = WaitFor::Picker(None);
        Ok(Self { wait_for, since: now, changed: None, place: None, account })
    }

    /// When the wait began.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Starts to listen. False when it did not listen before: then what it listens for may have
    /// happened already, and the caller looks once more.
    pub(crate) fn arm(self: Pin<&mut Self>, for_what: WaitFor, unused: Option<StreamSlot>) -> bool {
        let mut this = self.project();
        let shared = &this.account.0;
        let needs_place = matches!(for_what, WaitFor::Slot);
        let armed = this.changed.is_some() && (this.place.is_some() || !needs_place);
        *this.wait_for = for_what;
        if let (Some(place), Some(slot)) = (&this.place, unused) {
            place.decline(slot);
        }
        if this.changed.is_none() {
            this.changed.set(Some(shared.changed.clone().notified_owned()));
            if let Some(changed) = this.changed.as_pin_mut() {
                changed.enable();
            }
        }
        if this.place.is_none() && needs_place {
            *this.place = Some(shared.queue.join());
        }
        armed
    }

    /// Ready when it is time to pick again.
    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Woken> {
        let mut this = self.project();
        if let Some(place) = this.place
            && let Poll::Ready(slot) = place.poll_offer(cx)
        {
            return Poll::Ready(Woken::Slot(slot));
        }
        let Some(changed) = this.changed.as_mut().as_pin_mut() else { return Poll::Pending };
        ready!(changed.poll(cx));
        this.changed.set(None);
        Poll::Ready(Woken::Snapshot)
    }
}

impl fmt::Display for Waiting {
    /// For the end of a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.account.0;
        match &self.wait_for {
            WaitFor::Slot => write!(f, "while waiting for a free stream to {}", shared.target),
            WaitFor::Picker(None) => {
                let (target, state) = (&shared.target, shared.state());
                write!(f, "while waiting for a connection to {target}, which is {state}")
            }
            WaitFor::Picker(Some(why)) => {
                let target = &shared.target;
                write!(f, "while waiting for a connection to {target}: {}", why.message)
            }
        }
    }
}
