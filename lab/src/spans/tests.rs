//! Ledgers filled with made-up requests, and what is said of them; and one receiver with real
//! calls, greeters and exporters.

use std::collections::BTreeMap;

use evenkeel_telemetry::otlp::{
    AnyValue, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, SpanKind, Status, StatusCode,
    Value,
};

use super::{
    check::{self, CALLS},
    figures::Found,
    ledger::Ledger,
    told::Told,
    *,
};
use crate::client::SpanCounts;

const A: &str = "127.0.0.1";
const B: &str = "127.0.0.2";
const MS: u64 = 1_000_000;
const START: u64 = 1_700_000_000_000 * MS;

fn pair(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

/// A span of call `trace`; ids are its own numbers.
fn span(trace: u128, (id, parent): (u64, u64), name: &str, code: u8) -> Span {
    let parent = if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() };
    let start = START + u64::try_from(trace).unwrap() * 10 * MS + id * MS / 10;
    let error = Status { message: "no luck".into(), code: StatusCode::Error.into() };
    Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: parent,
        name: name.to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + (10 - id) * MS / 5,
        attributes: vec![pair("rpc.grpc.status_code", Value::IntValue(code.into()))],
        status: (code != 0).then_some(error),
        ..Span::default()
    }
}

fn sent(trace: u128, code: u8) -> Span {
    span(trace, (1, 0), "Sent.helloworld.Greeter.SayHello", code)
}

fn attempt(trace: u128, to: &str) -> Span {
    let mut made = span(trace, (2, 1), "Attempt.helloworld.Greeter.SayHello", 0);
    made.attributes.extend([
        text("network.peer.address", to),
        pair("network.peer.port", Value::IntValue(8000)),
        text("evenkeel.lb_policy", "round_robin"),
    ]);
    made
}

fn received(trace: u128, parent: u64) -> Span {
    span(trace, (9, parent), "Recv.helloworld.Greeter.SayHello", 0)
}

fn envoy(trace: u128, ids: (u64, u64), kind: SpanKind) -> Span {
    let mut made = span(trace, ids, "egress greeter", 0);
    made.kind = kind.into();
    made.attributes = vec![text("grpc.status_code", "0"), text("upstream_address", "127.0.0.1:80")];
    made
}

fn request(service: &str, instance: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let attributes = vec![text("service.name", service), text("service.instance.id", instance)];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let of = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![of] }
}

/// Three calls: two answered, by A and by B, and one that failed without an attempt.
fn client(ledger: &mut Ledger) {
    let spans = vec![sent(1, 0), attempt(1, A), sent(2, 0), attempt(2, B), sent(3, 14)];
    ledger.take(request(CLIENT, "c", spans));
    let told = Told {
        calls: 3,
        ok: 2,
        by_backend: BTreeMap::from([(A.to_owned(), 1), (B.to_owned(), 1)]),
        transparent_retries: 0,
        given_up: 0,
        attempts: None,
        spans: Some(SpanCounts { ended: 5, sent: 5, dropped: 0 }),
    };
    ledger.clients.insert("c".to_owned(), told);
}

fn whole() -> Ledger {
    let mut ledger = Ledger::default();
    client(&mut ledger);
    ledger.take(request(GREETER, A, vec![received(1, 2)]));
    ledger.take(request(GREETER, B, vec![received(2, 2)]));
    ledger
}

/// What the check says, and whether it holds.
fn verdict(ledger: &Ledger) -> (bool, String) {
    let parts = vec![check::spans_are_calls(ledger, &Found::of(ledger))];
    let check = check::all("a.b.spans_are_calls", CALLS, parts);
    (check.holds, check.seen)
}

/// For the report's tests.
pub(crate) fn made_up() -> SpanFigures {
    let mut ledger = whole();
    let mut queued = attempt(4, A);
    queued.attributes.push(pair("evenkeel.queued_s", Value::DoubleValue(0.0025)));
    queued.events.push(evenkeel_telemetry::otlp::Event {
        time_unix_nano: START + 41 * MS,
        name: "Delayed LB pick complete".into(),
        ..Default::default()
    });
    ledger.take(request(CLIENT, "c", vec![sent(4, 0), queued]));
    ledger.take(request(GREETER, A, vec![received(4, 2)]));
    ledger.published.insert(B.to_owned(), START as f64 / 1e9 + 0.0105);
    Found::of(&ledger).figures
}

#[test]
fn spans_that_are_the_clients_calls_hold() {
    let ledger = whole();
    let (holds, seen) = verdict(&ledger);
    assert!(holds, "{seen}");
    assert_eq!(seen, "3 Sent, 2 Attempt, 2 Recv, 0 dropped");
    assert_eq!(ledger.missing(), 0);
    let figures = Found::of(&ledger).figures;
    assert_eq!((figures.calls, figures.ok, figures.unsent), (3, 2, 1));
    assert_eq!(figures.by_code, BTreeMap::from([("UNAVAILABLE".to_owned(), 1)]));
    assert_eq!(figures.picks, BTreeMap::from([("round_robin".to_owned(), 2)]));
    let rows = figures.over_time.rows.iter();
    let rows: Vec<u64> = rows.map(|row| row.calls.iter().sum()).collect();
    assert_eq!(rows, [1, 1]);
    assert_eq!(figures.over_time.fail.iter().sum::<u64>(), 1);
}

#[test]
fn a_show_sees_the_newest_whole_calls_and_keeps_what_may_still_become_whole() {
    let mut ledger = whole();
    // Answered later than the others, but the greeter's span is not here yet.
    ledger.take(request(CLIENT, "c", vec![sent(4, 0), attempt(4, A)]));
    let latest = ledger.take_latest();
    let rows = |trace: Option<example::Trace>| -> Vec<String> {
        trace
            .map_or_else(Vec::new, |trace| trace.spans.into_iter().map(|row| row.process).collect())
    };
    assert_eq!(
        latest.answered.as_ref().map(|trace| &*trace.trace_id).map(|id| &id[31..]),
        Some("2")
    );
    assert_eq!(rows(latest.answered), [CLIENT, CLIENT, GREETER]);
    assert_eq!(rows(latest.failed), [CLIENT]);
    assert_eq!(ledger.records.len(), 2, "the fourth call's alone");
    assert!(ledger.take_latest().answered.is_none());
    ledger.take(request(GREETER, A, vec![received(4, 2)]));
    assert_eq!(rows(ledger.take_latest().answered), [CLIENT, CLIENT, GREETER]);
    assert_eq!((ledger.records.len(), ledger.missing()), (0, 0));
    // What never becomes whole is forgotten with the time.
    ledger.take(request(GREETER, A, vec![received(5, 2)]));
    ledger.take(request(CLIENT, "c", vec![sent(1_000, 14)]));
    ledger.take_latest();
    assert_eq!(ledger.records.len(), 0);
}

/// Something that is not as it should be.
type Change = fn(&mut Ledger);

#[test]
fn each_span_that_is_not_there_is_told() {
    let told = |change: Change| {
        let mut ledger = whole();
        change(&mut ledger);
        verdict(&ledger)
    };
    let changes: [(Change, &str); 8] = [
        (|of| of.clients.get_mut("c").unwrap().calls += 1, "3 calls by spans, 4 counted"),
        (|of| of.clients.get_mut("c").unwrap().ok += 1, "2 answered calls by spans, 3 counted"),
        (|of| of.clients.get_mut("c").unwrap().spans = None, "c made no spans"),
        (|of| of.clients.get_mut("c").unwrap().attempts = Some(1), "2 attempts by spans"),
        (
            |of| {
                let told = of.clients.get_mut("c").unwrap();
                (told.calls, told.transparent_retries) = (told.ok, 1);
            },
            "0 transparent retries by spans, 1 counted",
        ),
        (
            |of| of.clients.get_mut("c").unwrap().spans.as_mut().unwrap().dropped = 1,
            "c: 0 spans did not get through, 1 dropped",
        ),
        (
            |of| {
                of.take(request(GREETER, A, vec![received(7, 2)]));
            },
            "1 traces without their beginning",
        ),
        (
            |of| {
                of.take(request(CLIENT, "c", vec![Span::default()]));
            },
            "1 spans without ids",
        ),
    ];
    for (change, said) in changes {
        let (holds, seen) = told(change);
        assert!(!holds && seen.contains(said), "expected {said}, got {seen}");
    }
    assert!(!verdict(&Ledger::default()).0, "nothing was seen");
}

#[test]
fn an_answer_without_its_greeters_span_is_lost_only_with_a_process_that_was_killed() {
    let mut ledger = Ledger::default();
    client(&mut ledger);
    ledger.take(request(GREETER, A, vec![received(1, 2)]));
    assert_eq!(ledger.missing(), 1);
    let (holds, seen) = verdict(&ledger);
    assert!(!holds && seen.contains("127.0.0.2: 0 answered by spans, 1 counted"), "{seen}");
    ledger.killed.insert(B.to_owned());
    let (holds, seen) = verdict(&ledger);
    assert!(holds && seen.ends_with("1 lost with 127.0.0.2, which was killed"), "{seen}");
    // The other one was not.
    ledger.killed = [A.to_owned()].into();
    assert!(!verdict(&ledger).0);
}

#[test]
fn calls_that_a_client_gave_up_may_have_spans_and_answers_or_not() {
    let mut ledger = whole();
    let told = ledger.clients.get_mut("c").unwrap();
    (told.calls, told.ok, told.given_up) = (4, 1, 2);
    *told.by_backend.get_mut(A).unwrap() = 0;
    let (holds, seen) = verdict(&ledger);
    assert!(holds && seen.ends_with("2 calls given up at the client's end"), "{seen}");
    ledger.clients.get_mut("c").unwrap().calls = 6;
    let (holds, seen) = verdict(&ledger);
    assert!(!holds && seen.contains("3 calls by spans, 4 to 6 counted"), "{seen}");
}

#[test]
fn what_there_is_no_room_for_is_refused_and_told() {
    let mut ledger = Ledger::of(4);
    client(&mut ledger);
    assert_eq!(ledger.refused, 1);
    let (holds, seen) = verdict(&ledger);
    assert!(!holds && seen.contains("1 spans more than the lab keeps"), "{seen}");
}

#[test]
fn a_trace_crosses_both_envoys_or_is_broken() {
    let links = [
        (EGRESS, vec![envoy(1, (3, 2), SpanKind::Server), envoy(1, (4, 3), SpanKind::Client)]),
        (INGRESS, vec![envoy(1, (5, 4), SpanKind::Server), envoy(1, (6, 5), SpanKind::Client)]),
    ];
    let of = |without: Option<&str>, parent: u64| {
        let mut ledger = Ledger::default();
        ledger.expect(ledger::EGRESS | ledger::INGRESS);
        ledger.take(request(CLIENT, "c", vec![sent(1, 0), attempt(1, A)]));
        ledger.clients.insert("c".to_owned(), Told::default());
        for (service, spans) in &links {
            if without != Some(service) {
                ledger.take(request(service, "", spans.clone()));
            }
        }
        ledger.take(request(GREETER, A, vec![received(1, parent)]));
        let parts = vec![check::one_trace(&ledger, &Found::of(&ledger))];
        (ledger.missing(), check::all("a.b.one_trace", check::CHAIN, parts))
    };
    let (missing, check) = of(None, 6);
    assert!(check.holds && missing == 0, "{}", check.seen);
    assert_eq!(check.seen, "1 of 1 answered calls, 7 spans each");
    for without in [EGRESS, INGRESS] {
        let (missing, check) = of(Some(without), 6);
        assert!(!check.holds && missing == 1, "{}", check.seen);
    }
    // Past the second Envoy: its spans are there, and the greeter's is not below them.
    let (missing, check) = of(None, 4);
    assert!(!check.holds && missing == 0, "{}", check.seen);
    assert!(check.seen.contains("1 are broken"), "{}", check.seen);
}

#[test]
fn what_an_envoy_sends_again_is_told_with_why() {
    let mut ledger = Ledger::default();
    ledger.take(request(CLIENT, "c", vec![sent(1, 0), attempt(1, A)]));
    ledger.clients.insert("c".to_owned(), Told::default());
    let mut broken = envoy(1, (4, 3), SpanKind::Client);
    broken.attributes = vec![text("response_flags", "UF")];
    let again = envoy(1, (5, 3), SpanKind::Client);
    ledger.take(request(EGRESS, "", vec![envoy(1, (3, 2), SpanKind::Server), broken, again]));
    ledger.take(request(GREETER, A, vec![received(1, 5)]));
    let figures = Found::of(&ledger).figures;
    assert_eq!((figures.attempts.envoy_retries, figures.picks["envoy"]), (1, 2));
    let example = figures.trace_example.expect("it was answered");
    let statuses: Vec<&str> = example.spans.iter().map(|of| of.status.as_str()).collect();
    assert_eq!(statuses, ["OK", "OK", "OK", "Envoy says UF", "OK", "OK"]);
}

#[test]
fn a_trace_is_shown_as_a_tree_with_what_is_known_of_each_span() {
    let figures = made_up();
    let example = figures.trace_example.as_ref().expect("calls were answered");
    let spans: Vec<_> = example.spans.iter().map(|of| (of.depth, of.process.as_str())).collect();
    assert_eq!(spans, [(0, CLIENT), (1, CLIENT), (2, GREETER)]);
    assert_eq!(example.spans[1].attributes["policy"], "round_robin");
    let failed = figures.trace_failed.as_ref().expect("one failed");
    assert_eq!(failed.spans[0].status, "UNAVAILABLE");
    assert_eq!(figures.queued.attempts, 1);
    let backend = figures.backends.iter().find(|of| of.backend == B).expect("it was called");
    assert!(backend.first_call_s.is_some_and(|wait| wait > 0.0), "{backend:?}");
    let mut out = String::new();
    print(&mut out, &figures);
    for part in ["4 calls, 3 attempts", "1 calls without an attempt", "1 waited for a pick"] {
        assert!(out.contains(part), "{part} is missing in:\n{out}");
    }
    assert!(out.lines().all(|line| line.chars().count() <= 120), "{out}");
}

/// Real exporters against the real receiver, and what they sent is all there.
#[tokio::test]
async fn a_receiver_takes_what_a_channel_and_its_server_send() {
    let spans = Spans::start("round-robin/steady").await.unwrap();
    let settings = |service: &str| {
        let env = spans.env(service, service);
        let lookup =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        evenkeel_telemetry::Settings::read(service, &lookup).unwrap().expect("an endpoint")
    };
    let here = evenkeel_telemetry::Telemetry::start(&settings(CLIENT)).unwrap();
    let target = format!("ipv4:{}", spans.address());
    let builder = here.channel(evenkeel::Channel::builder(&target), &target);
    // Any call will do; this one is of a method that the receiver has not.
    let channel = builder.build().unwrap();
    let mut client = helloworld::greeter_client::GreeterClient::new(channel);
    let request = helloworld::HelloRequest { name: "you".to_owned() };
    let calls = async {
        for _ in 0..20 {
            client.say_hello(request.clone()).await.expect_err("no greeter");
        }
        here.shutdown(Duration::from_secs(5)).await
    };
    let counts = timeout(Duration::from_secs(10), calls).await.expect("in time");
    assert_eq!((counts.ended, counts.sent, counts.dropped), (40, 40, 0));
    let ledger = spans.shared.lock();
    assert_eq!(ledger.records.len(), 40);
    assert_eq!(ledger.who(&ledger.records[0]), (CLIENT, CLIENT));
}
