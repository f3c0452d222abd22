//! Peers that are no gRPC servers, or bad ones: each has a defined status with a clear text, the
//! channel's state fits, and nobody is connected to faster than backoff allows.

mod fixture;

use std::{
    future::{Future, pending},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use evenkeel::{Backoff, Channel, ChannelBuilder, ConnectivityState};
use fixture::{
    bytes::{hello, unary},
    events::Events,
    frames::{self, Frames, NO_ERROR},
    peer::{self, Peer},
    soon,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Request, Status};

const BACKOFF: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

fn to(peer: &Peer) -> (ChannelBuilder, Events) {
    let events = Events::default();
    let backoff = Backoff { initial: BACKOFF, multiplier: 1.0, jitter: 0.0, max: BACKOFF };
    let builder = Channel::builder(peer.target())
        .backoff(backoff)
        .connect_timeout(CONNECT_TIMEOUT)
        .recorder(events.recorder());
    (builder, events)
}

async fn call(channel: &Channel, timeout: Duration) -> Result<Bytes, Status> {
    let mut request = Request::new(Bytes::from_static(b"hello"));
    request.set_timeout(timeout);
    soon("the call's end", unary(channel, request)).await.map(tonic::Response::into_inner)
}

/// The whole time, as a busy machine may see a single connection late.
fn assert_backoff(times: &[tokio::time::Instant], what: &str) {
    let [first, .., last] = times else { panic!("two connections") };
    let waits = times.len() as u32 - 1;
    let total = *last - *first;
    assert!(total >= BACKOFF * waits - BACKOFF / 2, "{what}: {waits} waits in {total:?}");
}

type Script = fn(TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reads until the client closes.
async fn swallow(mut socket: TcpStream) {
    let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
}

async fn say(mut socket: TcpStream, text: &[u8]) {
    socket.write_all(text).await.unwrap();
    swallow(socket).await;
}

/// Peers that never get as far as READY, and what a call is told of them.
const NEVER_READY: [(&str, &str, Script); 10] = [
    ("RST at accept", "Connection reset by peer", |socket| {
        Box::pin(async move { peer::reset(socket) })
    }),
    ("closes at once", "before its HTTP/2 SETTINGS", |socket| {
        Box::pin(async move {
            // With the preface read, so that it ends in FIN and not in RST.
            let mut socket = socket;
            let mut preface = [0; 24];
            socket.read_exact(&mut preface).await.unwrap();
        })
    }),
    ("says nothing", "no HTTP/2 SETTINGS from the server within 200ms", |socket| {
        Box::pin(swallow(socket))
    }),
    ("speaks HTTP/1", "but the server answered in HTTP/1; is this a gRPC port?", |socket| {
        Box::pin(say(socket, b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"))
    }),
    ("speaks TLS", "but the server answered in TLS; is this a gRPC port?", |socket| {
        Box::pin(say(socket, &[0x15, 3, 3, 0, 2, 2, 70, 0x15, 3, 3, 0, 2, 2, 70]))
    }),
    ("garbage", "but the server's answer is not HTTP/2", |socket| {
        Box::pin(say(socket, b"220 mail.example ESMTP ready\r\n"))
    }),
    ("little garbage", "before its HTTP/2 SETTINGS", |socket| {
        Box::pin(async move {
            let mut socket = socket;
            socket.write_all(b"no").await.unwrap();
            let mut preface = [0; 24];
            socket.read_exact(&mut preface).await.unwrap();
        })
    }),
    ("half of SETTINGS", "no HTTP/2 SETTINGS from the server within 200ms", |socket| {
        Box::pin(say(socket, &[0, 0, 6, frames::SETTINGS, 0, 0, 0, 0, 0, 0, 3]))
    }),
    ("another frame first", "but the server's answer is not HTTP/2", |socket| {
        Box::pin(say(socket, &[0, 0, 8, frames::PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]))
    }),
    ("SETTINGS and the end at once", "cannot connect", |socket| {
        Box::pin(async move {
            let mut socket = socket;
            let mut all = [0; 24 + 9];
            socket.read_exact(&mut all).await.unwrap();
            socket.write_all(&[0, 0, 0, frames::SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
            peer::reset(socket);
        })
    }),
];

#[tokio::test]
async fn peer_that_is_no_server_fails_calls_with_its_reason_and_is_left_in_peace() {
    for (what, text, script) in NEVER_READY {
        let peer = Peer::start(move |_, socket| script(socket)).await;
        let (builder, events) = to(&peer);
        let channel = builder.build().unwrap();
        let status = call(&channel, fixture::PATIENCE).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{what}: {status}");
        for part in [text, &peer.address.to_string(), &peer.target(), "cannot connect to"] {
            assert!(status.message().contains(part), "{what}: {status} lacks {part:?}");
        }
        assert_eq!(channel.state(), ConnectivityState::TransientFailure, "{what}");
        let times = peer.accepted(4).await;
        assert_backoff(&times, what);
        assert_eq!(events.count("READY"), 0, "{what}: {:?}", events.list());
        assert_eq!(channel.state(), ConnectivityState::TransientFailure, "{what}");
    }
}

#[tokio::test]
async fn refused_connection_is_tried_again_after_backoff() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let events = Events::default();
    let backoff = Backoff { initial: BACKOFF, multiplier: 1.0, jitter: 0.0, max: BACKOFF };
    let channel = Channel::builder(fixture::target(&[address]))
        .backoff(backoff)
        .recorder(events.recorder())
        .build()
        .unwrap();
    let status = call(&channel, fixture::PATIENCE).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("Connection refused"), "{status}");
    let begun = std::time::Instant::now();
    events.wait_for(3, "TRANSIENT_FAILURE: cannot connect").await;
    assert!(begun.elapsed() >= BACKOFF, "{:?}", events.list());
    // And when it is there, it serves.
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let peer = Peer::start_on(listener, |_, socket| async move {
        Frames::greet(socket, &[]).await.answer_all(b"here").await;
    });
    fixture::in_state(&channel, ConnectivityState::Ready).await;
    assert_eq!(call(&channel, fixture::PATIENCE).await.unwrap(), "here");
    assert_eq!(peer.accepts(), 1);
}

#[tokio::test]
async fn server_that_greets_and_hangs_up_is_not_connected_to_in_a_loop() {
    for goaway in [false, true] {
        let peer = Peer::start(move |_, socket| async move {
            let mut frames = Frames::greet(socket, &[]).await;
            // The client's answer to our SETTINGS: to it the connection is READY.
            while !frames.read_any().await.is_some_and(|frame| frame.is_settings_ack()) {}
            if goaway {
                frames.goaway(0, NO_ERROR, b"").await;
                frames.drain().await;
            }
        })
        .await;
        let (builder, events) = to(&peer);
        let channel = builder.build().unwrap();
        channel.connect();
        let times = peer.accepted(6).await;
        let list = events.list();
        // The first time is forgiven.
        assert_backoff(&times[1..], &format!("{list:#?}"));
        assert_eq!(events.count("hung up 1 times"), 0);
        assert!(events.count("READY") >= 5, "{list:#?}");
        let why =
            if goaway { "the server sent GOAWAY" } else { "the server closed the connection" };
        let text =
            format!("{} hung up 2 times in a row before it answered a call: {why}", peer.address);
        assert_eq!(events.count(&text), 1, "{list:#?}");
        let failing = events.count("TRANSIENT_FAILURE: ");
        events.wait_for(failing + 1, "TRANSIENT_FAILURE: ").await;
        let status = call(&channel, fixture::PATIENCE).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("in a row before it answered a call"), "{status}");
    }
}

#[tokio::test]
async fn goaway_after_use_is_no_reason_to_back_off() {
    // As a server with a short connection age does it: each connection serves one call.
    let peer = Peer::start(|_, socket| async move {
        let mut frames = Frames::greet(socket, &[]).await;
        let stream = frames.request().await.unwrap();
        frames.answer(stream, b"once").await;
        frames.goaway(stream, NO_ERROR, b"").await;
        frames.drain().await;
    })
    .await;
    let (builder, events) = to(&peer);
    let channel = builder.build().unwrap();
    for _ in 0..20 {
        assert_eq!(call(&channel, fixture::PATIENCE).await.unwrap(), "once");
    }
    assert_eq!(events.count("TRANSIENT_FAILURE"), 0, "{:?}", events.list());
}

#[tokio::test]
async fn preface_that_comes_byte_by_byte_is_a_preface() {
    let peer = Peer::start(|_, mut socket| async move {
        let mut head = [0; 24];
        socket.read_exact(&mut head).await.unwrap();
        let settings = [0, 0, 6, frames::SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
        for byte in settings {
            socket.write_all(&[byte]).await.unwrap();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        Frames { socket }.answer_all(b"slow but true").await;
    })
    .await;
    let (builder, events) = to(&peer);
    let channel = builder.build().unwrap();
    assert_eq!(call(&channel, fixture::PATIENCE).await.unwrap(), "slow but true");
    assert_eq!((peer.accepts(), events.count("TRANSIENT_FAILURE")), (1, 0));
}

#[tokio::test]
async fn server_that_greets_and_falls_silent_is_ready_and_its_calls_end_by_their_deadline() {
    let peer = Peer::start(|_, socket| async move {
        let frames = Frames::greet(socket, &[]).await;
        pending::<()>().await;
        drop(frames);
    })
    .await;
    let (builder, _) = to(&peer);
    let channel = builder.build().unwrap();
    let status = call(&channel, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains(&peer.address.to_string()), "{status}");
    assert_eq!(channel.state(), ConnectivityState::Ready);
}

/// What a server does with a call, the status that the caller gets, and parts of its text.
type BadAnswer = (&'static str, Code, &'static str, AnswerScript);
type AnswerScript = fn(Frames, u32) -> Pin<Box<dyn Future<Output = ()> + Send>>;

const PROTOCOL_ERROR: u32 = 1;

fn resets() -> Vec<BadAnswer> {
    vec![
        ("RST_STREAM", Code::Internal, "the server reset the stream", |mut frames, stream| {
            Box::pin(async move {
                frames.rst(stream, PROTOCOL_ERROR).await;
                frames.drain().await;
            })
        }),
        ("CANCEL", Code::Cancelled, "the server reset the stream", |mut frames, stream| {
            Box::pin(async move {
                frames.rst(stream, frames::CANCEL).await;
                frames.drain().await;
            })
        }),
        ("calm", Code::ResourceExhausted, "reset the stream", |mut frames, stream| {
            Box::pin(async move {
                frames.rst(stream, frames::ENHANCE_YOUR_CALM).await;
                frames.drain().await;
            })
        }),
        ("TCP RST", Code::Unavailable, "Connection reset by peer", |frames, _| {
            Box::pin(async move { peer::reset(frames.socket) })
        }),
    ]
}

fn half_answers() -> Vec<BadAnswer> {
    vec![
        ("half and close", Code::Unavailable, "closed the connection", |mut frames, stream| {
            Box::pin(async move {
                assert_eq!(frames.read().await.unwrap().kind, frames::DATA);
                frames.head(stream).await;
                frames.write(frames::DATA, 0, stream, &[0, 0, 0, 0, 100, 1, 2, 3]).await;
            })
        }),
        ("half and RST_STREAM", Code::Internal, "reset the stream", |mut frames, stream| {
            Box::pin(async move {
                frames.head(stream).await;
                frames.message(stream, b"half").await;
                frames.rst(stream, 2).await;
                frames.drain().await;
            })
        }),
        (
            "no trailers",
            Code::Unknown,
            "expected trailers with grpc-status",
            |mut frames, stream| {
                Box::pin(async move {
                    frames.head(stream).await;
                    let message = frames::enveloped(b"whole");
                    frames.write(frames::DATA, frames::END_STREAM, stream, &message).await;
                    frames.drain().await;
                })
            },
        ),
        ("no grpc-status", Code::Unknown, "expected trailers with grpc-status", |mut f, stream| {
            Box::pin(async move {
                f.head(stream).await;
                f.message(stream, b"whole").await;
                f.custom_head(stream, &[("grpc-message", "hm")], true).await;
                f.drain().await;
            })
        }),
        ("huge head", Code::Internal, "we reset", |mut frames, stream| {
            Box::pin(async move {
                let large = "x".repeat(15_000);
                let mut fields = vec![(":status", "200"), ("content-type", "application/grpc")];
                fields.extend([("large", large.as_str()); 6]);
                frames.custom_head_in_pieces(stream, &fields).await;
                frames.drain().await;
            })
        }),
    ]
}

fn strangers() -> Vec<BadAnswer> {
    vec![
        (
            "HTTP 503",
            Code::Unavailable,
            "HTTP status 503 with content-type \"text/html\"",
            |f, s| Box::pin(web_page(f, s, "503")),
        ),
        ("HTTP 404", Code::Unimplemented, "HTTP status 404", |f, s| {
            Box::pin(web_page(f, s, "404"))
        }),
        ("HTTP 401", Code::Unauthenticated, "HTTP status 401", |f, s| {
            Box::pin(web_page(f, s, "401"))
        }),
        ("a web page", Code::Unknown, "HTTP status 200 with content-type \"text/html\"", |f, s| {
            Box::pin(web_page(f, s, "200"))
        }),
        ("no content type", Code::Unknown, "HTTP status 200 with no content-type", |mut f, s| {
            Box::pin(async move {
                f.custom_head(s, &[(":status", "200")], true).await;
                f.drain().await;
            })
        }),
        ("not even HTTP/2", Code::Unavailable, "connection lost", |mut frames, _| {
            Box::pin(async move {
                let _ = frames.socket.write_all(&[0xff; 100]).await;
                frames.drain().await;
            })
        }),
    ]
}

async fn web_page(mut frames: Frames, stream: u32, status: &'static str) {
    frames.custom_head(stream, &[(":status", status), ("content-type", "text/html")], false).await;
    frames.write(frames::DATA, frames::END_STREAM, stream, b"<html>Sorry!</html>").await;
    frames.drain().await;
}

#[tokio::test]
async fn bad_answer_is_a_defined_status_and_the_next_call_is_served() {
    for (what, code, text, script) in [resets(), half_answers(), strangers()].concat() {
        let peer = Peer::start(move |number, socket| async move {
            let mut frames = Frames::greet(socket, &[]).await;
            if number > 0 {
                return frames.answer_all(b"well").await;
            }
            let stream = frames.request().await.unwrap();
            script(frames, stream).await;
        })
        .await;
        let (builder, events) = to(&peer);
        let channel = builder.build().unwrap();
        let status = call(&channel, fixture::PATIENCE).await.unwrap_err();
        assert_eq!(status.code(), code, "{what}: {status:?}");
        for part in [text, &peer.address.to_string()] {
            assert!(status.message().contains(part), "{what}: {status} lacks {part:?}");
        }
        assert_eq!(events.count("retry after"), 0, "{what}");
        assert_eq!(events.count("TRANSIENT_FAILURE"), 0, "{what}");
    }
}

#[tokio::test]
async fn call_after_a_lost_connection_is_served_by_the_next() {
    let peer = Peer::start(|number, socket| async move {
        let mut frames = Frames::greet(socket, &[]).await;
        if number > 0 {
            return frames.answer_all(b"well").await;
        }
        frames.request().await.unwrap();
        peer::reset(frames.socket);
    })
    .await;
    let (builder, events) = to(&peer);
    let channel = builder.build().unwrap();
    assert_eq!(soon("an error", hello(&channel)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "well");
    let end = events.wait_for(1, "ended").await;
    assert!(end.contains("ended with 1: connection lost"), "{end}");
}
