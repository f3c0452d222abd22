//! Tells the call layers and the meter how a call ended: exactly once, also when it is dropped.

use std::sync::Arc;

use http::request::Parts;
use tokio::time::Instant;

use super::{metered::Metered, outgoing::Outgoing};
use crate::{
    edge::{Code, Status},
    layers::{AttemptLayer, CallLayer, CallStart, OnCallEnd},
    meter::CallMeter,
};

/// Held by a call from its beginning to its end; empty without layers and a meter.
#[derive(Default)]
pub(crate) struct CallEnding {
    layers: Vec<OnCallEnd>,
    attempt_layers: Vec<Arc<dyn AttemptLayer>>,
    metered: Option<Metered>,
}

impl CallEnding {
    /// Runs the layers, in order, until one refuses.
    pub(crate) fn begin(
        &mut self,
        layers: &[Arc<dyn CallLayer>],
        parts: &mut Parts,
    ) -> Result<(), Status> {
        for layer in layers {
            let Parts { uri, headers, extensions, .. } = &mut *parts;
            let attempt_layers = &mut self.attempt_layers;
            let path = uri.path();
            let mut start = CallStart { path, headers, extensions, attempt_layers };
            if let Some(end) = layer.start(&mut start)? {
                self.layers.push(end);
            }
        }
        Ok(())
    }

    /// Those that the call's own layers asked for.
    pub(crate) fn attempt_layers(&self) -> &[Arc<dyn AttemptLayer>] {
        &self.attempt_layers
    }

    /// From now on the call is counted, if there is something that counts.
    pub(crate) fn meter(&mut self, meter: Option<&Arc<dyn CallMeter>>, path: &str, now: Instant) {
        self.metered = meter.map(|meter| Metered::begin(meter, path, now));
    }

    /// An attempt is about to send this body.
    pub(crate) fn sends(&mut self, body: &Outgoing) {
        if let Some(metered) = &mut self.metered {
            metered.sends(body.to_send());
        }
    }

    /// A piece of the response came.
    pub(crate) fn received(&mut self, data: &[u8]) {
        if let Some(metered) = &mut self.metered {
            metered.received(data);
        }
    }

    /// An attempt that the server never processed is sent again.
    pub(crate) fn attempt_lost(&mut self) {
        if let Some(metered) = &mut self.metered {
            metered.lost();
        }
    }

    /// An attempt failed and will be repeated, after a wait.
    pub(crate) fn attempt_failed(&mut self, code: Code) {
        if let Some(metered) = &mut self.metered {
            metered.failed(code);
        }
    }

    /// That wait is over.
    pub(crate) fn attempt_again(&mut self) {
        if let Some(metered) = &mut self.metered {
            metered.again();
        }
    }

    /// The call ended so; later endings don't count.
    pub(crate) fn finish(&mut self, code: Code) {
        self.tell(Some(code));
    }

    fn tell(&mut self, code: Option<Code>) {
        if let Some(metered) = self.metered.take() {
            metered.end(code.unwrap_or(Code::Cancelled));
        }
        // From the inside out.
        while let Some(end) = self.layers.pop() {
            end(code);
        }
    }
}

impl Drop for CallEnding {
    fn drop(&mut self) {
        self.tell(None);
    }
}
