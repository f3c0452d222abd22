//! Tells a picker and the attempt layers how an attempt ended: exactly once, also when the call is
//! dropped.

use std::sync::Arc;

use evenkeel_core::{CallOutcome, CallSink};

use crate::{
    edge::Status,
    layers::{AttemptLayer, AttemptStart, OnAttemptEnd},
};

/// Held by an attempt from the pick to its end.
pub(crate) struct Feedback {
    sink: Option<(Arc<dyn CallSink>, u64)>,
    layers: Vec<OnAttemptEnd>,
}

impl Feedback {
    pub(crate) fn new(sink: Option<(Arc<dyn CallSink>, u64)>) -> Self {
        Self { sink, layers: Vec::new() }
    }

    /// The attempt has a stream: it counts from now on.
    pub(crate) fn start(&self) {
        if let Some((sink, token)) = &self.sink {
            sink.begin(*token);
        }
    }

    /// Runs the layers, in order, until one refuses.
    pub(crate) fn begin(
        &mut self,
        layers: &[Arc<dyn AttemptLayer>],
        mut start: AttemptStart<'_>,
    ) -> Result<(), Status> {
        for layer in layers {
            self.layers.extend(layer.start(&mut start)?);
        }
        Ok(())
    }

    /// The attempt ended so; later endings don't count.
    pub(crate) fn finish(&mut self, outcome: CallOutcome) {
        if let Some((sink, token)) = self.sink.take() {
            sink.complete(token, outcome);
        }
        // From the inside out.
        while let Some(end) = self.layers.pop() {
            end(outcome);
        }
    }
}

impl Drop for Feedback {
    fn drop(&mut self) {
        self.finish(CallOutcome::Cancelled);
    }
}
