//! Layers around calls and attempts: each is told of every beginning and of exactly one end; and
//! what else a caller may say of a single call.

mod fixture;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use evenkeel::{
    AttemptLayer, AttemptStart, CallLayer, CallOptions, CallStart, Channel, OnAttemptEnd, OnCallEnd,
};
use fixture::{
    Backend,
    bytes::hello,
    fleet,
    frames::{END_STREAM, Frames, HEADERS, NO_ERROR, Requests},
    keyed::Keyed,
    peer::{Peer, to},
    soon, until,
};
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use http::HeaderValue;
use tonic::{Request, Status};

/// What the layers were told, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().unwrap().push(note);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A layer of both kinds that takes notes, and may refuse.
#[derive(Clone)]
struct Noting {
    name: &'static str,
    notes: Notes,
    refuses: bool,
}

impl Noting {
    fn new(name: &'static str, notes: &Notes) -> Self {
        Self { name, notes: notes.clone(), refuses: false }
    }

    fn refusing(mut self) -> Self {
        self.refuses = true;
        self
    }

    fn allow(&self) -> Result<(), Status> {
        if self.refuses { Err(Status::permission_denied(self.name)) } else { Ok(()) }
    }
}

impl CallLayer for Noting {
    fn start(&self, call: &mut CallStart<'_>) -> Result<Option<OnCallEnd>, Status> {
        let Self { name, notes, .. } = self.clone();
        notes.add(format!("{name}: call {}", call.path));
        self.allow()?;
        call.headers.insert("x-call", HeaderValue::from_static("1"));
        Ok(Some(Box::new(move |code| notes.add(format!("{name}: call ended {code:?}")))))
    }
}

impl AttemptLayer for Noting {
    fn start(&self, attempt: &mut AttemptStart<'_>) -> Result<Option<OnAttemptEnd>, Status> {
        let Self { name, notes, .. } = self.clone();
        let from_call = attempt.headers.get("x-call").is_some();
        notes.add(format!("{name}: attempt after {}, x-call {from_call}", attempt.retries));
        self.allow()?;
        Ok(Some(Box::new(move |outcome| notes.add(format!("{name}: attempt {outcome:?}")))))
    }
}

/// Looks at the attempts of a call from the call's beginning.
struct Looking(Noting);

impl CallLayer for Looking {
    fn start(&self, call: &mut CallStart<'_>) -> Result<Option<OnCallEnd>, Status> {
        call.attempt_layers.push(Arc::new(self.0.clone()));
        Ok(None)
    }
}

#[tokio::test]
async fn a_call_layer_runs_once_and_an_attempt_layer_for_each_attempt() {
    let requests = Requests::default();
    let peer = Peer::start(move |number, socket| {
        let requests = requests.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            if number > 0 {
                return frames.answer_all(b"done").await;
            }
            // Never processed: the channel sends it again.
            requests.next(&mut frames).await;
            frames.goaway(0, NO_ERROR, b"").await;
        }
    })
    .await;
    let notes = Notes::default();
    let (builder, _) = to(&peer);
    let builder = builder
        .call_layer(Noting::new("outer", &notes))
        .call_layer(Noting::new("inner", &notes))
        .call_layer(Looking(Noting::new("own", &notes)))
        .attempt_layer(Noting::new("attempts", &notes));
    let channel = builder.build().unwrap();
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "done");
    let told = notes.take();
    let path = told[0].rsplit(' ').next().unwrap().to_owned();
    assert_eq!(
        told,
        [
            format!("outer: call {path}"),
            format!("inner: call {path}"),
            "attempts: attempt after 0, x-call true".into(),
            "own: attempt after 0, x-call true".into(),
            "own: attempt NotSent".into(),
            "attempts: attempt NotSent".into(),
            "attempts: attempt after 0, x-call true".into(),
            "own: attempt after 0, x-call true".into(),
            "own: attempt Finished(Some(0))".into(),
            "attempts: attempt Finished(Some(0))".into(),
            "inner: call ended Some(Ok)".into(),
            "outer: call ended Some(Ok)".into(),
        ]
    );
}

#[tokio::test]
async fn a_layer_that_refuses_ends_the_call_before_anything_is_sent() {
    let peer = Peer::start(move |_, socket| async move {
        Frames::greet(socket, &[]).await.answer_all(b"done").await;
    })
    .await;
    let notes = Notes::default();
    let layer = |name| Noting::new(name, &notes);
    let (builder, _) = to(&peer);
    let builder = builder.call_layer(layer("outer")).call_layer(layer("inner").refusing());
    let channel = builder.build().unwrap();
    let status = soon("an error", hello(&channel)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::PermissionDenied, "inner"));
    assert_eq!(peer.accepts(), 0, "nobody was connected to");
    assert_eq!(notes.take().last().unwrap(), "outer: call ended Some(PermissionDenied)");

    let (builder, _) = to(&peer);
    let builder = builder.attempt_layer(layer("one")).attempt_layer(layer("two").refusing());
    let channel = builder.build().unwrap();
    let status = soon("an error", hello(&channel)).await.unwrap_err();
    assert_eq!(status.message(), "two");
    let told = notes.take();
    assert_eq!(told.last().unwrap(), "one: attempt NotSent", "{told:?}");
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_once_for_each_layer() {
    let backend = Backend::start(Duration::from_secs(600), |b| b).await;
    let notes = Notes::default();
    let channel = Channel::builder(fixture::target(&[backend.address]))
        .call_layer(Noting::new("calls", &notes))
        .attempt_layer(Noting::new("attempts", &notes))
        .build()
        .unwrap();
    let mut client = GreeterClient::new(channel);
    let call = tokio::spawn(async move { client.say_hello(HelloRequest::default()).await });
    until("the attempt", || notes.len() == 2).await;
    call.abort();
    until("both ends", || notes.len() == 4).await;
    let mut ends = notes.take().split_off(2);
    ends.sort();
    assert_eq!(ends, ["attempts: attempt Cancelled", "calls: call ended None"]);
}

/// Each call has a header of its own, as a tracer's have.
struct Traced(&'static str, AtomicUsize);

impl CallLayer for Traced {
    fn start(&self, call: &mut CallStart<'_>) -> Result<Option<OnCallEnd>, Status> {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        // All digits are as long as each other in HTTP/2's code.
        let text = format!("00-{:032b}-{:016b}-00", number + 1, number + 1);
        let mut value = HeaderValue::try_from(text).unwrap();
        value.set_sensitive(true);
        call.headers.insert(self.0, value);
        Ok(None)
    }
}

/// The bytes of the heads of four calls over one connection, each with such a header.
async fn heads_with(name: &'static str) -> Vec<usize> {
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let seen = lengths.clone();
    let peer = Peer::start(move |_, socket| {
        let seen = seen.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            while let Some(frame) = frames.read().await {
                if frame.kind == HEADERS {
                    seen.lock().unwrap().push(frame.payload.len());
                }
                if frame.flags & END_STREAM != 0 {
                    frames.answer(frame.stream, b"done").await;
                }
            }
        }
    })
    .await;
    let (builder, _) = to(&peer);
    let channel = builder.call_layer(Traced(name, AtomicUsize::new(0))).build().unwrap();
    for _ in 0..4 {
        soon("an answer", hello(&channel)).await.unwrap();
    }
    lengths.lock().unwrap().clone()
}

#[tokio::test]
async fn a_header_that_is_never_the_same_is_named_once_for_each_connection() {
    // As long in HTTP/2's code, and not one of those.
    let (known, other) = (heads_with("traceparent").await, heads_with("tracepatern").await);
    assert_eq!(known[0], other[0], "the first has the name");
    const NAME_BYTES: usize = 8;
    for (known, other) in known[1..].iter().zip(&other[1..]) {
        assert_eq!(other - known, NAME_BYTES, "an index of two bytes instead of name and length");
    }
}

#[tokio::test]
async fn the_routing_key_of_a_call_reaches_the_picker_and_not_the_server() {
    let backends = fleet(2).await;
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    let channel = Channel::builder(fixture::target(&addresses))
        .register_policy(Arc::new(Keyed))
        .lb_policy("keyed")
        .wait_for_ready(true)
        .build()
        .unwrap();
    let mut client = GreeterClient::new(channel);
    for wanted in [1, 0, 1, 1] {
        let mut request = Request::new(HelloRequest::default());
        let options = CallOptions::default().routing_key(wanted.to_string());
        request.extensions_mut().insert(options);
        let reply = soon("a reply", client.say_hello(request)).await.unwrap();
        assert_eq!(reply.into_inner().message, addresses[wanted].to_string());
    }
}
