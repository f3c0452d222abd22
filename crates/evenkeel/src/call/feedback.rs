//! Tells a picker and the attempt layers how an attempt ended: exactly once, also when the call is
//! dropped.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{Address, CallOutcome, CallSink, SubchannelId};
use http::Request;

use super::request::Call;
use crate::{
    channel::Snapshot,
    edge::Status,
    layers::{AttemptKind, AttemptLayer, AttemptStart, OnAttemptEnd},
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
    pub(crate) fn begin<'a>(
        &mut self,
        layers: impl IntoIterator<Item = &'a Arc<dyn AttemptLayer>>,
        mut start: AttemptStart<'_>,
    ) -> Result<(), Status> {
        for layer in layers {
            if let Some(end) = layer.start(&mut start)? {
                self.layers.push(end);
            }
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

/// What attempt layers are told beside where the attempt goes.
pub(crate) struct Why {
    pub(crate) subchannel: SubchannelId,
    pub(crate) retries: u32,
    pub(crate) kind: AttemptKind,
    pub(crate) queued: Duration,
}

/// Runs the attempt layers; with the first that refuses the attempt ends, and its call.
pub(crate) fn run_layers<'a>(
    layers: impl IntoIterator<Item = &'a Arc<dyn AttemptLayer>>,
    snapshot: &Snapshot,
    call: &Call,
    backend: &Address,
    request: &mut Request<()>,
    feedback: &mut Feedback,
    Why { subchannel, retries, kind, queued }: Why,
) -> Result<(), Status> {
    let start = AttemptStart {
        path: call.path(),
        headers: request.headers_mut(),
        backend,
        retries,
        kind,
        extensions: &call.extensions,
        subchannel,
        policy: &snapshot.policy,
        queued,
    };
    let allowed = feedback.begin(layers, start);
    if allowed.is_err() {
        feedback.finish(CallOutcome::NotSent);
    }
    allowed
}
