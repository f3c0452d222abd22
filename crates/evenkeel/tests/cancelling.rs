//! Calls that are given up, by their caller or by their deadline, at every stage of their life.

mod fixture;

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;
use evenkeel::{CallOptions, Channel, ChannelBuilder, ConnectivityState};
use fixture::{
    bytes::{BytesCodec, chat, client, hello, path, unary},
    frames::{self, Frames, MAX_CONCURRENT_STREAMS},
    manual::{Manual, Says},
    peer::Peer,
    runtime::OwnRuntime,
    soon,
};
use futures_util::{poll, stream};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Code, Request, Status};

fn to(peer: &Peer) -> ChannelBuilder {
    Channel::builder(peer.target())
}

fn within(timeout: Duration) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from_static(b"hello"));
    request.set_timeout(timeout);
    request
}

const SHORT: Duration = Duration::from_millis(100);

/// A server that takes one stream at a time, tells of each request and each RST_STREAM, and answers
/// nothing but the streams that it is told to.
async fn single_minded() -> (Peer, mpsc::Receiver<frames::Frame>, watch::Sender<u32>) {
    let (seen, saw) = mpsc::channel(100);
    let (answer, answered) = watch::channel(0);
    let peer = Peer::start(move |_, socket| {
        let (seen, mut answered) = (seen.clone(), answered.clone());
        async move {
            let mut frames = Frames::greet(socket, &[(MAX_CONCURRENT_STREAMS, 1)]).await;
            loop {
                tokio::select! {
                    frame = frames.read() => match frame {
                        Some(frame) => seen.send(frame).await.unwrap(),
                        None => return,
                    },
                    Ok(()) = answered.changed() => {
                        let stream = *answered.borrow_and_update();
                        frames.answer(stream, b"done").await;
                    }
                }
            }
        }
    })
    .await;
    (peer, saw, answer)
}

async fn next(saw: &mut mpsc::Receiver<frames::Frame>, kind: u8) -> frames::Frame {
    loop {
        let frame = soon("a frame", saw.recv()).await.expect("a connection");
        if frame.kind == kind {
            return frame;
        }
    }
}

#[tokio::test]
async fn call_dropped_before_its_first_poll_leaves_no_trace() {
    let (peer, _saw, _answer) = single_minded().await;
    let own = OwnRuntime::default();
    let channel = own.hosts(to(&peer)).build().unwrap();
    let request = http::Request::post("/test.Echo/Chat").body(tonic::body::Body::empty()).unwrap();
    drop(tower_service::Service::call(&mut channel.clone(), request));
    tokio::task::yield_now().await;
    assert_eq!(channel.state(), ConnectivityState::Idle);
    assert_eq!((peer.accepts(), own.tasks()), (0, 1), "the driver alone");
}

#[tokio::test]
async fn call_dropped_while_it_waits_for_a_connection_makes_room_for_another() {
    let peer = Peer::start(|_, mut socket| async move {
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    })
    .await;
    let channel = to(&peer).waiting_calls_max(1).build().unwrap();
    let mut one = Box::pin(hello(&channel));
    assert!(poll!(&mut one).is_pending());
    let refused = soon("an error", hello(&channel)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let text = "1 calls wait for a connection already; see waiting_calls_max";
    assert!(refused.message().contains(text), "{refused}");
    drop(one);
    assert!(poll!(Box::pin(hello(&channel))).is_pending());
}

#[tokio::test]
async fn call_dropped_after_it_was_sent_resets_its_stream_and_frees_it() {
    let (peer, mut saw, answer) = single_minded().await;
    let channel = to(&peer).build().unwrap();
    let mut first = Box::pin(hello(&channel));
    let request = tokio::select! {
        _ = &mut first => panic!("nobody answered"),
        frame = next(&mut saw, frames::HEADERS) => frame,
    };
    let mut second = Box::pin(hello(&channel));
    assert!(poll!(&mut second).is_pending());
    drop(first);
    let reset = next(&mut saw, frames::RST_STREAM).await;
    assert_eq!(reset.stream, request.stream);
    assert_eq!(reset.payload, frames::CANCEL.to_be_bytes());
    let stream = tokio::select! {
        _ = &mut second => panic!("nobody answered"),
        frame = next(&mut saw, frames::HEADERS) => frame.stream,
    };
    answer.send_replace(stream);
    assert_eq!(soon("an answer", second).await.unwrap(), "done");
}

#[tokio::test]
async fn response_dropped_half_read_resets_its_stream_and_frees_it() {
    let peer = Peer::start(|_, socket| async move {
        let mut frames = Frames::greet(socket, &[(MAX_CONCURRENT_STREAMS, 1)]).await;
        let stream = frames.request().await.unwrap();
        frames.head(stream).await;
        frames.message(stream, b"half").await;
        loop {
            let frame = frames.read().await.unwrap();
            if frame.kind == frames::RST_STREAM {
                assert_eq!((frame.stream, &frame.payload[..]), (stream, &[0, 0, 0, 8][..]));
                break;
            }
        }
        frames.answer_all(b"next").await;
    })
    .await;
    let channel = to(&peer).build().unwrap();
    let mut client = client(&channel);
    let call = client.server_streaming(Request::new(Bytes::new()), path("Send"), BytesCodec);
    let mut answers = soon("a head", call).await.unwrap().into_inner();
    assert_eq!(soon("a message", answers.message()).await.unwrap().unwrap(), "half");
    let mut second = Box::pin(hello(&channel));
    assert!(poll!(&mut second).is_pending());
    drop(answers);
    assert_eq!(soon("an answer", second).await.unwrap(), "next");
}

#[tokio::test]
async fn pump_of_a_dropped_call_ends_at_every_stage() {
    let (peer, mut saw, _answer) = single_minded().await;
    let own = OwnRuntime::default();
    let channel = own.hosts(to(&peer)).build().unwrap();
    fixture::ready(&channel).await;
    let idle = own.tasks();
    let open = || stream::pending::<Bytes>();
    let mut sent = Box::pin(chat(&channel, "Hold", open()));
    tokio::select! {
        _ = &mut sent => panic!("nobody answered"),
        _ = next(&mut saw, frames::HEADERS) => {}
    }
    let mut waiting = Box::pin(chat(&channel, "Hold", open()));
    assert!(poll!(&mut waiting).is_pending());
    own.has_tasks(idle + 2).await;
    drop(waiting);
    own.has_tasks(idle + 1).await;
    drop(sent);
    own.has_tasks(idle).await;
    next(&mut saw, frames::RST_STREAM).await;
}

#[tokio::test]
async fn deadline_says_where_the_call_waited() {
    let mute = Peer::start(|_, mut socket| async move {
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    })
    .await;
    let channel = to(&mute).build().unwrap();
    let started = Instant::now();
    let status = soon("the deadline", unary(&channel, within(SHORT))).await.unwrap_err();
    assert!(started.elapsed() >= SHORT);
    expect(&status, &["100ms", "waiting for a connection", &mute.target(), "which is CONNECTING"]);

    let manual = Manual::new(Says::Error("no such name".into()));
    let builder = Channel::builder("manual:///x").register_resolver(manual.factory());
    let channel = builder.build().unwrap();
    let mut patient = within(SHORT);
    patient.extensions_mut().insert(CallOptions::default().wait_for_ready(true));
    let status = soon("the deadline", unary(&channel, patient)).await.unwrap_err();
    expect(&status, &["waiting for a connection to manual:///x", "no such name"]);

    let (peer, mut saw, _answer) = single_minded().await;
    let address = peer.address.to_string();
    let channel = to(&peer).build().unwrap();
    let mut holder = Box::pin(hello(&channel));
    tokio::select! {
        _ = &mut holder => panic!("nobody answered"),
        _ = next(&mut saw, frames::HEADERS) => {}
    }
    let status = soon("the deadline", unary(&channel, within(SHORT))).await.unwrap_err();
    expect(&status, &["waiting for a free stream", &peer.target()]);
    drop(holder);
    let status = soon("the deadline", unary(&channel, within(SHORT))).await.unwrap_err();
    expect(&status, &["while waiting for", &address]);
    // The server is told each time that nobody waits any more.
    next(&mut saw, frames::RST_STREAM).await;
    next(&mut saw, frames::RST_STREAM).await;
}

fn expect(status: &Status, parts: &[&str]) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    for part in ["deadline of 100ms exceeded"].iter().chain(parts) {
        assert!(status.message().contains(part), "{status} lacks {part:?}");
    }
}

#[tokio::test]
async fn deadline_passes_while_the_response_is_read() {
    let peer = Peer::start(|_, socket| async move {
        let mut frames = Frames::greet(socket, &[]).await;
        while let Some(stream) = frames.request().await {
            frames.head(stream).await;
            frames.message(stream, b"half").await;
        }
    })
    .await;
    let channel = to(&peer).build().unwrap();
    let status = soon("the deadline", unary(&channel, within(SHORT))).await.unwrap_err();
    expect(&status, &[&peer.address.to_string()]);
}

#[tokio::test]
async fn server_is_told_the_time_that_is_left() {
    let (go, gone) = watch::channel(false);
    let (tell, told) = oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let peer = Peer::start(move |_, socket| {
        let (mut gone, tell) = (gone.clone(), tell.lock().unwrap().take().expect("one connection"));
        async move {
            gone.wait_for(|go| *go).await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let (request, _respond) = connection.accept().await.unwrap().unwrap();
            tell.send((request.headers()["grpc-timeout"].clone(), Instant::now())).unwrap();
            while connection.accept().await.is_some() {}
        }
    })
    .await;
    let channel = to(&peer).build().unwrap();
    let begun = Instant::now();
    let timeout = fixture::PATIENCE;
    let mut call = Box::pin(unary(&channel, within(timeout)));
    assert!(poll!(&mut call).is_pending());
    let polled = Instant::now();
    // Another call's deadline is the time that passes.
    soon("the deadline", unary(&channel, within(SHORT))).await.unwrap_err();
    let waited = polled.elapsed();
    go.send_replace(true);
    let (header, arrived) = tokio::select! {
        _ = &mut call => panic!("nobody answered"),
        told = soon("the request", told) => told.unwrap(),
    };
    let text = header.to_str().unwrap();
    let micros: u64 = text.strip_suffix('u').expect(text).parse().unwrap();
    let left = Duration::from_micros(micros);
    assert!(waited >= SHORT);
    assert!(left <= timeout - waited + Duration::from_micros(1), "{left:?} after {waited:?}");
    assert!(left >= timeout - (arrived - begun), "{left:?}");
}

#[tokio::test]
async fn thousands_of_late_answers_do_not_cost_the_connection() {
    // h2 ends a connection at the 1,024th frame for a stream that it no longer knows, unless it is
    // told not to.
    const COUNT: usize = 1500;
    let (seen, mut saw) = watch::channel(0);
    let peer = Peer::start(move |_, socket| {
        let seen = seen.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            let (mut streams, mut resets) = (Vec::new(), 0);
            while resets < COUNT {
                let frame = frames.read().await.unwrap();
                match frame.kind {
                    frames::HEADERS => streams.push(frame.stream),
                    frames::RST_STREAM => resets += 1,
                    _ => {}
                }
                seen.send_replace(streams.len());
            }
            for (i, stream) in streams.into_iter().enumerate() {
                // The last call may have come before the RST_STREAM of the one before it.
                let text: &[u8] = if i < COUNT { b"too late" } else { b"in time" };
                frames.answer(stream, text).await;
            }
            frames.answer_all(b"in time").await;
        }
    })
    .await;
    let channel = to(&peer).build().unwrap();
    for number in 1..=COUNT {
        let mut call = Box::pin(hello(&channel));
        tokio::select! {
            _ = &mut call => panic!("nobody answered"),
            seen = soon("the request", saw.wait_for(|seen| *seen == number)) => drop(seen.unwrap()),
        }
    }
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "in time");
    assert_eq!(peer.accepts(), 1);
}
