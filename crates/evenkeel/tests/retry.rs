//! Transparent retries (gRFC A6): what a server can't have processed is sent again, what it may
//! have processed never is.

mod fixture;

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel::Channel;
use fixture::{
    bytes::{chat, hello, unary},
    events::Events,
    frames::{self, Frames, INITIAL_WINDOW_SIZE, NO_ERROR, REFUSED_STREAM, Requests},
    peer::{self, Peer, expect, to},
    soon, until,
};
use futures_util::stream;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
};
use tonic::{Code, Request};

const KIB: usize = 1024;

/// A server that draws the line of GOAWAY under each first request of its first connections.
async fn unprocessing(connections: usize) -> (Peer, Requests) {
    let requests = Requests::default();
    let counted = requests.clone();
    let peer = Peer::start(move |number, socket| {
        let requests = counted.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            let Some(stream) = requests.next(&mut frames).await else { return };
            if number < connections {
                return frames.goaway(0, NO_ERROR, b"").await;
            }
            frames.answer(stream, b"done").await;
            frames.answer_all(b"done").await;
        }
    })
    .await;
    (peer, requests)
}

#[tokio::test]
async fn request_beyond_goaways_last_stream_id_is_sent_again() {
    let (peer, requests) = unprocessing(1).await;
    let (builder, events) = to(&peer);
    let channel = builder.build().unwrap();
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "done");
    assert_eq!((requests.count(), peer.accepts(), events.count("retry after")), (2, 2, 1));
}

#[tokio::test]
async fn request_is_sent_again_a_few_times_when_servers_say_that_they_did_not_process_it() {
    // More of them than attempts: the same one again would be backed off.
    let mut peers = Vec::new();
    for _ in 0..8 {
        peers.push(unprocessing(usize::MAX).await);
    }
    let addresses: Vec<_> = peers.iter().map(|(peer, _)| peer.address).collect();
    let events = Events::default();
    let builder = Channel::builder(fixture::target(&addresses)).recorder(events.recorder());
    let channel = builder.build().unwrap();
    let status = soon("an error", hello(&channel)).await.unwrap_err();
    expect(&status, &["127.0.0.1:"]);
    let sent: usize = peers.iter().map(|(_, requests)| requests.count()).sum();
    assert_eq!((sent, events.count("retry after")), (6, 5));
}

#[tokio::test]
async fn refused_stream_is_sent_again_once_and_elsewhere() {
    let refused = Requests::default();
    let served = Requests::default();
    let counted = refused.clone();
    let refusing = Peer::start(move |_, socket| {
        let requests = counted.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            while let Some(stream) = requests.next(&mut frames).await {
                frames.rst(stream, REFUSED_STREAM).await;
            }
        }
    })
    .await;
    let counted = served.clone();
    let serving = Peer::start(move |_, socket| {
        let requests = counted.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            while let Some(stream) = requests.next(&mut frames).await {
                frames.answer(stream, b"done").await;
            }
        }
    })
    .await;
    let (builder, events) = to(&refusing);
    let status = soon("an error", hello(&builder.build().unwrap())).await.unwrap_err();
    expect(&status, &[&refusing.address.to_string(), "the server reset the stream"]);
    assert_eq!((refused.count(), events.count("retry after")), (2, 1));

    let target = fixture::target(&[refusing.address, serving.address]);
    let events = Events::default();
    let channel = Channel::builder(target).recorder(events.recorder()).build().unwrap();
    channel.connect();
    for peer in [&refusing, &serving] {
        events.wait_for(1, &format!("{} READY", peer.address)).await;
    }
    for _ in 0..10 {
        assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "done");
    }
    // After a call was served, the turn is with the refusing one.
    let retries = events.count("retry after");
    assert!(retries >= 9, "{retries}");
    assert_eq!((served.count(), refused.count() - 2), (10, retries));
}

#[tokio::test]
async fn written_and_lost_is_unavailable_and_never_sent_again() {
    for reset in [false, true] {
        let requests = Requests::default();
        let counted = requests.clone();
        let peer = Peer::start(move |number, socket| {
            let requests = counted.clone();
            async move {
                let mut frames = Frames::greet(socket, &[]).await;
                let Some(stream) = requests.next(&mut frames).await else { return };
                // Unread bytes would turn a close into a reset.
                assert_eq!(frames.read().await.unwrap().kind, frames::DATA);
                match (number, reset) {
                    (0, false) => {}
                    (0, true) => peer::reset(frames.socket),
                    _ => {
                        frames.answer(stream, b"done").await;
                        frames.drain().await;
                    }
                }
            }
        })
        .await;
        let (builder, events) = to(&peer);
        let channel = builder.build().unwrap();
        let status = soon("an error", hello(&channel)).await.unwrap_err();
        let why = if reset { "connection lost" } else { "the server closed the connection" };
        expect(&status, &[&peer.address.to_string(), why]);
        assert_eq!((requests.count(), events.count("retry after")), (1, 0));
        assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "done");
    }
}

/// The bytes that wait in the kernel on the sockets that are connected to this port.
fn unsent_bytes(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let remote = format!(":{port:04X}");
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let queues = lines.filter(|f| f.get(2).is_some_and(|remote_of| remote_of.ends_with(&remote)));
    queues.map(|f| u64::from_str_radix(&f[4][..8], 16).expect("a number")).sum()
}

/// Waits until nothing moves any more but the few bytes of the kernel's window probes. The table is
/// long when the machine is busy, so it is read now and then only.
async fn filled(port: u16) {
    let (mut turns, mut last, mut same) = (0, 0_u64, 0);
    until("full buffers", || {
        turns += 1;
        if turns % 50 == 0 {
            let now = unsent_bytes(port);
            let still = now > 0 && now.abs_diff(last) < 16_384;
            same = if still { same + 1 } else { 0 };
            last = now;
        }
        same > 2
    })
    .await;
}

#[tokio::test]
async fn request_that_never_reached_the_socket_is_sent_until_it_is() {
    const STUCK: usize = 2;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(16).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (kill, killed) = mpsc::channel::<()>(1);
    let killed = Arc::new(tokio::sync::Mutex::new(killed));
    let requests = Requests::default();
    let counted = requests.clone();
    let peer = Peer::start_on(listener, move |number, socket| {
        let (requests, killed) = (counted.clone(), killed.clone());
        async move {
            let mut frames = Frames::greet(socket, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await;
            frames.open_window().await;
            if number < STUCK {
                // Reads the upload's head and nothing more, so that all buffers fill up.
                let first = requests.next(&mut frames).await;
                killed.lock().await.recv().await;
                assert!(first.is_some());
                return peer::reset(frames.socket);
            }
            while let Some(stream) = requests.next(&mut frames).await {
                frames.answer(stream, b"done").await;
            }
        }
    });
    let (builder, events) = to(&peer);
    // On a quiet machine the connections live so shortly that the channel takes them for useless
    // and backs off: the small call waits for the next one all the same.
    let channel = builder.wait_for_ready(true).build().unwrap();
    let mut small = Box::pin(hello(&channel));
    for round in 0..STUCK {
        fixture::ready(&channel).await;
        let body = Bytes::from(vec![0; 16 * 1024 * KIB]);
        let mut large = Box::pin(unary(&channel, Request::new(body)));
        tokio::select! {
            _ = &mut large => panic!("nobody answered"),
            () = filled(port) => {}
        }
        assert!(futures_util::poll!(&mut small).is_pending());
        kill.send(()).await.unwrap();
        let status = soon("an error", large).await.unwrap_err();
        expect(&status, &[&peer.address.to_string()]);
        if round + 1 < STUCK {
            // Takes note of its loss, and waits for the next connection.
            until("the retry", || {
                assert!(futures_util::FutureExt::now_or_never(&mut small).is_none());
                events.count("retry after") > round
            })
            .await;
        }
    }
    assert_eq!(soon("an answer", small).await.unwrap(), "done");
    assert_eq!(events.count("retry after"), STUCK);
    assert_eq!(requests.count(), STUCK + 1, "each large one, and the small one once");
}

#[tokio::test]
async fn second_goaway_draws_the_line() {
    let peer = Peer::start(|number, socket| async move {
        let mut frames = Frames::greet(socket, &[]).await;
        if number > 0 {
            return frames.answer_all(b"second connection").await;
        }
        let first = frames.request().await.unwrap();
        let second = frames.request().await.unwrap();
        frames.goaway(0x7fff_ffff, NO_ERROR, b"").await;
        assert!(frames.round_trip().await.iter().all(|f| f.kind != frames::HEADERS));
        frames.goaway(first, NO_ERROR, b"").await;
        frames.answer(first, b"first connection").await;
        assert!(second > first);
        frames.drain().await;
    })
    .await;
    let (builder, events) = to(&peer);
    let channel = builder.build().unwrap();
    fixture::ready(&channel).await;
    let (one, two) =
        tokio::join!(soon("an answer", hello(&channel)), soon("an answer", hello(&channel)),);
    assert_eq!(one.unwrap(), "first connection");
    assert_eq!(two.unwrap(), "second connection");
    assert_eq!((events.count("drains"), events.count("retry after")), (1, 1));
}

#[tokio::test]
async fn running_streams_finish_after_goaway_while_new_calls_go_elsewhere() {
    let peer = Peer::start(|number, socket| async move {
        let mut frames = Frames::greet(socket, &[]).await;
        if number > 0 {
            return frames.answer_all(b"new").await;
        }
        let unary = frames.request().await.unwrap();
        let streaming = frames.request().await.unwrap();
        frames.head(streaming).await;
        frames.message(streaming, b"before").await;
        frames.goaway(streaming, NO_ERROR, b"").await;
        // What the client sends on running streams still counts.
        let mut body = Vec::new();
        while let Some(frame) = frames.read().await {
            if frame.kind == frames::DATA && frame.stream == streaming {
                body.extend(frame.payload);
            }
            if body == frames::enveloped(b"go") {
                break;
            }
        }
        frames.message(streaming, b"after").await;
        frames.trailers(streaming, "0").await;
        frames.answer(unary, b"old").await;
        frames.drain().await;
    })
    .await;
    let (builder, events) = to(&peer);
    let channel = builder.build().unwrap();
    fixture::ready(&channel).await;
    let mut old = Box::pin(hello(&channel));
    assert!(futures_util::poll!(&mut old).is_pending());
    let (send, mut sent) = mpsc::channel::<Bytes>(1);
    let messages = stream::poll_fn(move |cx| sent.poll_recv(cx));
    let answers = soon("a head", chat(&channel, "Chat", messages)).await.unwrap();
    let mut answers = answers.into_inner();
    assert_eq!(soon("a message", answers.message()).await.unwrap().unwrap(), "before");
    events.wait_for(1, "drains").await;
    for _ in 0..3 {
        assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "new");
    }
    send.send(Bytes::from_static(b"go")).await.unwrap();
    assert_eq!(soon("a message", answers.message()).await.unwrap().unwrap(), "after");
    assert!(soon("the end", answers.message()).await.unwrap().is_none());
    assert_eq!(soon("an answer", old).await.unwrap(), "old");
    let end = events.wait_for(1, "ended").await;
    assert!(end.contains("ended with 0"), "{end}");
    assert_eq!(peer.accepts(), 2);
}

#[tokio::test]
async fn retry_keeps_to_the_deadline() {
    // Every connection dies with the request unprocessed or is not there: a call without limits
    // would go on for ever.
    let peer = Peer::start(|number, socket| async move {
        if number == 0 {
            let mut frames = Frames::greet(socket, &[]).await;
            frames.request().await.unwrap();
            frames.goaway(0, NO_ERROR, b"").await;
        } else {
            pending::<()>().await; // never SETTINGS
            drop(socket);
        }
    })
    .await;
    let (builder, _) = to(&peer);
    let channel = builder.build().unwrap();
    let mut request = Request::new(Bytes::new());
    request.set_timeout(Duration::from_millis(200));
    let status = soon("the deadline", unary(&channel, request)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("waiting for a connection"), "{status}");
}
