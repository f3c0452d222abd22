//! What a user runs around every call that a server answers: tracing, say. A tower layer around the
//! routes sees calls as well, but neither a deadline that passes nor a handler that panics, which
//! are dealt with outside of it; and it puts each response body into a box.

use std::{fmt, net::SocketAddr, sync::Arc};

use http::{Extensions, HeaderMap};

use crate::{counted::Metered, streams::Progress};

/// Runs around each call; see [`crate::Builder::call_layer`]. It must not block.
pub trait CallLayer: Send + Sync + 'static {
    /// The call begins. Without a scope nothing more is told of it.
    fn start(&self, call: &mut CallStart<'_>) -> Option<Box<dyn CallScope>>;
}

/// A call from its beginning to its end.
pub trait CallScope: Send {
    /// Runs `piece`, once: a poll of the handler or of its response's body, on the task and thread
    /// where it runs. It does not run again after it has panicked.
    fn enter(&mut self, piece: &mut dyn FnMut());

    /// The call ended with this `grpc-status`; `None` when the client was gone before its end, or
    /// the handler's response had none.
    fn end(self: Box<Self>, status: Option<u8>);
}

/// A call that begins.
#[non_exhaustive]
pub struct CallStart<'a> {
    /// Its path, `/service/method`.
    pub path: &'a str,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The request's extensions, which the handler sees.
    pub extensions: &'a mut Extensions,
    /// Where the client's connection comes from.
    pub peer: Option<SocketAddr>,
}

/// The layer of a server's settings.
#[derive(Clone)]
pub(crate) struct Layer(pub(crate) Arc<dyn CallLayer>);

impl Layer {
    pub(crate) fn start(&self, mut call: CallStart<'_>) -> Option<Box<dyn CallScope>> {
        self.0.start(&mut call)
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Layer")
    }
}

/// What layer and meter know of one call, told exactly once how it ended.
#[derive(Default)]
pub(crate) struct Scope {
    layer: Option<Box<dyn CallScope>>,
    metered: Option<Metered>,
}

impl Scope {
    pub(crate) fn new(layer: Option<Box<dyn CallScope>>, metered: Option<Metered>) -> Self {
        Self { layer, metered }
    }

    /// The call's own share of its connection; returned where its request is to be counted.
    pub(crate) fn receives<'a>(
        &mut self,
        progress: &'a Arc<Progress>,
    ) -> Option<&'a Arc<Progress>> {
        self.metered.as_mut()?.receives(progress);
        Some(progress)
    }

    /// The head of the response is there.
    pub(crate) fn answered(&mut self, path: &str, head: &HeaderMap, status: Option<u8>) {
        if let Some(metered) = &mut self.metered {
            metered.answered(path, head, status);
        }
    }

    /// A piece of the response goes out.
    pub(crate) fn sends(&mut self, data: &[u8]) {
        if let Some(metered) = &mut self.metered {
            metered.sends(data);
        }
    }

    /// Runs a piece of the call. `None` when the scope did not run it.
    pub(crate) fn run<T>(&mut self, piece: impl FnOnce() -> T) -> Option<T> {
        let Some(scope) = &mut self.layer else { return Some(piece()) };
        let (mut piece, mut out) = (Some(piece), None);
        scope.enter(&mut || {
            if let Some(piece) = piece.take() {
                out = Some(piece());
            }
        });
        out
    }

    /// Later ends don't count.
    pub(crate) fn end(&mut self, status: Option<u8>) {
        if let Some(metered) = self.metered.take() {
            metered.end(status);
        }
        if let Some(scope) = self.layer.take() {
            scope.end(status);
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.end(None);
    }
}
