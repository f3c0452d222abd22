//! What a call sees of the policy: the READY backends, frozen. A pick takes no lock and allocates
//! nothing; it looks at every backend once, which is fine for hundreds and not for tens of
//! thousands (a ring would be the answer there).

use std::sync::Arc;

use evenkeel::core::{PickArgs, PickResult, Picker};
use http::HeaderName;

use crate::hash;

/// A READY backend.
pub(crate) struct Backend {
    /// The hash of its addresses.
    pub(crate) key: u64,
    /// Its child's picker.
    pub(crate) picker: Arc<dyn Picker>,
}

/// The READY backends, at least one.
pub(crate) struct StickyPicker {
    pub(crate) header: HeaderName,
    pub(crate) backends: Vec<Backend>,
}

impl Picker for StickyPicker {
    fn pick(&self, args: &PickArgs<'_>) -> PickResult {
        // A call without the header may go anywhere.
        let call = match args.headers.get(&self.header) {
            Some(value) => hash::of_bytes(value.as_bytes()),
            None => args.random,
        };
        // Rendezvous: each backend has a score for this call, and the highest wins.
        match self.backends.iter().max_by_key(|b| hash::score(b.key, call)) {
            Some(backend) => backend.picker.pick(args),
            None => PickResult::Queue,
        }
    }
}
