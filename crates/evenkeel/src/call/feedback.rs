//! Tells a picker how its attempt ended: exactly once, also when the call is dropped.

use std::sync::Arc;

use evenkeel_core::{CallOutcome, CallSink};

/// Held by an attempt from the pick to its end.
pub(crate) struct Feedback(Option<(Arc<dyn CallSink>, u64)>);

impl Feedback {
    pub(crate) fn new(sink: Option<(Arc<dyn CallSink>, u64)>) -> Self {
        Self(sink)
    }

    /// The attempt ended so; later endings don't count.
    pub(crate) fn finish(&mut self, outcome: CallOutcome) {
        if let Some((sink, token)) = self.0.take() {
            sink.complete(token, outcome);
        }
    }
}

impl Drop for Feedback {
    fn drop(&mut self) {
        self.finish(CallOutcome::Cancelled);
    }
}
