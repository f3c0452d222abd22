//! Client-side health checking (gRFC A17) against real servers and scripted ones: where calls go,
//! which streams are opened, and that none is left.

mod fixture;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel::{Backoff, Channel, ChannelBuilder, ConnectivityState, view::CallCounts};
use fixture::{
    Backend,
    bytes::{Echo, hello, unary},
    events::Events,
    frames::{CANCEL, Frames, HEADERS, INTERNAL_ERROR, NO_ERROR, RST_STREAM},
    in_state,
    manual::{Manual, Says},
    peer::{Peer, expect},
    ready,
    runtime::OwnRuntime,
    soon, target,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
};
use tonic::{Request, service::Routes};

const CONFIG: &str = r#"{"healthCheckConfig":{"serviceName":"test"}}"#;
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

/// A server whose services `test` and `other` have a health, and which answers calls.
async fn checked() -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let routes = Routes::new(Echo::default());
    Backend::with_routes(listener, routes, |b| b.health(["test", "other"]))
}

async fn set(backend: &Backend, serving: bool) {
    backend.health.as_ref().expect("it has one").set("test", serving).await;
}

/// A channel that checks, and what it tells.
fn to(addresses: &[SocketAddr]) -> (ChannelBuilder, Events) {
    let events = Events::default();
    let builder = Channel::builder(target(addresses)).service_config(CONFIG);
    (builder.recorder(events.recorder()), events)
}

/// Waits which are never over within a test, so that whatever happens twice did not wait.
fn long_waits(builder: ChannelBuilder) -> ChannelBuilder {
    let hour = Duration::from_secs(3_600);
    builder.backoff(Backoff { initial: hour, max: hour, jitter: 0.0, ..Backoff::default() })
}

/// The address that serves a call.
async fn serves(channel: &Channel) -> SocketAddr {
    let request = Request::new(Bytes::from_static(b"hello"));
    let response = soon("an answer", unary(channel, request)).await.expect("no failed call");
    let backend = response.extensions().get::<evenkeel::Backend>().expect("the chosen backend");
    backend.address.to_string().parse().expect("an IP address and a port")
}

async fn shares(channel: &Channel, calls: usize) -> BTreeMap<SocketAddr, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        *shares.entry(serves(channel).await).or_default() += 1;
    }
    shares
}

/// A connection whose health check is there: its stream is 1.
async fn asked(socket: tokio::net::TcpStream) -> Frames {
    let mut frames = Frames::greet(socket, &[]).await;
    assert_eq!(frames.request().await, Some(1), "the health check comes first");
    frames.head(1).await;
    frames
}

/// What the client sent of new streams before everything that we sent was processed.
async fn new_streams(frames: &mut Frames) -> usize {
    frames.round_trip().await.iter().filter(|frame| frame.kind == HEADERS).count()
}

#[tokio::test]
async fn traffic_leaves_what_is_unhealthy_and_comes_back_without_a_failed_call() {
    let backends = [checked().await, checked().await, checked().await];
    let addresses = [0, 1, 2].map(|i| backends[i].address);
    let (builder, events) = to(&addresses);
    let channel = builder.build().unwrap();
    ready(&channel).await;
    events.wait_for(3, "health READY").await;
    // Calls all along, beside those that this test looks at.
    let (stop, stopped) = watch::channel(false);
    let calling = channel.clone();
    let caller = tokio::spawn(async move {
        let mut calls = 0;
        while !*stopped.borrow() {
            serves(&calling).await;
            calls += 1;
        }
        calls
    });
    let second = addresses[1];
    for round in 1..=10 {
        set(&backends[1], false).await;
        let told = format!("{second} health TRANSIENT_FAILURE");
        let told = events.wait_for(round, &told).await;
        assert!(told.ends_with("the health check of \"test\" says NOT_SERVING"), "{told}");
        assert!(!shares(&channel, 20).await.contains_key(&second), "round {round}");
        set(&backends[1], true).await;
        events.wait_for(1 + round, &format!("{second} health READY")).await;
        let shares = shares(&channel, 20).await;
        assert!(shares.contains_key(&second), "round {round}: {shares:?}");
    }
    let [one, two, three] = backends;
    two.stop().await;
    assert!(!shares(&channel, 20).await.contains_key(&second));
    stop.send(true).unwrap();
    let calls = soon("the caller", caller).await.expect("no call of it failed");
    assert!(calls > 0);
    for address in [one.address, three.address] {
        assert_eq!(events.count(&format!("{address} READY")), 1, "one connection each");
    }
    drop(channel);
    one.stop().await;
    three.stop().await;
}

#[tokio::test]
async fn a_connection_is_not_used_before_its_first_answer() {
    let answer = Arc::new(Notify::new());
    let told = answer.clone();
    let peer = Peer::start(move |_, socket| {
        let answer = told.clone();
        async move {
            let mut frames = asked(socket).await;
            answer.notified().await;
            frames.health(1, SERVING).await;
            frames.answer_all(b"well").await;
        }
    })
    .await;
    let (builder, events) = to(&[peer.address]);
    let channel = builder.build().unwrap();
    channel.connect();
    events.wait_for(1, "health CONNECTING").await;
    assert_eq!(channel.state(), ConnectivityState::Connecting);
    let calling = channel.clone();
    let call = tokio::spawn(async move { hello(&calling).await });
    answer.notify_one();
    assert_eq!(soon("an answer", call).await.unwrap().unwrap(), "well");
    assert_eq!(channel.state(), ConnectivityState::Ready);
}

#[tokio::test]
async fn when_nobody_is_healthy_calls_hear_why() {
    let backend = checked().await;
    set(&backend, false).await;
    let (builder, _) = to(&[backend.address]);
    let channel = builder.build().unwrap();
    let error = soon("a failure", hello(&channel)).await.unwrap_err();
    expect(&error, &[&backend.address.to_string(), "health check of \"test\" says NOT_SERVING"]);
    drop(channel);
    backend.stop().await;
}

#[tokio::test]
async fn a_server_without_the_service_counts_as_healthy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = Backend::with_routes(listener, Routes::new(Echo::default()), |b| b);
    let (builder, events) = to(&[backend.address]);
    let channel = builder.build().unwrap();
    assert_eq!(serves(&channel).await, backend.address);
    events.wait_for(1, "health READY").await;
    assert_eq!(events.count("health"), 2, "CONNECTING and READY: {:?}", events.list());
    drop(channel);
    backend.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_unanswered_is_not_opened_again_at_once() {
    let (say, mut said) = mpsc::channel(1);
    let (look, looks) = watch::channel(false);
    let peer = Peer::start(move |_, socket| {
        let (say, mut looks) = (say.clone(), looks.clone());
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            assert_eq!(frames.request().await, Some(1));
            frames.rst(1, INTERNAL_ERROR).await;
            looks.wait_for(|look| *look).await.expect("the test is there");
            say.send(new_streams(&mut frames).await).await.expect("the test is there");
            frames.drain().await;
        }
    })
    .await;
    let (builder, events) = to(&[peer.address]);
    let channel = long_waits(builder).build().unwrap();
    channel.connect();
    in_state(&channel, ConnectivityState::TransientFailure).await;
    let why = events.wait_for(1, "health TRANSIENT_FAILURE").await;
    assert!(why.contains("health check of \"test\" failed: Internal"), "{why}");
    look.send(true).unwrap();
    assert_eq!(soon("a count", said.recv()).await, Some(0));
    assert_eq!(peer.accepts(), 1, "and the connection stays");
    expect(&hello(&channel).await.unwrap_err(), &["health check", "reset the stream"]);
}

#[tokio::test]
async fn a_stream_that_breaks_after_an_answer_is_opened_again_once() {
    let (say, mut said) = mpsc::channel(1);
    let (look, looks) = watch::channel(false);
    let peer = Peer::start(move |_, socket| {
        let (say, mut looks) = (say.clone(), looks.clone());
        async move {
            let mut frames = asked(socket).await;
            frames.health(1, SERVING).await;
            frames.trailers(1, "14").await;
            assert_eq!(frames.request().await, Some(3), "the spared one");
            frames.head(3).await;
            frames.health(3, SERVING).await;
            frames.trailers(3, "14").await;
            looks.wait_for(|look| *look).await.expect("the test is there");
            say.send(new_streams(&mut frames).await).await.expect("the test is there");
            frames.drain().await;
        }
    })
    .await;
    let (builder, events) = to(&[peer.address]);
    let channel = long_waits(builder).build().unwrap();
    channel.connect();
    events.wait_for(1, "health TRANSIENT_FAILURE").await;
    look.send(true).unwrap();
    assert_eq!(soon("a count", said.recv()).await, Some(0));
    assert_eq!((peer.accepts(), channel.state()), (1, ConnectivityState::TransientFailure));
}

#[tokio::test]
async fn a_check_is_no_call_in_the_channels_snapshot() {
    let peer = Peer::start(move |_, socket| async move {
        let mut frames = asked(socket).await;
        frames.health(1, SERVING).await;
        frames.trailers(1, "0").await;
        assert_eq!(frames.request().await, Some(3), "the spared one");
        frames.head(3).await;
        frames.health(3, SERVING).await;
        frames.drain().await;
    })
    .await;
    let (builder, events) = to(&[peer.address]);
    let channel = long_waits(builder).build().unwrap();
    channel.connect();
    events.wait_for(2, "health READY").await;
    assert_eq!(channel.snapshot().calls, CallCounts::default(), "one check ended, one is open");
}

#[tokio::test]
async fn goaway_cancels_the_check_and_the_next_connection_has_its_own() {
    let (say, mut said) = mpsc::channel(1);
    let peer = Peer::start(move |_, socket| {
        let say = say.clone();
        async move {
            let mut frames = asked(socket).await;
            frames.health(1, SERVING).await;
            let stream = frames.request().await.expect("a call");
            frames.answer(stream, b"well").await;
            frames.goaway(stream, NO_ERROR, b"").await;
            let mut canceled = false;
            while let Some(frame) = frames.read().await {
                canceled |= frame.kind == RST_STREAM
                    && frame.stream == 1
                    && frame.payload == CANCEL.to_be_bytes();
            }
            say.send(canceled).await.ok();
        }
    })
    .await;
    let (builder, _) = to(&[peer.address]);
    let channel = builder.build().unwrap();
    for _ in 0..3 {
        assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "well");
        // The connection ends though its check had no end of its own.
        assert_eq!(soon("the connection's end", said.recv()).await, Some(true));
    }
}

#[tokio::test]
async fn a_server_that_dies_is_asked_again_when_it_is_back() {
    let die = Arc::new(Notify::new());
    let told = die.clone();
    let peer = Peer::start(move |_, socket| {
        let die = told.clone();
        async move {
            let mut frames = asked(socket).await;
            frames.health(1, SERVING).await;
            tokio::select! {
                () = frames.answer_all(b"well") => {}
                () = die.notified() => {}
            }
        }
    })
    .await;
    let (builder, events) = to(&[peer.address]);
    let channel = builder.build().unwrap();
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "well");
    die.notify_one();
    let end = events.wait_for(1, " ended with ").await;
    assert!(end.contains("ended with 0"), "the check is no call that was lost: {end}");
    events.wait_for(2, "health READY").await;
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "well");
    assert_eq!(peer.accepts(), 2);
    // Its stream's end must not look like bad health: calls in between wait.
    assert_eq!(events.count("TRANSIENT_FAILURE"), 0, "{:?}", events.list());
}

#[tokio::test]
async fn a_thousand_flaps_end_in_the_right_state() {
    const FLAPS: usize = 1_000;
    let peer = Peer::start(|_, socket| async move {
        let mut frames = asked(socket).await;
        for _ in 0..FLAPS {
            frames.health(1, SERVING).await;
            frames.health(1, NOT_SERVING).await;
        }
        frames.drain().await;
    })
    .await;
    let (builder, events) = to(&[peer.address]);
    let channel = builder.build().unwrap();
    channel.connect();
    events.wait_for(FLAPS, "health TRANSIENT_FAILURE").await;
    assert_eq!(events.count("health READY"), FLAPS);
    in_state(&channel, ConnectivityState::TransientFailure).await;
    assert_eq!(peer.accepts(), 1);

    let backend = checked().await;
    let (builder, events) = to(&[backend.address]);
    let channel = builder.build().unwrap();
    ready(&channel).await;
    for round in 0..FLAPS {
        set(&backend, round % 2 == 0).await;
    }
    in_state(&channel, ConnectivityState::TransientFailure).await;
    set(&backend, true).await;
    in_state(&channel, ConnectivityState::Ready).await;
    assert_eq!(serves(&channel).await, backend.address);
    assert_eq!(events.count(&format!("{} READY", backend.address)), 1);
    drop(channel);
    backend.stop().await;
}

/// What becomes of a check when the channel ends, one way or the other.
async fn left_behind(end: impl AsyncFnOnce(Channel)) {
    let (say, mut said) = mpsc::channel(1);
    let peer = Peer::start(move |_, socket| {
        let say = say.clone();
        async move {
            let mut frames = asked(socket).await;
            frames.health(1, SERVING).await;
            let mut seen = Vec::new();
            while let Some(frame) = frames.read().await {
                seen.push((frame.kind, frame.stream));
            }
            say.send(seen).await.ok();
        }
    })
    .await;
    let own = OwnRuntime::default();
    let channel = own.hosts(to(&[peer.address]).0).build().unwrap();
    ready(&channel).await;
    end(channel).await;
    own.has_tasks(0).await;
    let seen = soon("the connection's end", said.recv()).await.expect("the peer is there");
    assert!(seen.contains(&(RST_STREAM, 1)), "the check was cancelled: {seen:?}");
}

#[tokio::test]
async fn a_dropped_channel_leaves_no_stream_and_no_task() {
    left_behind(async |channel| drop(channel)).await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_checks() {
    left_behind(async |channel| {
        soon("the shutdown", channel.shutdown(Duration::from_secs(3_600))).await;
    })
    .await;
}

#[tokio::test]
async fn checks_need_no_tasks_of_their_own() {
    let backends = [checked().await, checked().await];
    let addresses = [0, 1].map(|i| backends[i].address);
    for checks in [false, true] {
        let own = OwnRuntime::default();
        let (builder, events) = to(&addresses);
        let channel = own.hosts(builder).disable_health_check(!checks).build().unwrap();
        ready(&channel).await;
        for address in addresses {
            events.wait_for(1, &format!("{address} READY")).await;
        }
        if checks {
            events.wait_for(2, "health READY").await;
        }
        own.has_tasks(1 + 1 + addresses.len()).await; // driver, resolver, connections
        drop(channel);
        own.has_tasks(0).await;
    }
    let [one, two] = backends;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn the_switch_in_the_builder_goes_before_the_service_config() {
    let peer = Peer::start(|_, socket| async move {
        let mut frames = Frames::greet(socket, &[]).await;
        while let Some(stream) = frames.request().await {
            frames.answer(stream, stream.to_string().as_bytes()).await;
        }
    })
    .await;
    let (builder, events) = to(&[peer.address]);
    let channel = builder.disable_health_check(true).build().unwrap();
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "1", "the first stream");
    assert_eq!(events.count("health"), 0);
}

#[tokio::test]
async fn pick_first_as_the_channels_policy_does_not_ask() {
    let backend = checked().await;
    set(&backend, false).await;
    let config = r#"{"loadBalancingConfig":[{"pick_first":{}}],
                     "healthCheckConfig":{"serviceName":"test"}}"#;
    let (builder, events) = to(&[backend.address]);
    let channel = builder.service_config(config).build().unwrap();
    assert_eq!(serves(&channel).await, backend.address);
    assert_eq!(events.count("health"), 0);
    drop(channel);
    backend.stop().await;
}

#[tokio::test]
async fn a_check_takes_one_of_the_streams_that_the_server_allows() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = Echo::default();
    let backend = Backend::with_routes(listener, Routes::new(echo.clone()), |b| {
        b.health(["test"]).max_concurrent_streams(2)
    });
    let channel = to(&[backend.address]).0.build().unwrap();
    ready(&channel).await;
    let calls = (0..50).map(|_| hello(&channel));
    for answer in soon("answers", futures_util::future::join_all(calls)).await {
        assert_eq!(answer.unwrap(), "hello");
    }
    assert_eq!(echo.open.most(), 1);
    drop(channel);
    backend.stop().await;
}

#[tokio::test]
async fn the_resolvers_config_turns_checks_on_off_and_to_another_name() {
    let backend = checked().await;
    set(&backend, false).await;
    let list = vec![backend.address];
    let says = |service: &str| {
        let config = format!(r#"{{"healthCheckConfig":{{"serviceName":"{service}"}}}}"#);
        Says::Configured(list.clone(), config)
    };
    let manual = Manual::new(says("other"));
    let events = Events::default();
    let builder = Channel::builder("manual:greeter").register_resolver(manual.factory());
    let channel = builder.recorder(events.recorder()).build().unwrap();
    ready(&channel).await;
    manual.say(says("test"));
    in_state(&channel, ConnectivityState::TransientFailure).await;
    manual.say(Says::Configured(list.clone(), "{}".into()));
    in_state(&channel, ConnectivityState::Ready).await;
    manual.say(says("test"));
    in_state(&channel, ConnectivityState::TransientFailure).await;
    manual.say(says("other"));
    in_state(&channel, ConnectivityState::Ready).await;
    assert_eq!(events.count(&format!("{} READY", backend.address)), 1, "on one connection");
    drop(channel);
    backend.stop().await;
}
