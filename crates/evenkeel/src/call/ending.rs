//! Tells the call layers how a call ended: exactly once, also when it is dropped.

use std::sync::Arc;

use http::request::Parts;

use crate::{
    edge::{Code, Status},
    layers::{CallLayer, CallStart, OnCallEnd},
};

/// Held by a call from its beginning to its end; empty without layers.
#[derive(Default)]
pub(crate) struct CallEnding(Vec<OnCallEnd>);

impl CallEnding {
    /// Runs the layers, in order, until one refuses.
    pub(crate) fn begin(
        &mut self,
        layers: &[Arc<dyn CallLayer>],
        parts: &mut Parts,
    ) -> Result<(), Status> {
        for layer in layers {
            let Parts { uri, headers, extensions, .. } = &mut *parts;
            let mut start = CallStart { path: uri.path(), headers, extensions };
            self.0.extend(layer.start(&mut start)?);
        }
        Ok(())
    }

    /// The call ended so; later endings don't count.
    pub(crate) fn finish(&mut self, code: Code) {
        self.tell(Some(code));
    }

    fn tell(&mut self, code: Option<Code>) {
        // From the inside out.
        while let Some(end) = self.0.pop() {
            end(code);
        }
    }
}

impl Drop for CallEnding {
    fn drop(&mut self) {
        self.tell(None);
    }
}
