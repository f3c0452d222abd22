//! What a call keeps of its request, so that a transparent retry can send it again, and the limits
//! of that.

mod fixture;

use std::{future::pending, sync::Arc};

use bytes::Bytes;
use fixture::{
    bytes::{BytesCodec, chat, client, hello, path, unary},
    frames::{self, Frames, INITIAL_WINDOW_SIZE, REFUSED_STREAM, Requests},
    peer::{Peer, expect, to},
    soon, until,
};
use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};
use tonic::Request;

const KIB: usize = 1024;

#[tokio::test]
async fn streamed_request_is_replayed_from_its_start() {
    const TEXTS: [&str; 4] = ["one", "two", "three", "four"];
    let (told, mut tell) = mpsc::channel(10);
    let peer = Peer::start(move |_, socket| {
        let told = told.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            let mut refused = false;
            let mut body: Vec<u8> = Vec::new();
            while let Some(frame) = frames.read().await {
                if frame.kind != frames::DATA {
                    continue;
                }
                body.extend(&frame.payload);
                if !refused && body.len() == 5 + 3 + 5 + 3 {
                    frames.rst(frame.stream, REFUSED_STREAM).await;
                    (refused, body) = (true, Vec::new());
                    told.send(Vec::new()).await.unwrap();
                } else if frame.flags & frames::END_STREAM != 0 {
                    told.send(std::mem::take(&mut body)).await.unwrap();
                    frames.answer(frame.stream, b"done").await;
                }
            }
        }
    })
    .await;
    let (builder, events) = to(&peer);
    let channel = builder.build().unwrap();
    let (send, mut sent) = mpsc::channel::<Bytes>(10);
    let messages = stream::poll_fn(move |cx| sent.poll_recv(cx));
    let mut client = client(&channel);
    let mut call =
        Box::pin(client.client_streaming(Request::new(messages), path("Count"), BytesCodec));
    for text in &TEXTS[..2] {
        send.send(Bytes::from(*text)).await.unwrap();
    }
    tokio::select! {
        _ = &mut call => panic!("nobody answered"),
        refused = soon("the refusal", tell.recv()) => assert!(refused.unwrap().is_empty()),
    }
    for text in &TEXTS[2..] {
        send.send(Bytes::from(*text)).await.unwrap();
    }
    drop(send);
    assert_eq!(soon("an answer", call).await.unwrap().into_inner(), "done");
    let whole = TEXTS.map(|text| frames::enveloped(text.as_bytes())).concat();
    assert_eq!(soon("the request", tell.recv()).await.unwrap(), whole);
    assert_eq!(events.count("retry after"), 1);
}

/// Refuses the first stream when so much of its body came.
async fn refusing_after(bytes: usize) -> (Peer, Requests) {
    let requests = Requests::default();
    let counted = requests.clone();
    let peer = Peer::start(move |_, socket| {
        let requests = counted.clone();
        async move {
            let mut frames = Frames::greet(socket, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await;
            frames.open_window().await;
            let stream = requests.next(&mut frames).await.unwrap();
            let mut body = 0;
            while body < bytes {
                let frame = frames.read().await.unwrap();
                assert_eq!(frame.kind, frames::DATA);
                body += frame.payload.len();
            }
            frames.rst(stream, REFUSED_STREAM).await;
            while let Some(stream) = requests.next(&mut frames).await {
                frames.answer(stream, b"done").await;
            }
        }
    })
    .await;
    (peer, requests)
}

#[tokio::test]
async fn only_what_is_kept_whole_is_sent_again() {
    // In one message, or in many that are there at once, or in many that come one by one.
    let once = |kib: usize| stream::iter([Bytes::from(vec![0; kib * KIB])]).boxed();
    let at_once = |kib: usize| stream::iter(vec![Bytes::from(vec![0; KIB]); kib]).boxed();
    let slowly = |kib: usize| {
        at_once(kib)
            .then(|message| async {
                tokio::task::yield_now().await;
                message
            })
            .boxed()
    };
    for (how, messages) in [
        ("once", &once as &dyn Fn(usize) -> stream::BoxStream<'static, Bytes>),
        ("at once", &at_once),
        ("slowly", &slowly),
    ] {
        let (peer, requests) = refusing_after(200 * KIB).await;
        let (builder, events) = to(&peer);
        let channel = builder.build().unwrap();
        let mut answers = soon("a head", chat(&channel, "Chat", messages(200))).await.unwrap();
        let answer = soon("an answer", answers.get_mut().message()).await.unwrap().unwrap();
        assert_eq!(answer, "done", "{how}");
        assert_eq!((requests.count(), events.count("retry after")), (2, 1), "{how}");

        let (peer, requests) = refusing_after(300 * KIB).await;
        let (builder, events) = to(&peer);
        let channel = builder.build().unwrap();
        // The stream stays open, so that the loss comes while the pump is at work.
        let messages = messages(300).chain(stream::once(pending()));
        let status = soon("an error", chat(&channel, "Chat", messages)).await.unwrap_err();
        expect(&status, &[&peer.address.to_string()]);
        assert_eq!((requests.count(), events.count("retry after")), (1, 0), "{how}");
        assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "done");
    }
}

/// Reads so many bytes of requests; with `begin` it then sends the heads of all responses. It
/// refuses the next stream and answers what follows.
async fn hoarding(bytes: usize, begin: bool) -> (Peer, watch::Receiver<bool>) {
    let (full, is_full) = watch::channel(false);
    let full = Arc::new(full);
    let peer = Peer::start(move |_, socket| {
        let full = full.clone();
        async move {
            let mut frames = Frames::greet(socket, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await;
            frames.open_window().await;
            let (mut streams, mut body) = (Vec::new(), 0);
            while body < bytes {
                let frame = frames.read().await.unwrap();
                match frame.kind {
                    frames::HEADERS => streams.push(frame.stream),
                    _ => body += frame.payload.len(),
                }
            }
            if begin {
                for stream in streams {
                    frames.head(stream).await;
                }
            }
            full.send_replace(true);
            let refused = frames.request().await.unwrap();
            frames.rst(refused, REFUSED_STREAM).await;
            frames.answer_all(b"done").await;
        }
    })
    .await;
    (peer, is_full)
}

#[tokio::test]
async fn channel_keeps_so_much_and_lets_go_when_responses_begin() {
    const CALLS: usize = 70;
    const EACH: usize = 240 * KIB; // 70 of them are more than 16 MiB
    for begin in [true, false] {
        let (peer, mut is_full) = hoarding(CALLS * EACH, begin).await;
        let (builder, events) = to(&peer);
        let channel = builder.build().unwrap();
        let message = Bytes::from(vec![0; EACH / 4 - 5]);
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            let messages = stream::iter(vec![message.clone(); 4]).chain(stream::once(pending()));
            let channel = channel.clone();
            calls.push(tokio::spawn(async move { chat(&channel, "Chat", messages).await }));
        }
        soon("all bodies", is_full.wait_for(|full| *full)).await.unwrap();
        if begin {
            until("all heads", || calls.iter().all(tokio::task::JoinHandle::is_finished)).await;
        }
        let large = Request::new(Bytes::from(vec![0; 200 * KIB]));
        let end = soon("the call's end", unary(&channel, large)).await;
        match begin {
            true => assert_eq!(end.unwrap().into_inner(), "done"),
            false => expect(&end.unwrap_err(), &["the server reset the stream"]),
        }
        assert_eq!(events.count("retry after"), usize::from(begin));
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
