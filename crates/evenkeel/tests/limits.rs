//! Servers that take a few streams at once, and more callers than that.

mod fixture;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Context,
};

use bytes::Bytes;
use evenkeel::{Channel, ChannelBuilder};
use fixture::{
    Backend as Server,
    bytes::{Echo, Gauge, hello, unary},
    events::Events,
    frames::{self, Frame, Frames, MAX_CONCURRENT_STREAMS},
    keyed::Keyed,
    peer::Peer,
    soon,
};
use futures_util::{FutureExt as _, poll};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tonic::{Code, Request, Status, service::Routes};

async fn limited(max: u32) -> (Server, Gauge) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = Echo::default();
    let open = echo.open.clone();
    let tune = |b: evenkeel_server::Builder| b.max_concurrent_streams(max);
    (Server::with_routes(listener, Routes::new(echo), tune), open)
}

#[tokio::test]
async fn no_call_fails_and_no_server_gets_more_than_it_takes() {
    for max in [1, 10] {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(limited(max).await);
        }
        let addresses: Vec<_> = servers.iter().map(|(s, _)| s.address).collect();
        let channel = Channel::builder(fixture::target(&addresses)).build().unwrap();
        let mut callers = JoinSet::new();
        for _ in 0..200 {
            let channel = channel.clone();
            callers.spawn(async move {
                for _ in 0..5 {
                    let mut request = Request::new(Bytes::from_static(b"hello"));
                    request.set_timeout(fixture::PATIENCE);
                    assert_eq!(unary(&channel, request).await.unwrap().into_inner(), "hello");
                }
            });
        }
        while let Some(caller) = soon("a caller", callers.join_next()).await {
            caller.unwrap();
        }
        drop(channel);
        for (server, open) in servers {
            assert!((1..=max as usize).contains(&open.most()), "{} of {max}", open.most());
            server.stop().await;
        }
    }
}

/// Tells of each request's stream, and answers what it is told.
async fn commanded(max: u32) -> (Peer, mpsc::Receiver<u32>, watch::Sender<u32>) {
    let (seen, saw) = mpsc::channel(100);
    let (answer, answered) = watch::channel(0);
    let peer = Peer::start(move |_, socket| {
        let (seen, mut answered) = (seen.clone(), answered.clone());
        async move {
            let mut frames = Frames::greet(socket, &[(MAX_CONCURRENT_STREAMS, max)]).await;
            loop {
                tokio::select! {
                    frame = frames.read() => match frame {
                        Some(frame) if frame.kind == frames::HEADERS => {
                            seen.send(frame.stream).await.unwrap();
                        }
                        Some(_) => {}
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

type Call<'a> = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + 'a>>;

#[tokio::test]
async fn calls_that_wait_are_served_in_their_order_before_new_ones() {
    let (peer, mut saw, answer) = commanded(1).await;
    let channel = Channel::builder(peer.target()).build().unwrap();
    fixture::ready(&channel).await;
    let mut waiting: Vec<Call<'_>> = Vec::new();
    for _ in 0..5 {
        let mut call: Call<'_> = Box::pin(hello(&channel));
        assert!(poll!(&mut call).is_pending());
        waiting.push(call);
    }
    for expected in 0..5 {
        let stream = soon("a request", saw.recv()).await.unwrap();
        // A newcomer at the very moment when a stream becomes free stands at the end.
        let mut newcomer: Call<'_> = Box::pin(hello(&channel));
        answer.send_replace(stream);
        let first = soon("an answer", futures_util::future::select_all(&mut waiting)).await;
        assert_eq!(first.0.unwrap(), "done");
        assert_eq!(first.1, 0, "call {expected} is the next");
        drop(waiting.remove(0));
        assert!(poll!(&mut newcomer).is_pending());
        for call in &mut waiting {
            assert!(poll!(call).is_pending());
        }
    }
}

#[tokio::test]
async fn caller_in_a_loop_does_not_starve_another() {
    let (server, _) = limited(1).await;
    let channel = Channel::builder(fixture::target(&[server.address])).build().unwrap();
    fixture::ready(&channel).await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut callers = JoinSet::new();
    for name in ["a", "b", "c"] {
        let (channel, order) = (channel.clone(), order.clone());
        callers.spawn(async move {
            for _ in 0..50 {
                hello(&channel).await.unwrap();
                order.lock().unwrap().push(name);
            }
        });
    }
    while let Some(caller) = soon("a caller", callers.join_next()).await {
        caller.unwrap();
    }
    let order = order.lock().unwrap().clone();
    // All three wait all the time until the first is done.
    for three in order[..order.len() - 6].chunks(3) {
        let mut names = three.to_vec();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c"], "{order:?}");
    }
    drop(channel);
    server.stop().await;
}

#[tokio::test]
async fn limit_that_is_lowered_or_raised_counts_at_once() {
    let (told, mut tell) = mpsc::channel::<&str>(1);
    let told = Arc::new(told);
    let peer = Peer::start(move |_, socket| {
        let told = told.clone();
        async move {
            let is_request = |frame: &Frame| frame.kind == frames::HEADERS;
            let mut frames = Frames::greet(socket, &[(MAX_CONCURRENT_STREAMS, 3)]).await;
            let mut open = Vec::new();
            while open.len() < 3 {
                open.push(frames.request().await.unwrap());
            }
            frames.settings(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
            told.send("lowered").await.unwrap();
            // Two answers make no room for the fourth; the third does.
            for stream in open.drain(..2) {
                frames.answer(stream, b"done").await;
                assert!(!frames.round_trip().await.iter().any(is_request));
            }
            frames.answer(open[0], b"done").await;
            frames.request().await.unwrap();
            assert!(!frames.round_trip().await.iter().any(is_request));
            // The fifth needs no other call's end.
            frames.settings(&[(MAX_CONCURRENT_STREAMS, 2)]).await;
            let fifth = frames.request().await.unwrap();
            assert!(!frames.round_trip().await.iter().any(is_request));
            frames.settings(&[]).await;
            frames.answer(fifth, b"the fifth").await;
            told.send("over").await.unwrap();
            frames.answer_all(b"done").await;
        }
    })
    .await;
    let channel = Channel::builder(peer.target()).build().unwrap();
    fixture::ready(&channel).await;
    let mut calls: Vec<Call<'_>> = (0..3).map(|_| Box::pin(hello(&channel)) as Call<'_>).collect();
    let mut all = Box::pin(async {
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        assert_eq!(soon("word", tell.recv()).await, Some("lowered"));
        for _ in 3..6 {
            calls.push(Box::pin(hello(&channel)));
        }
        // All of them, until the server has seen all that it wants to see.
        let mut told = Box::pin(tell.recv());
        loop {
            tokio::select! {
                word = &mut told => break assert_eq!(word, Some("over")),
                (answer, index, _) = futures_util::future::select_all(&mut calls) => {
                    drop(calls.remove(index));
                    let answer = answer.unwrap();
                    assert!(answer == "done" || answer == "the fifth", "{answer:?}");
                }
            }
        }
    });
    soon("the server's end", &mut all).await;
}

#[tokio::test]
async fn server_without_any_stream_lets_calls_wait_until_it_has_some() {
    let (raise, raised) = watch::channel(false);
    let peer = Peer::start(move |_, socket| {
        let mut raised = raised.clone();
        async move {
            let mut frames = Frames::greet(socket, &[(MAX_CONCURRENT_STREAMS, 0)]).await;
            raised.wait_for(|raised| *raised).await.unwrap();
            frames.settings(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
            frames.answer_all(b"done").await;
        }
    })
    .await;
    let channel = Channel::builder(peer.target()).build().unwrap();
    fixture::ready(&channel).await;
    let mut calls: Vec<_> = (0..5).map(|_| Box::pin(hello(&channel))).collect();
    for call in &mut calls {
        assert!(poll!(call).is_pending());
    }
    raise.send_replace(true);
    let answers = soon("five answers", futures_util::future::join_all(calls)).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == "done"));
}

#[tokio::test]
async fn waiting_calls_are_limited() {
    let (peer, mut saw, answer) = commanded(1).await;
    let channel = Channel::builder(peer.target()).waiting_calls_max(2).build().unwrap();
    fixture::ready(&channel).await;
    let mut first = Box::pin(hello(&channel));
    assert!(poll!(&mut first).is_pending());
    let stream = soon("a request", saw.recv()).await.unwrap();
    let mut waiting = [Box::pin(hello(&channel)), Box::pin(hello(&channel))];
    for call in &mut waiting {
        assert!(poll!(call).is_pending());
    }
    let refused = soon("an error", hello(&channel)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let text = format!(
        "target {}: 2 calls wait for a connection already; see waiting_calls_max",
        peer.target()
    );
    assert_eq!(refused.message(), text);
    // One that goes on makes room.
    answer.send_replace(stream);
    assert_eq!(soon("an answer", first).await.unwrap(), "done");
    assert!(poll!(&mut waiting[0]).is_pending());
    soon("a request", saw.recv()).await.unwrap();
    assert!(hello(&channel).now_or_never().is_none());
}

fn keyed(peers: &[&Peer]) -> (ChannelBuilder, Events) {
    let addresses: Vec<_> = peers.iter().map(|peer| peer.address).collect();
    let events = Events::default();
    let builder = Channel::builder(fixture::target(&addresses))
        .register_policy(Arc::new(Keyed))
        .lb_policy("keyed")
        .recorder(events.recorder());
    (builder, events)
}

fn with_key(key: &str) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from_static(b"hello"));
    request.metadata_mut().insert("key", key.parse().unwrap());
    request
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn free_stream_reaches_the_call_that_wants_it_past_those_that_do_not() {
    let (zero, mut saw_zero, answer_zero) = commanded(1).await;
    let (one, mut saw_one, answer_one) = commanded(1).await;
    let (builder, _) = keyed(&[&zero, &one]);
    let channel = builder.build().unwrap();
    fixture::ready(&channel).await;
    let mut holders =
        [Box::pin(unary(&channel, with_key("0"))), Box::pin(unary(&channel, with_key("1")))];
    for holder in &mut holders {
        assert!(poll!(holder).is_pending());
    }
    soon("a request", saw_zero.recv()).await.unwrap();
    let stream_one = soon("a request", saw_one.recv()).await.unwrap();
    // Before the one that wants endpoint 1 stand three that want endpoint 0.
    let mut before: Vec<_> = (0..3).map(|_| Box::pin(unary(&channel, with_key("0")))).collect();
    let wakes = Arc::new(Wakes::default());
    let waker = wakes.clone().into();
    let mut noting = Context::from_waker(&waker);
    for call in &mut before {
        assert!(call.as_mut().poll(&mut noting).is_pending());
    }
    let mut wanted = Box::pin(unary(&channel, with_key("1")));
    assert!(poll!(&mut wanted).is_pending());
    answer_one.send_replace(stream_one);
    let [holder_zero, holder_one] = &mut holders;
    soon("an answer", holder_one).await.unwrap();
    // Each of the three is woken once, looks, and hands it on.
    let through = std::future::poll_fn(|cx| {
        for call in &mut before {
            assert!(call.as_mut().poll(&mut noting).is_pending());
        }
        assert!(wanted.as_mut().poll(cx).is_pending());
        saw_one.poll_recv(cx)
    });
    let stream = soon("the request", through).await.unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 3);
    answer_one.send_replace(stream);
    assert_eq!(soon("an answer", wanted).await.unwrap().into_inner(), "done");
    assert!(holder_zero.as_mut().now_or_never().is_none());
    drop(answer_zero);
}

#[tokio::test]
async fn call_that_leaves_the_line_hands_on_what_it_was_offered() {
    let (peer, mut saw, answer) = commanded(1).await;
    let channel = Channel::builder(peer.target()).build().unwrap();
    fixture::ready(&channel).await;
    let mut holder = Box::pin(hello(&channel));
    assert!(poll!(&mut holder).is_pending());
    let stream = soon("a request", saw.recv()).await.unwrap();
    let mut leaving = Box::pin(hello(&channel));
    assert!(poll!(&mut leaving).is_pending());
    let mut staying = Box::pin(hello(&channel));
    assert!(poll!(&mut staying).is_pending());
    answer.send_replace(stream);
    soon("an answer", holder).await.unwrap();
    // It was offered the stream and did not look yet.
    drop(leaving);
    let stream = tokio::select! {
        _ = &mut staying => panic!("nobody answered"),
        stream = soon("the request", saw.recv()) => stream.unwrap(),
    };
    answer.send_replace(stream);
    assert_eq!(soon("an answer", staying).await.unwrap(), "done");
    // And with nobody left in the line, it is free.
    let mut last = Box::pin(hello(&channel));
    assert!(poll!(&mut last).is_pending());
    soon("the request", saw.recv()).await.unwrap();
}
