//! A server's spans (gRFC A72): `Recv.<method>` for each call, below the span whose context came
//! with it. While the handler runs it is OpenTelemetry's current span, so that calls which the
//! handler makes, and its own spans, are below it, and its log lines have its id.

use std::sync::Arc;

use evenkeel::core::Code;
use evenkeel_server::{CallLayer, CallScope, CallStart};
use opentelemetry::{Context, trace::TraceContextExt as _};

use crate::{
    otlp::SpanKind,
    span::{ActiveSpan, Begun, Tracer},
};

/// Makes the spans of one server's calls.
pub(crate) struct ServerSpans {
    tracer: Arc<Tracer>,
}

impl ServerSpans {
    pub(crate) fn new(tracer: Arc<Tracer>) -> Self {
        Self { tracer }
    }
}

impl CallLayer for ServerSpans {
    fn start(&self, call: &mut CallStart<'_>) -> Option<Box<dyn CallScope>> {
        let parent = self.tracer.extract(call.headers);
        let kind = (SpanKind::Server, "Recv");
        let Begun { context, mut span } = self.tracer.begin(kind, call.path, parent.as_ref());
        if let (Some(span), Some(peer)) = (&mut span, call.peer) {
            span.set_peer(&peer.into());
        }
        let context = Context::new().with_remote_span_context(context);
        Some(Box::new(Received { context, span }))
    }
}

struct Received {
    context: Context,
    span: Option<ActiveSpan>,
}

impl CallScope for Received {
    fn enter(&mut self, piece: &mut dyn FnMut()) {
        let _current = self.context.clone().attach();
        piece();
    }

    fn end(self: Box<Self>, status: Option<u8>) {
        if let Some(span) = self.span {
            // Without a status the client is gone, or has reset the stream.
            span.end(status.unwrap_or(Code::Cancelled as u8));
        }
    }
}
