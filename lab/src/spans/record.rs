//! A span as the lab keeps it: what routing can be computed from, in a tenth of OTLP's form. A
//! phase of a thousand calls a second would else be hundreds of megabytes.

use evenkeel_telemetry::otlp::{self, KeyValue, SpanKind, StatusCode, Value};

use super::texts::{Text, Texts};

/// The greeter's method; others (health checks, channelz) are not the client's calls.
const SENT: &str = "Sent.helloworld.Greeter.SayHello";
const ATTEMPT: &str = "Attempt.helloworld.Greeter.SayHello";
const RECEIVED: &str = "Recv.helloworld.Greeter.SayHello";
/// Events of a span that are kept; a call that waits through a whole outage has some more.
const EVENTS_MAX: usize = 8;

/// What processes call themselves (`service.name`).
pub(crate) const CLIENT: &str = "client";
pub(crate) const GREETER: &str = "greeter";
pub(crate) const BALANCER: &str = "grpclb";
/// The Envoy beside a client, and the one before a backend.
pub(crate) const EGRESS: &str = "envoy-egress";
pub(crate) const INGRESS: &str = "envoy-ingress";

/// What a span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A call of the client.
    Sent,
    /// An attempt of it.
    Attempt,
    /// What the Envoy beside the client got.
    EgressIn,
    /// What it sent, one for each try.
    EgressOut,
    /// What the Envoy before a backend got.
    IngressIn,
    /// What it sent.
    IngressOut,
    /// A call at a greeter.
    Received,
    /// Health checks, streams of balancers.
    Other,
}

/// One span.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) trace: u128,
    pub(super) id: u64,
    /// 0 without one.
    pub(super) parent: u64,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) kind: Kind,
    /// gRPC's code; `None` of an attempt that broke off without one.
    pub(super) code: Option<u8>,
    pub(super) is_transparent: bool,
    pub(super) retries: u8,
    pub(super) process: u16,
    pub(super) name: Text,
    /// Where it went; of an attempt and of what an Envoy sent.
    pub(super) peer: Text,
    pub(super) policy: Text,
    pub(super) pod: Text,
    pub(super) zone: Text,
    /// What its status says, when it is an error.
    pub(super) problem: Text,
    pub(super) queued_us: u32,
    pub(super) events: Box<[(u64, Text)]>,
}

impl Record {
    /// What is kept of `span`, of the process number `process` that calls itself `service`. `None`
    /// of one whose ids are none.
    pub(super) fn of(
        span: &otlp::Span,
        (process, service): (u16, &str),
        texts: &mut Texts,
    ) -> Option<Self> {
        let trace = u128::from_be_bytes(span.trace_id.as_slice().try_into().ok()?);
        let id = number(&span.span_id)?;
        let parent = if span.parent_span_id.is_empty() { 0 } else { number(&span.parent_span_id)? };
        if trace == 0 || id == 0 {
            return None;
        }
        let status = span.status.as_ref();
        let problem = status.filter(|status| status.code == i32::from(StatusCode::Error));
        let mut record = Self {
            trace,
            id,
            parent,
            start_ns: span.start_time_unix_nano,
            end_ns: span.end_time_unix_nano.max(span.start_time_unix_nano),
            kind: kind(service, span),
            code: None,
            is_transparent: false,
            retries: 0,
            process,
            name: texts.keep(&span.name),
            peer: Text::EMPTY,
            policy: Text::EMPTY,
            pod: Text::EMPTY,
            zone: Text::EMPTY,
            problem: problem.map_or(Text::EMPTY, |status| texts.keep(&status.message)),
            queued_us: 0,
            events: events(span, texts),
        };
        record.read(&span.attributes, texts);
        Some(record)
    }

    fn read(&mut self, attributes: &[KeyValue], texts: &mut Texts) {
        let (mut address, mut port) = (None, None);
        for attribute in attributes {
            let Some(value) = attribute.value.as_ref().and_then(|any| any.value.as_ref()) else {
                continue;
            };
            match (attribute.key.as_str(), value) {
                ("rpc.grpc.status_code", Value::IntValue(code)) => {
                    self.code = u8::try_from(*code).ok();
                }
                // Envoy's tags are texts.
                ("grpc.status_code", Value::StringValue(code)) => self.code = code.parse().ok(),
                // Why it failed by itself; "-" when it did not.
                ("response_flags", Value::StringValue(flags)) if flags != "-" => {
                    self.problem = texts.keep(&format!("Envoy says {flags}"));
                }
                ("upstream_address", Value::StringValue(at)) => self.peer = texts.keep(at),
                ("network.peer.address", Value::StringValue(at)) => address = Some(at),
                ("network.peer.port", Value::IntValue(at)) => port = Some(*at),
                ("evenkeel.lb_policy", Value::StringValue(name)) => self.policy = texts.keep(name),
                ("evenkeel.backend.pod", Value::StringValue(name)) => self.pod = texts.keep(name),
                ("evenkeel.backend.zone", Value::StringValue(name)) => self.zone = texts.keep(name),
                ("evenkeel.queued_s", Value::DoubleValue(wait)) => {
                    // A cast saturates; a negative time is none.
                    self.queued_us = (wait * 1e6).ceil() as u32;
                }
                ("previous-rpc-attempts", Value::IntValue(count)) => {
                    self.retries = u8::try_from(*count).unwrap_or(u8::MAX);
                }
                ("transparent-retry", Value::BoolValue(is)) => self.is_transparent = *is,
                _ => {}
            }
        }
        // The other end of a server's connection has a port that nobody needs to know.
        if let (Kind::Attempt, Some(address)) = (self.kind, address) {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            self.peer = texts.keep(&format!("{address}{port}"));
        }
    }

    pub(super) fn is_ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Our own spans are known by their names, those of Envoys by who they are.
fn kind(service: &str, span: &otlp::Span) -> Kind {
    let is_client = span.kind == i32::from(SpanKind::Client);
    match service {
        EGRESS if is_client => Kind::EgressOut,
        EGRESS => Kind::EgressIn,
        INGRESS if is_client => Kind::IngressOut,
        INGRESS => Kind::IngressIn,
        CLIENT if span.name == SENT => Kind::Sent,
        CLIENT if span.name == ATTEMPT => Kind::Attempt,
        GREETER if span.name == RECEIVED => Kind::Received,
        _ => Kind::Other,
    }
}

fn events(span: &otlp::Span, texts: &mut Texts) -> Box<[(u64, Text)]> {
    let one = |event: &otlp::Event| {
        let value = event.attributes.first().and_then(|pair| pair.value.as_ref()?.value.as_ref());
        let name = match value {
            Some(Value::StringValue(value)) => format!("{}: {value}", event.name),
            _ => event.name.clone(),
        };
        (event.time_unix_nano, texts.keep(&name))
    };
    span.events.iter().take(EVENTS_MAX).map(one).collect()
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
