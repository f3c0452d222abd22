//! What a snapshot shows of real connections: each state that somebody would look for.

mod fixture;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use evenkeel::{
    CallOptions, Channel, ChannelSnapshot, ChannelView, ConnectivityState,
    view::{CallCounts, ConnectionSnapshot, JsonService, PAGE_MAX, StreamCounts},
};
use fixture::{
    Backend as Server,
    bytes::{BytesCodec, Echo, chat, client, hello, path, unary},
    frames::{Frames, NO_ERROR, Requests},
    manual::{Manual, Says},
    peer::Peer,
    ready, soon, until,
};
use futures_util::stream;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};
use tonic::{Code, Request, Status, service::Routes};

async fn echo(tune: impl FnOnce(evenkeel_server::Builder) -> evenkeel_server::Builder) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server::with_routes(listener, Routes::new(Echo::default()), tune)
}

/// A port that refuses connections for as long as the socket is there.
fn refusing() -> (TcpSocket, std::net::SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn fail(channel: &Channel, code: i32) -> Status {
    let request = Request::new(Bytes::from(code.to_string()));
    client(channel).unary(request, path("Fail"), BytesCodec).await.unwrap_err()
}

/// A call without a deadline that waits for ready, on a task of its own.
fn waiting_call(channel: &Channel) -> JoinHandle<Result<Bytes, Status>> {
    let channel = channel.clone();
    tokio::spawn(async move {
        let mut request = Request::new(Bytes::from_static(b"hello"));
        request.extensions_mut().insert(CallOptions::default().wait_for_ready(true));
        unary(&channel, request).await.map(tonic::Response::into_inner)
    })
}

/// A call that stays open, with its response.
async fn held(channel: &Channel) -> tonic::Streaming<Bytes> {
    let pending = stream::iter([Bytes::from_static(b"x")]);
    soon("a head", chat(channel, "Hold", pending)).await.unwrap().into_inner()
}

/// Waits until the snapshot is as wanted.
async fn seen(channel: &Channel, what: &str, is: impl Fn(&ChannelSnapshot) -> bool) {
    until(what, || is(&channel.snapshot())).await;
}

fn calls(channel: &Channel) -> (u64, u64, u64) {
    let CallCounts { started, succeeded, failed, .. } = channel.snapshot().calls;
    (started, succeeded, failed)
}

fn streams(counts: StreamCounts) -> (u64, u64, u64) {
    (counts.started, counts.succeeded, counts.failed)
}

#[tokio::test]
async fn shows_a_ready_and_a_failing_subchannel_and_what_calls_came_to() {
    let server = echo(|b| b.max_concurrent_streams(7)).await;
    let (_socket, refused) = refusing();
    let channel = Channel::builder(fixture::target(&[server.address, refused])).build().unwrap();
    ready(&channel).await;
    for _ in 0..3 {
        soon("an answer", hello(&channel)).await.unwrap();
    }
    assert_eq!(soon("an error", fail(&channel, 5)).await.code(), Code::NotFound);
    seen(&channel, "the refused connection", |now| {
        now.subchannels.iter().any(|s| s.state == ConnectivityState::TransientFailure)
    })
    .await;

    let now = channel.snapshot();
    assert_eq!((now.state, now.policy.as_deref()), (ConnectivityState::Ready, Some("round_robin")));
    assert_eq!((now.resolver.scheme.as_str(), now.resolver.updates), ("ipv4", 1));
    assert_eq!((now.endpoints.len(), now.subchannels.len()), (2, 2));
    assert_eq!((calls(&channel), now.waiting.calls), ((4, 3, 1), 0));
    let of = |address: std::net::SocketAddr| {
        now.subchannels.iter().find(|s| s.address == address.into()).unwrap()
    };
    let good = of(server.address);
    let [ConnectionSnapshot { draining: false, streams_open: 0, streams_max: Some(7), .. }] =
        good.connections[..]
    else {
        panic!("{good:?}")
    };
    assert_eq!(streams(good.connections[0].streams), (4, 3, 1));
    assert_eq!((streams(good.streams), &good.last_error.is_none()), ((4, 3, 1), &true));
    let bad = of(refused);
    let error = bad.last_error.as_ref().unwrap();
    assert_eq!((error.code.as_str(), bad.connections.len()), ("UNAVAILABLE", 0));
    assert!(error.message.contains(&refused.to_string()), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_call_without_deadline_waits_visibly_and_with_its_reason() {
    let manual = Manual::new(Says::Nothing);
    let builder = Channel::builder("manual:///x").register_resolver(manual.factory());
    let channel = builder.build().unwrap();
    let call = waiting_call(&channel);
    seen(&channel, "a call that waits", |now| now.waiting.for_connection == 1).await;
    let because = channel.snapshot().waiting.for_connection_because.unwrap();
    assert!(because.contains("the resolver has not answered yet"), "{because}");

    let (_socket, refused) = refusing();
    manual.say(Says::Addresses(vec![refused]));
    let names_it = |now: &ChannelSnapshot| {
        let because = now.waiting.for_connection_because.as_deref();
        because.is_some_and(|because| because.contains(&refused.to_string()))
    };
    seen(&channel, "the reason that it waits", names_it).await;
    assert_eq!(calls(&channel), (1, 0, 0));
    call.abort();
    seen(&channel, "nobody that waits", |now| now.waiting.calls == 0).await;

    // One that does not wait for ready fails at once, and has no connection that could count it.
    soon("an error", hello(&channel)).await.unwrap_err();
    assert_eq!(calls(&channel), (1, 0, 1));
}

#[tokio::test]
async fn calls_beyond_the_servers_limit_wait_for_a_stream() {
    let server = echo(|b| b.max_concurrent_streams(1)).await;
    let channel = Channel::builder(fixture::target(&[server.address])).build().unwrap();
    let first = held(&channel).await;
    let second = waiting_call(&channel);
    seen(&channel, "a call that waits", |now| now.waiting.for_stream == 1).await;
    let now = channel.snapshot();
    let [ConnectionSnapshot { streams_open: 1, streams_max: Some(1), .. }] =
        now.subchannels[0].connections[..]
    else {
        panic!("{now:?}")
    };
    assert_eq!((calls(&channel), now.waiting.for_connection), ((2, 0, 0), 0));
    assert_eq!(now.idleness.quiet_s, Some(0.0));
    drop(first);
    assert_eq!(soon("its answer", second).await.unwrap().unwrap(), "hello");
    assert_eq!((calls(&channel), channel.snapshot().waiting.calls), ((2, 1, 1), 0));
    server.stop().await;
}

#[tokio::test]
async fn a_retry_waits_visibly_and_is_one_call() {
    let server = echo(|b| b).await;
    let config = r#"{"loadBalancingConfig":[{"pick_first":{}}],"methodConfig":[{"name":[{}],
        "retryPolicy":{"maxAttempts":2,"initialBackoff":"1000s","maxBackoff":"1000s",
        "backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}],
        "retryThrottling":{"maxTokens":10,"tokenRatio":0.5}}"#;
    let target = fixture::target(&[server.address]);
    let channel = Channel::builder(target).service_config(config).build().unwrap();
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { fail(&channel, Code::Unavailable as i32).await }
    });
    seen(&channel, "a call in backoff", |now| now.waiting.for_retry == 1).await;
    seen(&channel, "the end of its stream", |now| now.subchannels[0].streams.failed == 1).await;
    let now = channel.snapshot();
    assert_eq!((calls(&channel), now.calls.retries, now.waiting.calls), ((1, 0, 0), 1, 1));
    let config = &now.service_config;
    assert_eq!((config.source, config.method_configs), ("channel", 1));
    let throttle = config.retry_throttling.as_ref().unwrap();
    assert_eq!((throttle.tokens, throttle.max_tokens, throttle.token_ratio), (9.0, 10.0, 0.5));
    assert_eq!(now.policy.as_deref(), Some("pick_first"));
    call.abort();
    seen(&channel, "nobody in backoff", |now| now.waiting.for_retry == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn an_attempt_that_no_server_processed_is_no_failed_call() {
    let requests = Requests::default();
    let peer = Peer::start(move |number, socket| {
        let requests = requests.clone();
        async move {
            let mut frames = Frames::greet(socket, &[]).await;
            let Some(stream) = requests.next(&mut frames).await else { return };
            if number == 0 {
                return frames.goaway(0, NO_ERROR, b"").await;
            }
            frames.answer(stream, b"done").await;
            frames.answer_all(b"done").await;
        }
    })
    .await;
    let channel = Channel::builder(peer.target()).build().unwrap();
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "done");
    assert_eq!(calls(&channel), (1, 1, 0));
    assert_eq!(channel.snapshot().calls.transparent_retries, 1);
    // The first connection's stream is remembered when the connection is long gone.
    seen(&channel, "both streams", |now| streams(now.subchannels[0].streams) == (2, 1, 1)).await;
}

#[tokio::test]
async fn a_connection_drains_in_sight_until_its_last_call_ends() {
    let server = echo(|b| b).await;
    let manual = Manual::new(Says::Addresses(vec![server.address]));
    let builder = Channel::builder("manual:///x").register_resolver(manual.factory());
    let channel = builder.build().unwrap();
    let call = held(&channel).await;
    let id = channel.snapshot().subchannels[0].connections[0].id;

    server.drain();
    seen(&channel, "GOAWAY", |now| now.subchannels[0].connections.iter().any(|c| c.draining)).await;
    let now = channel.snapshot();
    let drains = &now.subchannels[0].connections[0];
    assert_eq!((drains.id, drains.streams_open, now.draining.len()), (id, 1, 0));

    // Its endpoint goes, and the connection still has its call.
    let other = echo(|b| b).await;
    manual.say(Says::Addresses(vec![other.address]));
    seen(&channel, "a connection without subchannel", |now| now.draining.len() == 1).await;
    assert_eq!((channel.snapshot().draining[0].id, calls(&channel)), (id, (1, 0, 0)));
    drop(call);
    seen(&channel, "its end", |now| now.draining.is_empty()).await;
    assert_eq!(calls(&channel), (1, 0, 1));
    server.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn counts_outlive_connections_and_the_channels_shutdown() {
    let server = echo(|b| b).await;
    let channel = Channel::builder(fixture::target(&[server.address])).build().unwrap();
    soon("an answer", hello(&channel)).await.unwrap();
    server.stop().await;
    seen(&channel, "the connection's end", |now| {
        now.subchannels.iter().all(|s| s.connections.is_empty())
    })
    .await;
    assert_eq!(streams(channel.snapshot().subchannels[0].streams), (1, 1, 0));
    soon("the end", channel.shutdown(Duration::ZERO)).await;
    let now = channel.snapshot();
    assert_eq!((now.state, now.subchannels.len()), (ConnectivityState::Shutdown, 0));
    assert_eq!(calls(&channel), (1, 1, 0));
}

#[tokio::test]
async fn a_resolvers_failure_shows_until_its_next_answer() {
    let server = echo(|b| b).await;
    let manual = Manual::new(Says::Error("no such name".into()));
    let builder = Channel::builder("manual:///x").register_resolver(manual.factory());
    let channel = builder.build().unwrap();
    channel.connect();
    seen(&channel, "the error", |now| now.resolver.last_error.is_some()).await;
    let now = channel.snapshot();
    assert_eq!((now.resolver.errors, now.resolver.updates, now.policy), (1, 0, None));
    assert_eq!(now.resolver.last_error.unwrap().message, "no such name");
    manual.say(Says::Addresses(vec![server.address]));
    seen(&channel, "the answer", |now| now.resolver.updates == 1).await;
    assert!(channel.snapshot().resolver.last_error.is_none());
    server.stop().await;
}

#[test]
fn works_when_the_runtime_stands_still() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let builder = Channel::builder("ipv4:127.0.0.1:1").runtime(runtime.handle().clone());
    let channel = builder.build().unwrap();
    channel.connect();
    let now = channel.snapshot();
    assert_eq!((now.state, now.endpoints.len()), (ConnectivityState::Idle, 0));
    assert_eq!(ChannelView::new([&channel]).page(0, 1).channels[0].id, now.id);
}

#[tokio::test]
async fn a_dropped_channel_vanishes_from_its_view() {
    let server = echo(|b| b).await;
    let kept = Channel::builder(fixture::target(&[server.address])).build().unwrap();
    let dropped = Channel::builder(fixture::target(&[server.address])).build().unwrap();
    let view = ChannelView::new([&kept, &dropped]);
    let _call = held(&dropped).await;
    let clone = dropped.clone();
    let id = dropped.snapshot().id;
    drop(dropped);
    assert!(view.get(id).is_some(), "a clone is left");
    drop(clone);
    // At once, although its connection drains.
    assert!(view.get(id).is_none());
    let left: Vec<_> = view.page(0, PAGE_MAX).channels.iter().map(|c| c.id).collect();
    assert_eq!(left, [kept.snapshot().id]);
    drop((kept, _call));
    server.stop().await;
}

#[tokio::test]
async fn a_thousand_channels_come_in_pages_and_dropped_ones_are_swept_out() {
    let view = ChannelView::default();
    for _ in 0..1_000 {
        // Dropped at once: what is kept of it must not add up.
        view.add(&Channel::builder("ipv4:127.0.0.1:1").build().unwrap());
    }
    let build = |_| Channel::builder("ipv4:127.0.0.1:1").build().unwrap();
    let channels: Vec<_> = (0..1_000).map(build).collect();
    channels.iter().for_each(|channel| view.add(channel));
    let (mut ids, mut start, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = view.page(start, usize::MAX);
        pages += 1;
        ids.extend(page.channels.iter().map(|channel| channel.id));
        if page.end {
            break;
        }
        start = ids.last().unwrap() + 1;
    }
    let all: Vec<_> = channels.iter().map(|channel| channel.snapshot().id).collect();
    assert_eq!((ids, pages), (all, 10));
}

/// One request over HTTP/2, as any client makes it.
async fn get(server: &Server, path: &str) -> (u16, serde_json::Value) {
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (send, connection) = h2::client::handshake(socket).await.unwrap();
    let ask = async {
        let uri = format!("http://{}{path}", server.address);
        let request = http::Request::get(uri).body(()).unwrap();
        let mut send = send.ready().await.unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.unwrap());
        }
        (head.status.as_u16(), serde_json::from_slice(&text).unwrap())
    };
    alongside(connection, ask).await
}

async fn alongside<T>(connection: impl Future, ask: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        answer = soon("a response", ask) => answer,
        _ = connection => panic!("the connection ended before the response"),
    }
}

#[tokio::test]
async fn a_server_shows_its_channels_as_json_over_http() {
    let backend = echo(|b| b).await;
    let channel = Channel::builder(fixture::target(&[backend.address])).build().unwrap();
    soon("an answer", hello(&channel)).await.unwrap();

    let mut routes = Routes::default();
    let json = JsonService::new(ChannelView::new([&channel]));
    let router = std::mem::take(routes.axum_router_mut()).nest_service("/debug", json);
    *routes.axum_router_mut() = router;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::with_routes(listener, routes, |b| b);

    let (status, list) = get(&server, "/debug/channels").await;
    assert_eq!((status, list["channels"].as_array().unwrap().len()), (200, 1));
    let id = &list["channels"][0]["id"];
    let (status, one) = get(&server, &format!("/debug/channels/{id}")).await;
    assert_eq!((status, &one["state"]), (200, &"READY".into()));
    let subchannel = &one["subchannels"][0];
    assert_eq!(subchannel["address"], backend.address.to_string());
    assert_eq!(subchannel["connections"][0]["streams_max"], 1000);
    let counts = serde_json::json!({
        "started": 1, "succeeded": 1, "failed": 0, "retries": 0, "transparent_retries": 0,
    });
    assert_eq!(one["calls"], counts);
    assert_eq!(one["endpoints"], serde_json::json!([[backend.address.to_string()]]));
    assert_eq!(get(&server, "/debug/channels/0").await.0, 404);
    drop(channel);
    assert_eq!(get(&server, "/debug/channels").await.1["channels"], serde_json::json!([]));
    server.stop().await;
    backend.stop().await;
}
