//! A channel from its birth to its end: states, events in their order, and nothing left behind.

mod fixture;

use std::time::Duration;

use bytes::Bytes;
use evenkeel::{CallOptions, Channel, ConnectivityState};
use fixture::{
    Backend as Server,
    bytes::{Echo, chat, hello, unary},
    events::Events,
    frames::{self, Frames, MAX_CONCURRENT_STREAMS, NO_ERROR},
    peer::{self, Peer},
    runtime::OwnRuntime,
    soon, until,
};
use futures_util::{future::join_all, poll, stream};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tonic::{Code, Request, service::Routes};

async fn echo() -> (Server, Echo) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = Echo::default();
    (Server::with_routes(listener, Routes::new(echo.clone()), |b| b), echo)
}

#[tokio::test]
async fn dropping_the_last_channel_ends_all_its_tasks() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(echo().await.0);
    }
    let addresses: Vec<_> = servers.iter().map(|s| s.address).collect();
    let own = OwnRuntime::default();
    let builder = Channel::builder(fixture::target(&addresses));
    let channel = own.hosts(builder).build().unwrap();
    assert_eq!(own.tasks(), 1, "the driver; nothing is done before the first call");
    for _ in 0..10 {
        soon("an answer", hello(&channel)).await.unwrap();
    }
    own.has_tasks(1 + 1 + 3).await;
    let clone = channel.clone();
    drop(channel);
    assert_eq!(soon("an answer", hello(&clone)).await.unwrap(), "hello");
    drop(clone);
    own.has_tasks(0).await;
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test]
async fn connection_of_a_dropped_channel_drains_until_its_last_stream_ends() {
    let (server, echo) = echo().await;
    let own = OwnRuntime::default();
    let channel = own.hosts(Channel::builder(fixture::target(&[server.address]))).build().unwrap();
    let (send, mut sent) = mpsc::channel::<Bytes>(1);
    let messages = stream::poll_fn(move |cx| sent.poll_recv(cx));
    let answers = soon("a head", chat(&channel, "Chat", messages)).await.unwrap();
    let mut answers = answers.into_inner();
    drop(channel);
    own.has_tasks(2).await; // the connection and the pump
    for text in ["a", "b"] {
        send.send(Bytes::from(text)).await.unwrap();
        assert_eq!(soon("an echo", answers.message()).await.unwrap().unwrap(), text);
    }
    assert_eq!(echo.open.now(), 1);
    drop(send);
    assert!(soon("the end", answers.message()).await.unwrap().is_none());
    // The caller still has the response, and that keeps nothing.
    own.has_tasks(0).await;
    until("the server's end of it", || echo.open.now() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn call_that_was_not_sent_yet_keeps_its_channel() {
    let (go, gone) = watch::channel(false);
    let peer = Peer::start(move |_, socket| {
        let mut gone = gone.clone();
        async move {
            gone.wait_for(|go| *go).await.unwrap();
            Frames::greet(socket, &[]).await.answer_all(b"late").await;
        }
    })
    .await;
    let own = OwnRuntime::default();
    let channel = own.hosts(Channel::builder(peer.target())).build().unwrap();
    let request = http::Request::post("/test.Echo/Chat").body(tonic::body::Body::empty()).unwrap();
    let mut call = Box::pin(tower_service::Service::call(&mut channel.clone(), request));
    assert!(poll!(&mut call).is_pending());
    drop(channel);
    go.send_replace(true);
    assert_eq!(soon("a head", call).await.unwrap().status(), 200);
    own.has_tasks(0).await;
}

#[tokio::test]
async fn shutdown_refuses_and_drains() {
    let (server, echo) = echo().await;
    let own = OwnRuntime::default();
    let events = Events::default();
    let builder = Channel::builder(fixture::target(&[server.address])).recorder(events.recorder());
    let channel = own.hosts(builder).build().unwrap();
    let (send, mut sent) = mpsc::channel::<Bytes>(1);
    let messages = stream::poll_fn(move |cx| sent.poll_recv(cx));
    let answers = soon("a head", chat(&channel, "Chat", messages)).await.unwrap();
    let mut answers = answers.into_inner();
    let other = channel.clone();
    let shutdown = tokio::spawn(async move { other.shutdown(fixture::PATIENCE).await });
    fixture::in_state(&channel, ConnectivityState::Shutdown).await;
    for wait in [false, true] {
        let mut request = Request::new(Bytes::new());
        request.extensions_mut().insert(CallOptions::default().wait_for_ready(wait));
        let status = soon("an error", unary(&channel, request)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        let text = format!("target ipv4:{}: the channel was shut down", server.address);
        assert_eq!(status.message(), text);
    }
    assert!(!shutdown.is_finished());
    send.send(Bytes::from_static(b"still")).await.unwrap();
    assert_eq!(soon("an echo", answers.message()).await.unwrap().unwrap(), "still");
    drop(send);
    assert!(soon("the end", answers.message()).await.unwrap().is_none());
    soon("the shutdown", shutdown).await.unwrap();
    own.has_tasks(0).await;
    assert_eq!(echo.open.now(), 0);
    let list = events.list();
    let end = format!("{} ended with 0: no longer used", server.address);
    assert_eq!(list[list.len() - 2..], ["channel SHUTDOWN".to_owned(), end], "{list:?}");
    // A second one has nothing to do.
    soon("the shutdown", channel.shutdown(Duration::ZERO)).await;
    let state = channel.wait_for_state_change(ConnectivityState::Shutdown);
    assert_eq!(soon("the state", state).await, ConnectivityState::Shutdown);
    server.stop().await;
}

#[tokio::test]
async fn shutdown_cuts_what_outlives_its_grace() {
    let (server, echo) = echo().await;
    let own = OwnRuntime::default();
    let events = Events::default();
    let builder = Channel::builder(fixture::target(&[server.address])).recorder(events.recorder());
    let channel = own.hosts(builder).build().unwrap();
    let answers = soon("a head", chat(&channel, "Hold", stream::pending())).await.unwrap();
    let mut answers = answers.into_inner();
    soon("the shutdown", channel.shutdown(Duration::from_millis(50))).await;
    own.has_tasks(1).await; // the pump, whose call is not dropped yet
    let status = soon("an error", answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let why = "the channel was shut down and its grace is over";
    assert_eq!(status.message(), format!("{}: {why}", server.address));
    own.has_tasks(0).await;
    assert_eq!(events.count(&format!("{} ended with 1: {why}", server.address)), 1);
    until("the server's end of it", || echo.open.now() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn shutdown_fails_calls_that_wait_for_whatever() {
    let mute = Peer::start(|_, mut socket| async move {
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    })
    .await;
    let full = Peer::start(|_, socket| async move {
        Frames::greet(socket, &[(MAX_CONCURRENT_STREAMS, 0)]).await.drain().await;
    })
    .await;
    for (peer, ready) in [(&mute, false), (&full, true)] {
        let own = OwnRuntime::default();
        let channel = own.hosts(Channel::builder(peer.target())).build().unwrap();
        if ready {
            fixture::ready(&channel).await;
        }
        let mut patient = Request::new(Bytes::new());
        patient.extensions_mut().insert(CallOptions::default().wait_for_ready(true));
        let mut calls = [
            Box::pin(unary(&channel, Request::new(Bytes::new()))),
            Box::pin(unary(&channel, patient)),
        ];
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        let (ends, ()) = soon("the end", async {
            tokio::join!(join_all(calls), channel.shutdown(Duration::ZERO))
        })
        .await;
        for end in ends {
            let status = end.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.message().contains("the channel was shut down"), "{status}");
        }
        own.has_tasks(0).await;
    }
}

#[tokio::test]
async fn states_follow_each_other_and_can_be_waited_for() {
    let (server, _) = echo().await;
    let channel = Channel::builder(fixture::target(&[server.address])).build().unwrap();
    assert_eq!(channel.state(), ConnectivityState::Idle);
    channel.connect();
    channel.connect();
    let next = channel.wait_for_state_change(ConnectivityState::Idle);
    let next = soon("a change", next).await;
    assert!(matches!(next, ConnectivityState::Connecting | ConnectivityState::Ready), "{next}");
    fixture::in_state(&channel, ConnectivityState::Ready).await;
    let mut change = Box::pin(channel.wait_for_state_change(ConnectivityState::Ready));
    assert!(poll!(&mut change).is_pending());
    server.stop().await;
    let next = soon("a change", change).await;
    assert_ne!(next, ConnectivityState::Ready);
    fixture::in_state(&channel, ConnectivityState::TransientFailure).await;
    channel.connect(); // does nothing here
    soon("the shutdown", channel.shutdown(Duration::ZERO)).await;
    assert_eq!(channel.state(), ConnectivityState::Shutdown);
    assert!(format!("{channel:?}").contains("Shutdown"));
}

#[tokio::test]
async fn events_tell_connecting_draining_and_ending_in_order() {
    let (finish, finishing) = watch::channel(false);
    let peer = Peer::start(move |number, socket| {
        let mut finishing = finishing.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            if number > 0 {
                return frames.drain().await;
            }
            let stream = frames.request().await.unwrap();
            frames.goaway(stream, NO_ERROR, b"").await;
            finishing.wait_for(|finish| *finish).await.unwrap();
            frames.answer(stream, b"done").await;
            frames.drain().await;
        }
    })
    .await;
    let events = Events::default();
    let channel = Channel::builder(peer.target()).recorder(events.recorder()).build().unwrap();
    let mut call = Box::pin(hello(&channel));
    let a = peer.address;
    let ready = format!("{a} READY");
    tokio::select! {
        _ = &mut call => panic!("nobody answered"),
        _ = events.wait_for(2, &ready) => {}
    }
    finish.send_replace(true);
    assert_eq!(soon("an answer", call).await.unwrap(), "done");
    events.wait_for(1, "ended").await;
    let expected = [
        "channel CONNECTING".to_owned(),
        "resolved 1".to_owned(),
        format!("{a} CONNECTING"),
        format!("{a} READY"),
        "channel READY".to_owned(),
        format!("{a} drains"),
        format!("{a} IDLE"),
        format!("{a} CONNECTING"),
        "channel CONNECTING".to_owned(),
        format!("{a} READY"),
        "channel READY".to_owned(),
        format!("{a} ended with 0: the server sent GOAWAY, all is done"),
    ];
    assert_eq!(events.list(), expected);
}

#[tokio::test]
async fn streams_that_were_open_at_a_kill_are_counted_exactly() {
    let (kill, killed) = watch::channel(false);
    let peer = Peer::start(move |number, socket| {
        let mut killed = killed.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            if number > 0 {
                return frames.answer_all(b"new").await;
            }
            for _ in 0..3 {
                let stream = frames.request().await.unwrap();
                frames.answer(stream, b"early").await;
            }
            for _ in 0..5 {
                frames.request().await.unwrap();
            }
            frames.round_trip().await;
            killed.wait_for(|kill| *kill).await.unwrap();
            peer::reset(frames.socket);
        }
    })
    .await;
    let events = Events::default();
    let channel = Channel::builder(peer.target()).recorder(events.recorder()).build().unwrap();
    for _ in 0..3 {
        assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "early");
    }
    let mut calls: Vec<_> = (0..5).map(|_| Box::pin(hello(&channel))).collect();
    for call in &mut calls {
        assert!(poll!(call).is_pending());
    }
    kill.send_replace(true);
    for end in soon("the ends", join_all(calls)).await {
        let status = end.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(&peer.address.to_string()), "{status}");
    }
    let end = events.wait_for(1, "ended").await;
    assert!(end.starts_with(&format!("{} ended with 5: connection lost", peer.address)), "{end}");
    assert_eq!(events.count("drains"), 0);
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "new");
}

#[tokio::test]
async fn server_that_closes_a_half_open_connection_frees_its_calls() {
    // It closes its own half and never reads again, so that what is ours can never be written:
    // the connection is over all the same.
    let (close, closing) = watch::channel(false);
    let peer = Peer::start(move |number, socket| {
        let mut closing = closing.clone();
        async move {
            let window = [(frames::INITIAL_WINDOW_SIZE, 0x7fff_ffff)];
            let mut frames = Frames::greet(socket, &window).await;
            if number > 0 {
                return frames.answer_all(b"new").await;
            }
            frames.open_window().await;
            frames.request().await.unwrap();
            closing.wait_for(|close| *close).await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut frames.socket).await.unwrap();
            std::future::pending::<()>().await;
            drop(frames);
        }
    })
    .await;
    let channel = Channel::builder(peer.target()).build().unwrap();
    let large = Request::new(Bytes::from(vec![0; 64 << 20]));
    let mut call = Box::pin(unary(&channel, large));
    tokio::select! {
        _ = &mut call => panic!("nobody answered"),
        _ = peer.accepted(1) => {}
    }
    close.send_replace(true);
    let status = soon("an error", call).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("the server closed the connection"), "{status}");
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "new");
}
