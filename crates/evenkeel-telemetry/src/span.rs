//! A span from its beginning to its end, in OTLP's own form. The SDK's spans are more general and
//! pay for it: a builder, a lock and a copy for each; ours are made by three places of this crate
//! and have a bounded number of attributes.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use evenkeel::core::{Address, Code};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};

use crate::{
    export::Queue,
    otlp::{self, Event, KeyValue, SpanKind, Status, StatusCode, Value, attribute, text},
    sampler::Sampler,
};

/// Bytes of a path that go into a span: a client may send any path, and spans are kept in memory.
const PATH_BYTES_MAX: usize = 256;
/// OTLP's flags of a span, beside W3C's: it is known whether the parent is remote, and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Makes spans and takes them when they end.
pub(crate) struct Tracer {
    sampler: Sampler,
    queue: Arc<Queue>,
    ids: Ids,
}

/// A span that is recorded or not: its context goes on either way.
pub(crate) struct Begun {
    pub(crate) context: SpanContext,
    /// `None` when it is not sampled.
    pub(crate) span: Option<ActiveSpan>,
}

impl Tracer {
    pub(crate) fn new(sampler: Sampler, queue: Arc<Queue>) -> Self {
        Self { sampler, queue, ids: Ids::new() }
    }

    /// A span below `parent`, or the first of a new trace.
    pub(crate) fn begin(
        self: &Arc<Self>,
        (kind, prefix): (SpanKind, &'static str),
        path: &str,
        parent: Option<&SpanContext>,
    ) -> Begun {
        let trace = parent.map_or_else(|| self.ids.trace(), SpanContext::trace_id);
        let is_sampled = self.sampler.samples(trace, parent);
        let flags = TraceFlags::NOT_SAMPLED.with_sampled(is_sampled);
        let state = parent.map_or(TraceState::NONE, |parent| parent.trace_state().clone());
        let context = SpanContext::new(trace, self.ids.span(), flags, false, state);
        let span = is_sampled.then(|| self.record(kind, prefix, path, &context, parent));
        Begun { context, span }
    }

    fn record(
        self: &Arc<Self>,
        kind: SpanKind,
        prefix: &'static str,
        path: &str,
        context: &SpanContext,
        parent: Option<&SpanContext>,
    ) -> ActiveSpan {
        let method = cut(path.strip_prefix('/').unwrap_or(path));
        let is_remote = parent.is_some_and(SpanContext::is_remote);
        let span = otlp::Span {
            trace_id: context.trace_id().to_bytes().to_vec(),
            span_id: context.span_id().to_bytes().to_vec(),
            trace_state: context.trace_state().header(),
            parent_span_id: parent.map_or(Vec::new(), |p| p.span_id().to_bytes().to_vec()),
            flags: u32::from(context.trace_flags().to_u8())
                | HAS_IS_REMOTE
                | if is_remote { IS_REMOTE } else { 0 },
            // gRFC A72: the slash becomes a dot, as in all gRPCs but C-core.
            name: format!("{prefix}.{}", method.replace('/', ".")),
            kind: kind.into(),
            start_time_unix_nano: unix_ns(SystemTime::now()),
            attributes: method_attributes(method),
            ..otlp::Span::default()
        };
        ActiveSpan { span, began: Instant::now(), tracer: self.clone() }
    }
}

/// A span that is recorded. It must be ended; one that is dropped is lost.
pub(crate) struct ActiveSpan {
    span: otlp::Span,
    began: Instant,
    tracer: Arc<Tracer>,
}

impl ActiveSpan {
    /// Attributes are few and of bounded size; see the callers.
    pub(crate) fn set(&mut self, key: &'static str, value: Value) {
        self.span.attributes.push(attribute(key, value));
    }

    /// Where the other end of the connection is, as OpenTelemetry's conventions have it.
    pub(crate) fn set_peer(&mut self, peer: &Address) {
        match peer {
            Address::Tcp(at) => {
                self.set("network.peer.address", text(at.ip().to_canonical().to_string()));
                self.set("network.peer.port", Value::IntValue(at.port().into()));
            }
            other => self.set("network.peer.address", text(cut(&other.to_string()))),
        }
    }

    /// It began earlier than it was made.
    pub(crate) fn backdate(&mut self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.span.start_time_unix_nano = self.span.start_time_unix_nano.saturating_sub(ns);
        self.began = self.began.checked_sub(by).unwrap_or(self.began);
    }

    pub(crate) fn event(&mut self, at: SystemTime, name: &str, attributes: Vec<KeyValue>) {
        let (time_unix_nano, name) = (unix_ns(at), name.to_owned());
        let event = Event { time_unix_nano, name, attributes, ..Event::default() };
        self.span.events.push(event);
    }

    /// The call or attempt ended with a status.
    pub(crate) fn end(mut self, code: u8) {
        self.set("rpc.grpc.status_code", Value::IntValue(code.into()));
        let status = match Code::ALL.get(usize::from(code)) {
            Some(Code::Ok) => Status { code: StatusCode::Ok.into(), ..Status::default() },
            Some(known) => error(known.name().to_owned()),
            None => error(format!("status {code}")),
        };
        self.close(status);
    }

    /// It ended without a status of the call's.
    pub(crate) fn fail(self, why: &'static str) {
        self.close(error(why.to_owned()));
    }

    fn close(self, status: Status) {
        let Self { mut span, began, tracer } = self;
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        span.end_time_unix_nano = span.start_time_unix_nano.saturating_add(took);
        span.status = Some(status);
        tracer.queue.push(span);
    }
}

/// The span that the application is in, if there is one.
pub(crate) fn current() -> Option<SpanContext> {
    let span = |context: &Context| context.span().span_context().clone();
    Context::map_current(|context| context.has_active_span().then(|| span(context)))
        .filter(SpanContext::is_valid)
}

fn error(message: String) -> Status {
    Status { message, code: StatusCode::Error.into() }
}

fn method_attributes(method: &str) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(16);
    attributes.push(attribute("rpc.system", text("grpc")));
    if let Some((service, method)) = method.split_once('/') {
        attributes.push(attribute("rpc.service", text(service)));
        attributes.push(attribute("rpc.method", text(method)));
    }
    attributes
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(PATH_BYTES_MAX)]
}

fn unix_ns(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Ids of traces and spans. The generator of each thread has 64 bits of state, too few for ids that
/// no other process has; so they are shifted by what the operating system gave this process.
struct Ids {
    trace: u128,
    span: u64,
}

impl Ids {
    fn new() -> Self {
        // The one source of the system's randomness in the standard library.
        let random = || RandomState::new().hash_one(());
        Self { trace: (u128::from(random()) << 64) | u128::from(random()), span: random() }
    }

    fn trace(&self) -> TraceId {
        let id = fastrand::u128(..) ^ self.trace;
        TraceId::from_bytes(id.max(1).to_be_bytes())
    }

    fn span(&self) -> SpanId {
        let id = fastrand::u64(..) ^ self.span;
        SpanId::from_bytes(id.max(1).to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sampler: Sampler) -> (Arc<Tracer>, Arc<Queue>) {
        let queue = Arc::new(Queue::new(16, 8));
        (Arc::new(Tracer::new(sampler, queue.clone())), queue)
    }

    const SENT: (SpanKind, &str) = (SpanKind::Client, "Sent");

    #[test]
    fn a_child_has_its_parents_trace_and_another_id() {
        let (tracer, queue) = tracer(Sampler::default());
        let parent = tracer.begin(SENT, "/a.B/C", None);
        let child = tracer.begin(SENT, "/a.B/C", Some(&parent.context));
        assert_eq!(child.context.trace_id(), parent.context.trace_id());
        assert_ne!(child.context.span_id(), parent.context.span_id());
        child.span.expect("sampled").end(0);
        let spans = queue.take();
        assert_eq!(spans[0].name, "Sent.a.B.C");
        assert_eq!(spans[0].parent_span_id, parent.context.span_id().to_bytes());
        assert!(spans[0].end_time_unix_nano >= spans[0].start_time_unix_nano);
        assert_eq!(spans[0].status.as_ref().map(Status::code), Some(StatusCode::Ok));
    }

    #[test]
    fn what_is_not_sampled_has_ids_and_no_span() {
        let (tracer, _) = tracer(Sampler::ratio(0.0));
        let begun = tracer.begin(SENT, "/a.B/C", None);
        assert!(begun.span.is_none());
        assert!(begun.context.is_valid() && !begun.context.is_sampled());
    }

    #[test]
    fn paths_of_strangers_are_cut() {
        let (tracer, queue) = tracer(Sampler::default());
        for path in ["", "/", "no-slash", &format!("/é{}", "é".repeat(5000))] {
            tracer.begin(SENT, path, None).span.expect("sampled").end(99);
            let span = queue.take().remove(0);
            assert!(span.name.len() < 300, "{path:.20}");
            let message = span.status.expect("ended").message;
            assert_eq!(message, "status 99");
        }
    }

    #[test]
    fn ids_of_two_processes_differ_also_when_their_threads_are_seeded_alike() {
        let (one, two) = (Ids::new(), Ids::new());
        fastrand::seed(7);
        let first = (one.trace(), one.span());
        fastrand::seed(7);
        assert_ne!(first, (two.trace(), two.span()));
    }
}
