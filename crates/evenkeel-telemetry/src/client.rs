//! A channel's spans (gRFC A72): `Sent.<method>` for each call, and below it `Attempt.<method>` for
//! each attempt that the call was sent in, with where it went and what it had waited for. Layers of
//! the channel make them; its recorder brings what they can't know, an endpoint's pod and what the
//! channel did while a call waited.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use evenkeel::{
    AttemptKind, AttemptLayer, AttemptStart, CallLayer, CallStart, OnAttemptEnd, OnCallEnd,
    core::{
        Address, CallOutcome, Code, ConnectivityState, Endpoint,
        observe::{Event, Recorder},
    },
};
use opentelemetry::trace::SpanContext;
use tonic::Status;

use crate::{
    otlp::SpanKind,
    span::{self, ActiveSpan, Begun, Tracer},
    wire::Value,
};

/// Changes of the channel's state that are remembered, for calls that waited through them.
const CHANGES_MAX: usize = 32;

/// Makes the spans of one channel's calls.
pub(crate) struct ClientSpans {
    tracer: Arc<Tracer>,
    target: Arc<str>,
    seen: Arc<Seen>,
}

impl ClientSpans {
    pub(crate) fn new(tracer: Arc<Tracer>, target: &str) -> Self {
        Self { tracer, target: target.into(), seen: Arc::default() }
    }

    /// What hears the channel's events.
    pub(crate) fn recorder(&self) -> Arc<dyn Recorder> {
        self.seen.clone()
    }
}

/// Makes the spans of one call's attempts, below its own.
struct Attempts {
    parent: SpanContext,
    tracer: Arc<Tracer>,
    seen: Arc<Seen>,
}

impl CallLayer for ClientSpans {
    fn start(&self, call: &mut CallStart<'_>) -> Result<Option<OnCallEnd>, Status> {
        // An application that traces by itself has a current span, or has put one's context into
        // the headers by an interceptor of its own.
        let carried = self.tracer.take(call.headers);
        let parent = span::current().or(carried);
        let context = self.tracer.context(parent.as_ref());
        if !context.is_sampled() {
            // Servers heed that; for that they have to be told once.
            self.tracer.inject(&context, call.headers);
            return Ok(None);
        }
        let kind = (SpanKind::Client, "Sent");
        let mut span = self.tracer.record(kind, call.path, &context, parent.as_ref());
        span.set("grpc.target", &*self.target);
        let (tracer, seen) = (self.tracer.clone(), self.seen.clone());
        call.attempt_layers.push(Arc::new(Attempts { parent: context, tracer, seen }));
        Ok(Some(Box::new(move |code| {
            span.end(code.map_or(Code::Cancelled as u8, |code| code as u8));
        })))
    }
}

impl AttemptLayer for Attempts {
    fn start(&self, attempt: &mut AttemptStart<'_>) -> Result<Option<OnAttemptEnd>, Status> {
        let kind = (SpanKind::Internal, "Attempt");
        let Begun { context, span } = self.tracer.begin(kind, attempt.path, Some(&self.parent));
        self.tracer.inject(&context, attempt.headers);
        let Some(mut span) = span else { return Ok(None) };
        let is_transparent = attempt.kind == AttemptKind::TransparentRetry;
        span.set("previous-rpc-attempts", Value::Int(attempt.retries.into()));
        span.set("transparent-retry", Value::Bool(is_transparent));
        span.set_peer(attempt.backend);
        span.set("evenkeel.lb_policy", attempt.policy);
        span.set("evenkeel.subchannel", Value::Int(attempt.subchannel.index.into()));
        self.seen.describe(attempt.backend, &mut span);
        if !attempt.queued.is_zero() {
            span.set("evenkeel.queued_s", Value::Double(attempt.queued.as_secs_f64()));
            let now = SystemTime::now();
            self.seen.tell_changes(now.checked_sub(attempt.queued), &mut span);
            span.event(now, "Delayed LB pick complete", None);
            span.backdate(attempt.queued);
        }
        Ok(Some(Box::new(move |outcome| end(span, outcome))))
    }
}

fn end(span: ActiveSpan, outcome: CallOutcome) {
    match outcome {
        CallOutcome::Finished(status) => span.end(status.unwrap_or(Code::Unknown as u8)),
        CallOutcome::Cancelled => span.end(Code::Cancelled as u8),
        CallOutcome::NotSent => span.fail("not sent, or not processed by the server"),
        _ => span.fail("the stream broke or the deadline passed"),
    }
}

/// What a channel's events say that attempts want to know.
#[derive(Default)]
struct Seen {
    /// Endpoints of which more is known than their addresses. As many as the resolver found.
    endpoints: ArcSwap<HashMap<Address, Described>>,
    /// The channel's last states, the newest last. Looked at by sampled calls that waited.
    changes: Mutex<VecDeque<(SystemTime, ConnectivityState)>>,
}

struct Described {
    pod: Option<Arc<str>>,
    zone: Option<Arc<str>>,
}

impl Seen {
    fn resolved(&self, endpoints: &[Endpoint]) {
        let mut known = HashMap::new();
        for endpoint in endpoints {
            let (pod, zone) = (&endpoint.attributes().pod, &endpoint.attributes().zone);
            if pod.is_none() && zone.is_none() {
                continue;
            }
            for address in endpoint.addresses() {
                let described = Described { pod: pod.clone(), zone: zone.clone() };
                known.insert(address.clone(), described);
            }
        }
        if !(known.is_empty() && self.endpoints.load().is_empty()) {
            self.endpoints.store(Arc::new(known));
        }
    }

    fn changed(&self, state: ConnectivityState) {
        // A list of pairs is whole after every step.
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.len() == CHANGES_MAX {
            changes.pop_front();
        }
        changes.push_back((SystemTime::now(), state));
    }

    fn describe(&self, backend: &Address, span: &mut ActiveSpan) {
        let endpoints = self.endpoints.load();
        let Some(described) = endpoints.get(backend) else { return };
        if let Some(pod) = &described.pod {
            span.set("evenkeel.backend.pod", &**pod);
        }
        if let Some(zone) = &described.zone {
            span.set("evenkeel.backend.zone", &**zone);
        }
    }

    /// The changes since then, as events.
    fn tell_changes(&self, since: Option<SystemTime>, span: &mut ActiveSpan) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, state) in changes.iter().filter(|(at, _)| since.is_none_or(|since| *at >= since)) {
            let state = ("grpc.connectivity_state", Value::Shown(state));
            span.event(*at, "Channel state changed", Some(state));
        }
    }
}

impl Recorder for Seen {
    fn record(&self, event: &Event<'_>) {
        match event {
            Event::ChannelState(state) => self.changed(*state),
            Event::ResolverUpdate { endpoints, .. } => self.resolved(endpoints),
            _ => {}
        }
    }
}
