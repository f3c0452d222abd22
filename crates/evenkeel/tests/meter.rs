//! A meter hears of every call and attempt: each beginning, exactly one end, its status and the
//! bytes of its messages.

mod fixture;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use evenkeel::{AttemptEnd, CallEnd, CallMeter, Channel};
use fixture::{
    Backend,
    bytes::{BytesCodec, Echo, chat, client, hello, path, unary},
    events::Events,
    frames::{Frames, NO_ERROR, Requests},
    peer::{Peer, to},
    soon, until,
};
use futures_util::{StreamExt as _, stream};
use tokio::net::TcpListener;
use tonic::{Code, Request, service::Routes};

/// What a meter was told, in order.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Call(String),
    Attempt,
    /// Status, bytes sent, bytes received.
    AttemptEnd(Code, u64, u64),
    /// Status, retries, transparent retries.
    CallEnd(Code, u32, u32),
}

#[derive(Default)]
struct Noting {
    told: Mutex<Vec<Told>>,
    ends: Mutex<Vec<CallEnd>>,
}

impl Noting {
    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    fn note(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    /// What was told, once a call has ended.
    async fn ended(&self) -> Vec<Told> {
        until("the call's end", || matches!(self.told().last(), Some(Told::CallEnd(..)))).await;
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

impl CallMeter for Noting {
    fn call_started(&self, path: &str) -> u32 {
        self.note(Told::Call(path.to_owned()));
        77
    }

    fn attempt_started(&self, method: u32) {
        assert_eq!(method, 77);
        self.note(Told::Attempt);
    }

    fn attempt_ended(&self, method: u32, end: &AttemptEnd) {
        assert_eq!(method, 77);
        self.note(Told::AttemptEnd(end.code, end.sent_bytes, end.received_bytes));
    }

    fn call_ended(&self, method: u32, end: &CallEnd) {
        assert_eq!(method, 77);
        self.note(Told::CallEnd(end.code, end.retries, end.transparent_retries));
        self.ends.lock().unwrap().push(*end);
    }
}

/// A server that echoes, and a channel to it that is counted.
async fn echo(config: &str) -> (Backend, Channel, Arc<Noting>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Backend::with_routes(listener, Routes::new(Echo::default()), |b| b);
    let meter = Arc::new(Noting::default());
    let builder = Channel::builder(fixture::target(&[server.address])).service_config(config);
    let channel = builder.call_meter(meter.clone()).build().unwrap();
    (server, channel, meter)
}

#[tokio::test]
async fn a_call_is_one_attempt_with_the_bytes_of_its_messages() {
    let (_server, channel, meter) = echo("{}").await;
    let answer = soon("an answer", unary(&channel, Request::new(Bytes::from_static(b"hello"))));
    assert_eq!(answer.await.unwrap().into_inner(), "hello");
    let expected = [
        Told::Call("/test.Echo/Chat".into()),
        Told::Attempt,
        Told::AttemptEnd(Code::Ok, 5, 5),
        Told::CallEnd(Code::Ok, 0, 0),
    ];
    assert_eq!(meter.ended().await, expected);
}

#[tokio::test]
async fn streams_are_counted_to_their_last_message() {
    let (_server, channel, meter) = echo("{}").await;
    let message = Bytes::from(vec![b'm'; 100_000]);
    let messages = stream::iter(vec![message; 20]);
    let mut client = client(&channel);
    let call = client.client_streaming(Request::new(messages), path("Count"), BytesCodec);
    assert_eq!(soon("the sum", call).await.unwrap().into_inner(), "20 2000000");
    assert!(meter.ended().await.contains(&Told::AttemptEnd(Code::Ok, 2_000_000, 10)));

    let request = Request::new(Bytes::from_static(b"50 70000"));
    let call = client.server_streaming(request, path("Send"), BytesCodec);
    let mut answers = soon("a head", call).await.unwrap().into_inner();
    while soon("a message", answers.message()).await.unwrap().is_some() {}
    assert!(meter.ended().await.contains(&Told::AttemptEnd(Code::Ok, 8, 3_500_000)));
}

#[tokio::test]
async fn a_message_that_is_sent_while_the_call_goes_on_is_counted_as_well() {
    let (_server, channel, meter) = echo("{}").await;
    let (send, messages) = tokio::sync::mpsc::channel::<Bytes>(1);
    let messages =
        stream::unfold(
            messages,
            |mut messages| async move { Some((messages.recv().await?, messages)) },
        );
    // Of two polls: a body that does not end at once goes to a pump.
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { chat(&channel, "Chat", messages).await }
    });
    send.send(Bytes::from_static(b"one")).await.unwrap();
    let mut answers = soon("a head", call).await.unwrap().unwrap().into_inner();
    assert_eq!(soon("an answer", answers.message()).await.unwrap().unwrap(), "one");
    send.send(Bytes::from_static(b"three")).await.unwrap();
    drop(send);
    let rest: Vec<_> = soon("the rest", answers.by_ref().collect::<Vec<_>>()).await;
    assert_eq!(rest.len(), 1);
    assert!(meter.ended().await.contains(&Told::AttemptEnd(Code::Ok, 8, 8)));
}

#[tokio::test]
async fn a_repeated_call_has_an_attempt_for_each_try_and_says_how_many() {
    let (_server, channel, meter) = echo(
        r#"{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.001s",
            "maxBackoff":"0.001s","backoffMultiplier":1,"retryableStatusCodes":["ABORTED"]}}]}"#,
    )
    .await;
    let mut client = client(&channel);
    let aborted = Request::new(Bytes::from((Code::Aborted as i32).to_string()));
    let call = client.unary(aborted, path("Fail"), BytesCodec);
    assert_eq!(soon("an error", call).await.unwrap_err().code(), Code::Aborted);
    let attempt = [Told::Attempt, Told::AttemptEnd(Code::Aborted, 2, 0)];
    let told = meter.ended().await;
    assert_eq!(told[0], Told::Call("/test.Echo/Fail".into()));
    assert_eq!(told[1..7], [&attempt[..]; 3].concat());
    assert_eq!(told[7..], [Told::CallEnd(Code::Aborted, 2, 0)]);
    let end = meter.ends.lock().unwrap()[0];
    assert!(!end.retry_delay.is_zero() && end.retry_delay < end.took, "{end:?}");
}

#[tokio::test]
async fn a_retry_that_the_throttle_keeps_back_is_an_event() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Backend::with_routes(listener, Routes::new(Echo::default()), |b| b);
    let events = Events::default();
    let channel = Channel::builder(fixture::target(&[server.address]))
        .service_config(
            r#"{"retryThrottling":{"maxTokens":2,"tokenRatio":0.1},"methodConfig":[{"name":[{}],
                "retryPolicy":{"maxAttempts":5,"initialBackoff":"0.001s","maxBackoff":"0.001s",
                "backoffMultiplier":1,"retryableStatusCodes":["ABORTED"]}}]}"#,
        )
        .recorder(events.recorder())
        .build()
        .unwrap();
    let mut client = client(&channel);
    for _ in 0..2 {
        let aborted = Request::new(Bytes::from((Code::Aborted as i32).to_string()));
        let call = client.unary(aborted, path("Fail"), BytesCodec);
        assert_eq!(soon("an error", call).await.unwrap_err().code(), Code::Aborted);
    }
    assert_eq!(events.count("RetryThrottled"), 2);
}

#[tokio::test]
async fn an_attempt_that_no_server_processed_is_unavailable_and_followed_by_another() {
    let requests = Requests::default();
    let peer = Peer::start(move |number, socket| {
        let requests = requests.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            if number > 0 {
                return frames.answer_all(b"done").await;
            }
            requests.next(&mut frames).await;
            frames.goaway(0, NO_ERROR, b"").await;
        }
    })
    .await;
    let meter = Arc::new(Noting::default());
    let channel = to(&peer).0.call_meter(meter.clone()).build().unwrap();
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "done");
    let told = meter.ended().await;
    let expected = [
        Told::Attempt,
        Told::AttemptEnd(Code::Unavailable, 5, 0),
        Told::Attempt,
        Told::AttemptEnd(Code::Ok, 5, 4),
        Told::CallEnd(Code::Ok, 0, 1),
    ];
    assert_eq!(told[1..], expected);
}

#[tokio::test]
async fn a_call_that_never_gets_a_connection_is_a_failed_attempt() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let meter = Arc::new(Noting::default());
    let builder = Channel::builder(fixture::target(&[nobody])).call_meter(meter.clone());
    let channel = builder.build().unwrap();
    assert_eq!(soon("an error", hello(&channel)).await.unwrap_err().code(), Code::Unavailable);
    let ends = [Told::AttemptEnd(Code::Unavailable, 0, 0), Told::CallEnd(Code::Unavailable, 0, 0)];
    assert_eq!(meter.ended().await[2..], ends);
}

#[tokio::test]
async fn a_call_that_is_dropped_and_one_that_is_late_end_once_with_their_status() {
    let (_server, channel, meter) = echo("{}").await;
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { chat(&channel, "Hold", stream::iter([Bytes::from_static(b"x")])).await }
    });
    let answers = soon("a head", call).await.unwrap().unwrap();
    drop(answers);
    let told = meter.ended().await;
    assert_eq!(
        told[2..],
        [Told::AttemptEnd(Code::Cancelled, 1, 0), Told::CallEnd(Code::Cancelled, 0, 0)]
    );

    let mut late = Request::new(Bytes::from_static(b"x"));
    late.set_timeout(std::time::Duration::from_millis(50));
    let mut client = client(&channel);
    let call = client.unary(late, path("Hold"), BytesCodec);
    assert_eq!(soon("an error", call).await.unwrap_err().code(), Code::DeadlineExceeded);
    let told = meter.ended().await;
    let late = [
        Told::AttemptEnd(Code::DeadlineExceeded, 1, 0),
        Told::CallEnd(Code::DeadlineExceeded, 0, 0),
    ];
    assert_eq!(told[2..], late);
}
