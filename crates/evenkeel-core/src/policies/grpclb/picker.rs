//! Walks the balancer's list: the n-th call takes the n-th entry, which is a drop or a server with
//! its token. An entry whose server is not READY is taken by the READY ones in turn, so that the
//! share of the drops stays what the balancer wants while servers come and go.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{HeaderName, HeaderValue};

use super::stats::{Calls, DropCounter};
use crate::{Pick, PickArgs, PickResult, Picker};

/// The header that carries the token of the entry (gRPC's grpclb.md).
pub const LB_TOKEN: HeaderName = HeaderName::from_static("lb-token");

/// One turn.
pub(super) enum Step {
    Drop(Arc<DropCounter>),
    /// The READY entry of this number.
    Ready(usize),
    /// The server is not READY.
    Spare,
}

/// An entry whose server is READY.
pub(super) struct Ready {
    pub(super) picker: Arc<dyn Picker>,
    pub(super) token: Option<HeaderValue>,
}

/// Where the walk is; it outlives the pickers, so that a new list does not begin with its first
/// entry each time.
#[derive(Default)]
pub(super) struct Turns {
    walk: AtomicUsize,
    spare: AtomicUsize,
}

pub(super) struct ListPicker {
    pub(super) steps: Vec<Step>,
    pub(super) ready: Vec<Ready>,
    pub(super) turns: Arc<Turns>,
    pub(super) calls: Arc<Calls>,
}

impl Picker for ListPicker {
    fn pick(&self, args: &PickArgs<'_>) -> PickResult {
        let turn = self.turns.walk.fetch_add(1, Ordering::Relaxed);
        let number = match self.steps.get(turn % self.steps.len().max(1)) {
            Some(Step::Drop(counter)) => {
                self.calls.drop_one(args.random, counter);
                return PickResult::Drop(counter.dropped.clone());
            }
            Some(Step::Ready(number)) => *number,
            Some(Step::Spare) | None => self.turns.spare.fetch_add(1, Ordering::Relaxed),
        };
        let Some(ready) = self.ready.get(number % self.ready.len().max(1)) else {
            return PickResult::Queue;
        };
        match ready.picker.pick(args) {
            PickResult::Complete(Pick { subchannel, metadata, on_complete: None }) => {
                let metadata = match &ready.token {
                    Some(value) => Some((LB_TOKEN, value.clone())),
                    None => metadata,
                };
                let on_complete = Some((self.calls.clone() as _, args.random));
                PickResult::Complete(Pick { subchannel, metadata, on_complete })
            }
            other => other,
        }
    }
}
