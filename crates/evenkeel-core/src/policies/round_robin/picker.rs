//! Takes the READY children in turn.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{PickArgs, PickResult, Picker};

/// The turn outlives the picker, so that a new picker goes on where the old one was instead of
/// starting with the same endpoint each time the list changes.
pub(super) struct RoundRobinPicker {
    pub(super) children: Vec<Arc<dyn Picker>>,
    pub(super) turn: Arc<AtomicUsize>,
}

impl Picker for RoundRobinPicker {
    fn pick(&self, args: &PickArgs<'_>) -> PickResult {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match self.children.get(turn % self.children.len().max(1)) {
            Some(child) => child.pick(args),
            None => PickResult::Queue,
        }
    }
}
