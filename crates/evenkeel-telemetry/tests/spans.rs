//! From a channel and a server to a receiver of OTLP: as many spans as calls, each below the right
//! one, with what there is to know of it.

mod receiver;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use evenkeel::{
    Channel,
    core::{
        Address, Attributes, Endpoint, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate,
        Target, TargetError,
    },
};
use evenkeel_telemetry::{
    Telemetry,
    otlp::{Event, Span, SpanKind, StatusCode},
};
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use opentelemetry::{
    Context,
    context::FutureExt as _,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use receiver::{LIMIT, Receiver, attribute, greeters::greeter};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

const SENT: &str = "Sent.helloworld.Greeter.SayHello";
const ATTEMPT: &str = "Attempt.helloworld.Greeter.SayHello";
const RECV: &str = "Recv.helloworld.Greeter.SayHello";

async fn call(channel: &Channel, name: &str) -> Result<String, Status> {
    let request = Request::new(HelloRequest { name: name.into() });
    let mut client = GreeterClient::new(channel.clone());
    let answer = timeout(LIMIT, client.say_hello(request)).await.expect("in time");
    answer.map(|response| response.into_inner().message)
}

fn channel(telemetry: &Telemetry, backends: &[SocketAddr]) -> Channel {
    let list: Vec<String> = backends.iter().map(ToString::to_string).collect();
    let target = format!("ipv4:{}", list.join(","));
    telemetry.channel(Channel::builder(&target), &target).build().unwrap()
}

/// Waits until so many spans have ended: a server's ends when its trailers are handed on, which may
/// be after the client's.
async fn ended(telemetry: &Telemetry, spans: u64) {
    let wait = async {
        while telemetry.counts().ended < spans {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, wait).await.expect("in time");
}

fn by_id(spans: Vec<Span>) -> BTreeMap<Vec<u8>, Span> {
    spans.into_iter().map(|span| (span.span_id.clone(), span)).collect()
}

async fn spans_are_calls_exactly_over(protocol: &str) {
    const CALLS: usize = 500;
    let receiver = Receiver::start().await;
    let telemetry = Telemetry::start(&receiver.settings(protocol, &[])).unwrap();
    let backends = [greeter(&telemetry).await, greeter(&telemetry).await];
    let backends = backends.map(|backend| backend.at);
    let channel = channel(&telemetry, &backends);
    for k in 0..CALLS {
        let name = if k % 10 == 0 { "fail" } else { "you" };
        assert_eq!(call(&channel, name).await.is_ok(), k % 10 != 0);
        if k % 200 == 0 {
            telemetry.flush(LIMIT).await;
        }
    }
    ended(&telemetry, 3 * CALLS as u64).await;
    let counts = telemetry.shutdown(LIMIT).await;
    assert_eq!((counts.sent, counts.dropped), (3 * CALLS as u64, 0));

    let (sent, attempts) = (by_id(receiver.named(SENT)), by_id(receiver.named(ATTEMPT)));
    let received = receiver.named(RECV);
    let all = [sent.len(), attempts.len(), received.len(), receiver.spans().len()];
    assert_eq!(all, [CALLS, CALLS, CALLS, 3 * CALLS]);
    let mut at = BTreeMap::<String, usize>::new();
    for span in &received {
        let attempt = &attempts[&span.parent_span_id];
        let call = &sent[&attempt.parent_span_id];
        assert!(call.parent_span_id.is_empty());
        assert_eq!(attempt.trace_id, call.trace_id);
        assert_eq!(span.trace_id, call.trace_id);
        let kinds = [call, attempt, span].map(Span::kind);
        assert_eq!(kinds, [SpanKind::Client, SpanKind::Internal, SpanKind::Server]);
        let codes = [call, attempt, span].map(|s| attribute(s, "rpc.grpc.status_code").unwrap());
        assert!(codes == ["0", "0", "0"] || codes == ["5", "5", "5"], "{codes:?}");
        assert_eq!(attribute(attempt, "network.peer.address").unwrap(), "127.0.0.1");
        *at.entry(attribute(attempt, "network.peer.port").unwrap()).or_default() += 1;
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    let is_error = |span: &&Span| span.status.as_ref().unwrap().code() == StatusCode::Error;
    assert_eq!(sent.values().filter(is_error).count(), CALLS / 10);
    // The routing, from the spans.
    let ports = backends.map(|backend| at[&backend.port().to_string()]);
    assert!(ports[0].abs_diff(ports[1]) <= 1, "{ports:?}");
    let resource = receiver.resources().remove(0);
    assert_eq!(resource["service.name"], "test");
}

#[tokio::test]
async fn spans_are_calls_exactly_over_grpc() {
    spans_are_calls_exactly_over("grpc").await;
}

#[tokio::test]
async fn spans_are_calls_exactly_over_http() {
    spans_are_calls_exactly_over("http/protobuf").await;
}

#[tokio::test]
async fn without_propagators_the_two_sides_of_a_call_are_two_traces() {
    let receiver = Receiver::start().await;
    let settings = receiver.settings("grpc", &[("OTEL_PROPAGATORS", "none")]);
    let telemetry = Telemetry::start(&settings).unwrap();
    let backend = greeter(&telemetry).await;
    call(&channel(&telemetry, &[backend.at]), "you").await.unwrap();
    ended(&telemetry, 3).await;
    telemetry.shutdown(LIMIT).await;
    let [sent, attempt, received] =
        [SENT, ATTEMPT, RECV].map(|name| receiver.named(name).remove(0));
    assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&sent.trace_id, &sent.span_id));
    assert!(received.parent_span_id.is_empty());
    assert_ne!(received.trace_id, sent.trace_id);
}

#[tokio::test]
async fn headers_and_resource_go_with_every_request() {
    let receiver = Receiver::start().await;
    for protocol in ["grpc", "http/protobuf"] {
        let more = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,x-tenant=7"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=client-1"),
        ];
        let telemetry = Telemetry::start(&receiver.settings(protocol, &more)).unwrap();
        let backend = greeter(&Telemetry::off()).await;
        call(&channel(&telemetry, &[backend.at]), "you").await.unwrap();
        telemetry.shutdown(LIMIT).await;
    }
    let (headers, resources) = (receiver.headers(), receiver.resources());
    assert_eq!((headers.len(), resources.len()), (2, 2));
    for (headers, resource) in headers.iter().zip(&resources) {
        assert_eq!(headers["authorization"], "Bearer x");
        assert_eq!(headers["x-tenant"], "7");
        assert_eq!(resource["k8s.pod.name"], "client-1");
    }
}

#[tokio::test]
async fn a_call_that_nobody_takes_has_a_span_and_no_attempt() {
    let receiver = Receiver::start().await;
    let telemetry = Telemetry::start(&receiver.settings("grpc", &[])).unwrap();
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = call(&channel(&telemetry, &[nobody]), "you").await.expect_err("nobody is there");
    assert_eq!(error.code(), Code::Unavailable);
    telemetry.shutdown(LIMIT).await;
    let spans = receiver.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].name, SENT);
    assert_eq!(spans[0].status.as_ref().unwrap().message, "UNAVAILABLE");
}

#[tokio::test]
async fn panics_deadlines_and_cancelled_calls_end_their_spans_on_both_sides() {
    let receiver = Receiver::start().await;
    let telemetry = Telemetry::start(&receiver.settings("grpc", &[])).unwrap();
    let backend = greeter(&telemetry).await;
    let channel = channel(&telemetry, &[backend.at]);
    assert_eq!(call(&channel, "panic").await.expect_err("it panics").code(), Code::Internal);
    let mut client = GreeterClient::new(channel.clone());
    let mut request = Request::new(HelloRequest { name: "hang".into() });
    request.set_timeout(Duration::from_millis(200));
    let late = timeout(LIMIT, client.say_hello(request)).await.expect("in time");
    assert_eq!(late.expect_err("it hangs").code(), Code::DeadlineExceeded);
    ended(&telemetry, 6).await;
    // Dropped when the server has it.
    let request = Request::new(HelloRequest { name: "hang".into() });
    let dropped = tokio::spawn(async move { client.say_hello(request).await });
    backend.hangs(2).await;
    dropped.abort();
    ended(&telemetry, 8).await;
    backend.handle.drain();
    telemetry.shutdown(LIMIT).await;
    let codes = |name: &str| -> Vec<String> {
        let spans = receiver.named(name).into_iter();
        spans.map(|span| attribute(&span, "rpc.grpc.status_code").unwrap_or_default()).collect()
    };
    assert_eq!(codes(SENT), ["13", "4", "1"]);
    assert_eq!(codes(ATTEMPT), ["13", "", "1"]);
    let received = codes(RECV);
    assert_eq!(received[0], "13");
    // Either the server's own clock ended it, or the client's reset came first.
    assert!(received[1] == "4" || received[1] == "1", "{received:?}");
}

fn remote(is_sampled: bool) -> SpanContext {
    let flags = TraceFlags::NOT_SAMPLED.with_sampled(is_sampled);
    let (trace, span) = (TraceId::from_bytes([7; 16]), SpanId::from_bytes([9; 8]));
    SpanContext::new(trace, span, flags, true, TraceState::NONE)
}

#[tokio::test]
async fn the_applications_current_span_is_the_parent_and_its_sampling_is_heeded() {
    let receiver = Receiver::start().await;
    let telemetry = Telemetry::start(&receiver.settings("grpc", &[])).unwrap();
    let backend = greeter(&telemetry).await;
    let channel = channel(&telemetry, &[backend.at]);
    for is_sampled in [true, false] {
        let context = Context::new().with_remote_span_context(remote(is_sampled));
        call(&channel, "you").with_context(context).await.unwrap();
    }
    ended(&telemetry, 3).await;
    telemetry.shutdown(LIMIT).await;
    let spans = receiver.spans();
    assert_eq!(spans.len(), 3, "only the sampled call has spans, on both sides");
    assert!(spans.iter().all(|span| span.trace_id == [7; 16]));
    assert_eq!(receiver.named(SENT)[0].parent_span_id, [9; 8]);
}

/// Finds one endpoint when it is told to, with the attributes of a pod.
struct Late {
    at: SocketAddr,
    now: Arc<tokio::sync::Notify>,
}

impl ResolverFactory for Late {
    fn schemes(&self) -> &[&str] {
        &["late"]
    }

    fn default_authority(&self, _target: &Target) -> Result<String, TargetError> {
        Ok("late".into())
    }

    fn start(&self, _: &Target, sink: Arc<dyn ResolverSink>) -> Result<ResolverTask, TargetError> {
        let (at, now) = (self.at, self.now.clone());
        Ok(Box::pin(async move {
            now.notified().await;
            let mut attributes = Attributes::default();
            attributes.pod = Some("greeter-7".into());
            attributes.zone = Some("a".into());
            let endpoint = Endpoint::new(Address::from(at)).with_attributes(attributes);
            sink.update(ResolverUpdate::new(vec![endpoint]));
        }))
    }
}

#[tokio::test]
async fn an_attempt_says_how_long_it_waited_for_what_and_to_which_pod_it_went() {
    let receiver = Receiver::start().await;
    let telemetry = Telemetry::start(&receiver.settings("grpc", &[])).unwrap();
    let backend = greeter(&Telemetry::off()).await;
    let now = Arc::new(tokio::sync::Notify::new());
    let late = Late { at: backend.at, now: now.clone() };
    let builder = Channel::builder("late:///x").register_resolver(Arc::new(late));
    let channel = telemetry.channel(builder, "late:///x").build().unwrap();
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel, "you").await }
    });
    let waits = async {
        while channel.snapshot().waiting.calls == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, waits).await.expect("in time");
    now.notify_one();
    timeout(LIMIT, waiting).await.expect("in time").unwrap().unwrap();
    telemetry.shutdown(LIMIT).await;
    let attempt = receiver.named(ATTEMPT).remove(0);
    let value = |key: &str| attribute(&attempt, key);
    assert_eq!(value("evenkeel.backend.pod").as_deref(), Some("greeter-7"));
    assert_eq!(value("evenkeel.backend.zone").as_deref(), Some("a"));
    assert_eq!(value("evenkeel.lb_policy").as_deref(), Some("round_robin"));
    assert_eq!(value("previous-rpc-attempts").as_deref(), Some("0"));
    assert_eq!(value("transparent-retry").as_deref(), Some("false"));
    let queued: f64 = value("evenkeel.queued_s").unwrap().parse().unwrap();
    assert!(queued > 0.0);
    let events: Vec<&str> = attempt.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(events.last(), Some(&"Delayed LB pick complete"));
    let states = attempt.events.iter().filter(|event| event.name == "Channel state changed");
    let state =
        |event: &Event| receiver::attributes(&event.attributes)["grpc.connectivity_state"].clone();
    let states: Vec<String> = states.map(state).collect();
    assert_eq!(states.last().map(String::as_str), Some("READY"));
    let sent = receiver.named(SENT).remove(0);
    assert!(attempt.start_time_unix_nano + 1_000_000 >= sent.start_time_unix_nano);
    assert_eq!(attribute(&sent, "grpc.target").as_deref(), Some("late:///x"));
}
