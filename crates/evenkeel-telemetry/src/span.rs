//! A span from its beginning to its end, written as OTLP sends it. The SDK's spans are more general
//! and pay for it: a builder, a lock and a copy for each; ours are made by three places of this
//! crate and have a bounded number of attributes.

use std::{
    fmt::Write as _,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use evenkeel::core::{Address, Code};
use http::HeaderMap;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};

use crate::{
    context,
    export::Queue,
    otlp::{SpanKind, StatusCode},
    sampler::Sampler,
    wire::{Value, Wire},
};

/// Bytes of a path that go into a span: a client may send any path, and spans are kept in memory.
const PATH_BYTES_MAX: usize = 256;
/// OTLP's flags of a span, beside W3C's: it is known whether the parent is remote, and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// Bytes that a span takes at first; most need no more.
const SPAN_BYTES: usize = 512;

/// The numbers of fields in OTLP's trace.proto.
mod field {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START_TIME: u32 = 7;
    pub(super) const END_TIME: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const EVENTS: u32 = 11;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;

    pub(super) const EVENT_TIME: u32 = 1;
    pub(super) const EVENT_NAME: u32 = 2;
    pub(super) const EVENT_ATTRIBUTES: u32 = 3;

    pub(super) const STATUS_MESSAGE: u32 = 2;
    pub(super) const STATUS_CODE: u32 = 3;
}

/// Makes spans and takes them when they end.
pub(crate) struct Tracer {
    sampler: Sampler,
    propagates: bool,
    queue: Arc<Queue>,
    ids: Ids,
}

/// A span that is recorded or not: what is below it has its context either way.
pub(crate) struct Begun {
    pub(crate) context: SpanContext,
    /// `None` when it is not sampled.
    pub(crate) span: Option<ActiveSpan>,
}

impl Tracer {
    pub(crate) fn new(sampler: Sampler, propagates: bool, queue: Arc<Queue>) -> Self {
        Self { sampler, propagates, queue, ids: Ids::new() }
    }

    /// The context that came with a call.
    pub(crate) fn extract(&self, headers: &HeaderMap) -> Option<SpanContext> {
        if self.propagates { context::extract(headers) } else { None }
    }

    /// The same, which another will take the place of.
    pub(crate) fn take(&self, headers: &mut HeaderMap) -> Option<SpanContext> {
        if self.propagates { context::take(headers) } else { None }
    }

    /// Has a call take the context along; its headers have none.
    pub(crate) fn inject(&self, context: &SpanContext, headers: &mut HeaderMap) {
        if self.propagates {
            context::inject(context, headers);
        }
    }

    /// The context of a span below `parent`, or of the first of a new trace. With it is decided
    /// whether the span is recorded.
    pub(crate) fn context(&self, parent: Option<&SpanContext>) -> SpanContext {
        let trace = parent.map_or_else(|| self.ids.trace(), SpanContext::trace_id);
        let is_sampled = self.sampler.samples(trace, parent);
        let flags = TraceFlags::NOT_SAMPLED.with_sampled(is_sampled);
        let state = parent.map_or(TraceState::NONE, |parent| parent.trace_state().clone());
        SpanContext::new(trace, self.ids.span(), flags, false, state)
    }

    /// A span below `parent`, or the first of a new trace.
    pub(crate) fn begin(
        self: &Arc<Self>,
        named: (SpanKind, &'static str),
        path: &str,
        parent: Option<&SpanContext>,
    ) -> Begun {
        let context = self.context(parent);
        let span = context.is_sampled().then(|| self.record(named, path, &context, parent));
        Begun { context, span }
    }

    /// A span that is recorded.
    pub(crate) fn record(
        self: &Arc<Self>,
        (kind, prefix): (SpanKind, &'static str),
        path: &str,
        context: &SpanContext,
        parent: Option<&SpanContext>,
    ) -> ActiveSpan {
        let method = cut(path.strip_prefix('/').unwrap_or(path));
        let is_remote = parent.is_some_and(SpanContext::is_remote);
        let mut wire = Wire::with_capacity(SPAN_BYTES);
        wire.bytes(field::TRACE_ID, &context.trace_id().to_bytes());
        wire.bytes(field::SPAN_ID, &context.span_id().to_bytes());
        wire.text(field::TRACE_STATE, &context.trace_state().header());
        if let Some(parent) = parent {
            wire.bytes(field::PARENT_SPAN_ID, &parent.span_id().to_bytes());
        }
        let remote = HAS_IS_REMOTE | if is_remote { IS_REMOTE } else { 0 };
        wire.fixed32(field::FLAGS, u32::from(context.trace_flags().to_u8()) | remote);
        wire.inside(field::NAME, |name| write_name(name, prefix, method));
        wire.int(field::KIND, kind as u64);
        let (start_unix_ns, began) = (unix_ns(SystemTime::now()), Instant::now());
        let mut span = ActiveSpan { wire, start_unix_ns, began, tracer: self.clone() };
        span.set("rpc.system", "grpc");
        if let Some((service, method)) = method.split_once('/') {
            span.set("rpc.service", service);
            span.set("rpc.method", method);
        }
        span
    }
}

/// gRFC A72: the slash becomes a dot, as in all gRPCs but C-core.
fn write_name(name: &mut Wire, prefix: &str, method: &str) {
    // Writing into memory does not fail.
    let _ = name.write_str(prefix);
    for part in method.split('/') {
        let _ = name.write_char('.');
        let _ = name.write_str(part);
    }
}

/// A span that is recorded. It must be ended; one that is dropped is lost.
pub(crate) struct ActiveSpan {
    /// What it has so far; its times and its status come when it ends.
    wire: Wire,
    start_unix_ns: u64,
    began: Instant,
    tracer: Arc<Tracer>,
}

impl ActiveSpan {
    /// Attributes are few and of bounded size; see the callers.
    pub(crate) fn set<'a>(&mut self, key: &'static str, value: impl Into<Value<'a>>) {
        self.wire.attribute(field::ATTRIBUTES, key, &value.into());
    }

    /// Where the other end of the connection is, as OpenTelemetry's conventions have it.
    pub(crate) fn set_peer(&mut self, peer: &Address) {
        match peer {
            Address::Tcp(at) => {
                self.set("network.peer.address", Value::Shown(&at.ip().to_canonical()));
                self.set("network.peer.port", Value::Int(at.port().into()));
            }
            other => self.set("network.peer.address", cut(&other.to_string())),
        }
    }

    /// It began earlier than it was made.
    pub(crate) fn backdate(&mut self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.start_unix_ns = self.start_unix_ns.saturating_sub(ns);
        self.began = self.began.checked_sub(by).unwrap_or(self.began);
    }

    pub(crate) fn event(
        &mut self,
        at: SystemTime,
        name: &str,
        attribute: Option<(&'static str, Value<'_>)>,
    ) {
        self.wire.inside(field::EVENTS, |event| {
            event.fixed64(field::EVENT_TIME, unix_ns(at));
            event.text(field::EVENT_NAME, name);
            if let Some((key, value)) = attribute {
                event.attribute(field::EVENT_ATTRIBUTES, key, &value);
            }
        });
    }

    /// The call or attempt ended with a status.
    pub(crate) fn end(mut self, code: u8) {
        self.set("rpc.grpc.status_code", Value::Int(code.into()));
        match Code::ALL.get(usize::from(code)) {
            Some(Code::Ok) => self.close(StatusCode::Ok, ""),
            Some(known) => self.fail(known.name()),
            None => self.fail(&format!("status {code}")),
        }
    }

    /// It ended without a status of the call's.
    pub(crate) fn fail(self, why: &str) {
        self.close(StatusCode::Error, why);
    }

    fn close(self, code: StatusCode, message: &str) {
        let Self { mut wire, start_unix_ns, began, tracer } = self;
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        wire.fixed64(field::START_TIME, start_unix_ns);
        wire.fixed64(field::END_TIME, start_unix_ns.saturating_add(took));
        wire.inside(field::STATUS, |status| {
            status.text(field::STATUS_MESSAGE, message);
            status.int(field::STATUS_CODE, code as u64);
        });
        tracer.queue.push(wire.into_bytes());
    }
}

/// The span that the application is in, if there is one.
pub(crate) fn current() -> Option<SpanContext> {
    let span = |context: &Context| context.span().span_context().clone();
    Context::map_current(|context| context.has_active_span().then(|| span(context)))
        .filter(SpanContext::is_valid)
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
    use prost::Message as _;

    use super::*;
    use crate::otlp::{self, Event, Status, attribute, text};

    fn taken(queue: &Queue) -> otlp::Span {
        let spans = queue.take();
        assert_eq!(spans.len(), 1);
        otlp::Span::decode(&*spans[0]).expect("prost reads it")
    }

    fn tracer(sampler: Sampler) -> (Arc<Tracer>, Arc<Queue>) {
        let queue = Arc::new(Queue::new(16, 8));
        (Arc::new(Tracer::new(sampler, true, queue.clone())), queue)
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
        let span = taken(&queue);
        assert_eq!(span.name, "Sent.a.B.C");
        assert_eq!(span.parent_span_id, parent.context.span_id().to_bytes());
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        assert_eq!(span.status.as_ref().map(Status::code), Some(StatusCode::Ok));
    }

    #[test]
    fn every_field_is_where_otlp_has_it() {
        let (tracer, queue) = tracer(Sampler::default());
        let state = "a=1".parse().expect("a state");
        let (trace, id) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]));
        let parent = SpanContext::new(trace, id, TraceFlags::SAMPLED, true, state);
        let Begun { context, span } = tracer.begin(SENT, "/a.B/C", Some(&parent));
        let mut span = span.expect("sampled");
        span.set("share", Value::Double(0.5));
        let at = UNIX_EPOCH + Duration::from_secs(7);
        span.event(at, "with", Some(("key", Value::Bool(true))));
        span.event(at, "without", None);
        span.end(Code::Unavailable as u8);
        let got = taken(&queue);
        let event = |name: &str, attributes| {
            let (time_unix_nano, name) = (7_000_000_000, name.to_owned());
            Event { time_unix_nano, name, attributes, ..Event::default() }
        };
        let int = |key, value| attribute(key, otlp::Value::IntValue(value));
        let expected = otlp::Span {
            trace_id: vec![1; 16],
            span_id: context.span_id().to_bytes().to_vec(),
            trace_state: "a=1".into(),
            parent_span_id: vec![2; 8],
            flags: 1 | HAS_IS_REMOTE | IS_REMOTE,
            name: "Sent.a.B.C".into(),
            kind: SpanKind::Client.into(),
            start_time_unix_nano: got.start_time_unix_nano,
            end_time_unix_nano: got.end_time_unix_nano,
            attributes: vec![
                attribute("rpc.system", text("grpc")),
                attribute("rpc.service", text("a.B")),
                attribute("rpc.method", text("C")),
                attribute("share", otlp::Value::DoubleValue(0.5)),
                int("rpc.grpc.status_code", 14),
            ],
            events: vec![
                event("with", vec![attribute("key", otlp::Value::BoolValue(true))]),
                event("without", Vec::new()),
            ],
            status: Some(Status { message: "UNAVAILABLE".into(), code: StatusCode::Error.into() }),
            ..otlp::Span::default()
        };
        assert_eq!(got, expected);
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
            let span = taken(&queue);
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
