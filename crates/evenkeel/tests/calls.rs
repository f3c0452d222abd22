//! One call at a time: what is on the wire, what comes back, and how a call fails.

mod fixture;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use evenkeel::{Backend, CallOptions, Channel, ChannelBuilder, ConnectivityState};
use fixture::{
    Backend as Server,
    bytes::{BytesCodec, Echo, chat, client, hello, path, unary},
    events::Events,
    manual::{Manual, Says},
    peer::Peer,
    soon, until,
};
use futures_util::stream;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tonic::{Code, Request, Status, client::Grpc, metadata::MetadataValue, service::Routes};
use tower_service::Service;

async fn echo() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server::with_routes(listener, Routes::new(Echo::default()), |b| b)
}

fn to(address: SocketAddr) -> ChannelBuilder {
    Channel::builder(fixture::target(&[address]))
}

fn manual(says: Says) -> (Manual, ChannelBuilder) {
    let manual = Manual::new(says);
    (manual.clone(), Channel::builder("manual:///some.where").register_resolver(manual.factory()))
}

/// An h2 server that answers each call with metadata and shows the requests' heads.
async fn observed() -> (Peer, Arc<Mutex<Vec<http::request::Parts>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let peer = Peer::start(move |_, socket| {
        let seen = seen.clone();
        async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                seen.lock().unwrap().push(request.into_parts().0);
                let head = http::Response::builder()
                    .header("content-type", "application/grpc")
                    .header("first", "1");
                let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                body.send_data(fixture::frames::enveloped(b"answer").into(), false).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                trailers.insert("last-bin", HeaderValue::from_static("AAEC"));
                body.send_trailers(trailers).unwrap();
            }
        }
    })
    .await;
    (peer, heads)
}

#[tokio::test]
async fn head_of_a_call_is_grpcs_and_metadata_goes_both_ways() {
    let (peer, heads) = observed().await;
    let channel = to(peer.address).build().unwrap();
    let mut request = Request::new(Bytes::from_static(b"hi"));
    request.metadata_mut().insert("color", "blue".parse().unwrap());
    request.metadata_mut().insert_bin("raw-bin", MetadataValue::from_bytes(&[0, 1, 2]));
    request.set_timeout(fixture::PATIENCE);
    let response = soon("an answer", unary(&channel, request)).await.unwrap();

    assert_eq!(response.metadata().get("first").unwrap(), "1");
    let last = response.metadata().get_bin("last-bin").unwrap().to_bytes().unwrap();
    assert_eq!(last, &[0, 1, 2][..]);
    let backend = response.extensions().get::<Backend>().unwrap();
    assert_eq!(backend.address.to_string(), peer.address.to_string());
    assert_eq!(response.into_inner(), "answer");

    let heads = heads.lock().unwrap();
    let [head] = &heads[..] else { panic!("{heads:?}") };
    assert_eq!(head.method, http::Method::POST);
    assert_eq!(head.uri, format!("http://{}/test.Echo/Chat", peer.address).as_str());
    let own = concat!("grpc-rust-evenkeel/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", own),
        ("color", "blue"),
        ("raw-bin", "AAEC"),
    ] {
        assert_eq!(head.headers.get(name).map(|v| v.to_str().unwrap()), Some(value), "{name}");
    }
    let timeout = head.headers["grpc-timeout"].to_str().unwrap();
    let micros: u64 = timeout.strip_suffix('u').expect(timeout).parse().unwrap();
    assert!((1..=10_000_000).contains(&micros), "{timeout}");
}

#[tokio::test]
async fn authority_and_user_agent_can_be_set() {
    let (peer, heads) = observed().await;
    let builder = to(peer.address).authority("greeter.example:80").user_agent("shop/3");
    soon("an answer", hello(&builder.build().unwrap())).await.unwrap();
    let heads = heads.lock().unwrap();
    assert_eq!(heads[0].uri.authority().unwrap(), "greeter.example:80");
    let agent = heads[0].headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("shop/3 grpc-rust-evenkeel/"), "{agent}");
    assert!(!heads[0].headers.contains_key("grpc-timeout"));
}

#[tokio::test]
async fn error_of_a_server_comes_with_code_message_and_backend() {
    let server = echo().await;
    let channel = to(server.address).build().unwrap();
    for code in 1..=16 {
        let request = Request::new(Bytes::from(code.to_string()));
        let call = async { client(&channel).unary(request, path("Fail"), BytesCodec).await };
        let status = soon("an error", call).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::from_i32(code), "as you wish: ü"));
    }
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "hello");
    drop(channel);
    server.stop().await;
}

#[tokio::test]
async fn large_unary_messages_go_both_ways() {
    let server = echo().await;
    let channel = to(server.address).build().unwrap();
    for size in [0, 1, 256 * 1024, 300 * 1024, 5 * 1024 * 1024] {
        let message = Bytes::from(vec![b'x'; size]);
        let call = unary(&channel, Request::new(message.clone()));
        let answer = soon("an answer", call).await.unwrap();
        assert!(answer.into_inner() == message, "{size} bytes");
    }
    drop(channel);
    server.stop().await;
}

#[tokio::test]
async fn message_over_the_callers_limit_fails_the_call_alone() {
    let server = echo().await;
    let events = Events::default();
    let channel = to(server.address).recorder(events.recorder()).build().unwrap();
    let mut small = Grpc::new(channel.clone()).max_decoding_message_size(1000);
    let request = Request::new(Bytes::from(vec![0; 100_000]));
    let status =
        soon("an error", small.unary(request, path("Chat"), BytesCodec)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "hello");
    assert_eq!(events.count("READY"), 2, "one subchannel, one channel: {:?}", events.list());
    drop((small, channel));
    server.stop().await;
}

#[tokio::test]
async fn error_of_the_request_body_reaches_the_caller() {
    let server = echo().await;
    let channel = to(server.address).build().unwrap();
    let own = || Status::data_loss("the disk is gone");
    let frame = || http_body::Frame::data(Bytes::from_static(b"\0\0\0\0\x01x"));
    let first = futures_util::StreamExt::boxed(stream::iter([Err(own())]));
    let second = futures_util::StreamExt::boxed(stream::iter([Ok(frame()), Err(own())]));
    // The pause between the two makes it a matter of the pump.
    let later = futures_util::StreamExt::boxed(stream::unfold(0, move |step| async move {
        tokio::task::yield_now().await;
        (step < 4).then(|| (if step < 3 { Ok(frame()) } else { Err(own()) }, step + 1))
    }));
    for (what, body) in [("first", first), ("second", second), ("later", later)] {
        let body = tonic::body::Body::new(http_body_util::StreamBody::new(body));
        let request = http::Request::post("/test.Echo/Count").body(body).unwrap();
        let call = Service::call(&mut channel.clone(), request);
        let status = soon("an error", call).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::DataLoss, "the disk is gone"),
            "{what}"
        );
    }
    // After the response began, it comes up in the response's body.
    let (fail, mut failing) = tokio::sync::mpsc::channel(1);
    let body = stream::poll_fn(move |cx| failing.poll_recv(cx));
    let body = tonic::body::Body::new(http_body_util::StreamBody::new(body));
    fail.send(Ok(frame())).await.unwrap();
    let request = http::Request::post("/test.Echo/Chat").body(body).unwrap();
    let call = Service::call(&mut channel.clone(), request);
    let mut response = soon("a head", call).await.unwrap().into_body();
    assert!(soon("an echo", response.frame()).await.unwrap().unwrap().is_data());
    fail.send(Err(own())).await.unwrap();
    let status = soon("an error", response.frame()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    drop((channel, response));
    server.stop().await;
}

#[tokio::test]
async fn no_endpoints_fail_a_call_at_once() {
    let (_manual, builder) = manual(Says::Addresses(Vec::new()));
    let channel = builder.build().unwrap();
    let status = soon("an error", hello(&channel)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let text = "target manual:///some.where: the resolver found no endpoints";
    assert_eq!(status.message(), text);
}

/// An address where nobody listens; the socket keeps others from taking it.
fn closed_port() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

#[tokio::test]
async fn failing_fast_names_target_endpoints_and_last_error() {
    let ((one, _one), (two, _two)) = (closed_port(), closed_port());
    for policy in ["round_robin", "pick_first"] {
        let target = fixture::target(&[one, two]);
        let channel = Channel::builder(&target).lb_policy(policy).build().unwrap();
        let status = soon("an error", hello(&channel)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        for part in [&target, &one.to_string(), &two.to_string(), "refused", "cannot connect to"] {
            assert!(status.message().contains(part), "{policy}: {status} lacks {part:?}");
        }
        assert_eq!(channel.state(), ConnectivityState::TransientFailure);
    }
}

#[tokio::test]
async fn waiting_for_ready_is_a_choice_of_call_and_channel() {
    let server = echo().await;
    let wait = |wait: bool| {
        let mut request = Request::new(Bytes::from_static(b"hello"));
        request.extensions_mut().insert(CallOptions::default().wait_for_ready(wait));
        request
    };
    let (says, builder) = manual(Says::Error("no such name".into()));
    let channel = builder.build().unwrap();
    let status = soon("an error", hello(&channel)).await.unwrap_err();
    assert!(status.message().contains("no such name"), "{status}");
    let mut patient = Box::pin(unary(&channel, wait(true)));
    let now = futures_util::poll!(&mut patient);
    assert!(now.is_pending());
    says.say(Says::Addresses(vec![server.address]));
    assert_eq!(soon("an answer", patient).await.unwrap().into_inner(), "hello");

    let (says, builder) = manual(Says::Error("no such name".into()));
    let channel = builder.wait_for_ready(true).build().unwrap();
    channel.connect();
    fixture::in_state(&channel, ConnectivityState::TransientFailure).await;
    let status = soon("an error", unary(&channel, wait(false))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let mut patient = Box::pin(hello(&channel));
    assert!(futures_util::poll!(&mut patient).is_pending());
    says.say(Says::Addresses(vec![server.address]));
    assert_eq!(soon("an answer", patient).await.unwrap(), "hello");
    drop(channel);
    server.stop().await;
}

/// A tower layer's service: it looks at the request and the response.
#[derive(Clone)]
struct Stamped<S>(S);

impl<S, B, R> Service<http::Request<B>> for Stamped<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures_util::future::BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        request.headers_mut().insert("layer", HeaderValue::from_static("1"));
        let response = self.0.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            response.headers_mut().insert("stamp", HeaderValue::from_static("2"));
            Ok(response)
        })
    }
}

#[tokio::test]
async fn interceptors_and_tower_layers_go_around_a_channel() {
    let (peer, heads) = observed().await;
    let channel = to(peer.address).build().unwrap();
    let intercepted =
        tonic::service::interceptor::InterceptedService::new(channel, |mut r: Request<()>| {
            r.metadata_mut().insert("token", "secret".parse().unwrap());
            r.extensions_mut().insert(CallOptions::default().wait_for_ready(true));
            Ok(r)
        });
    let mut client = Grpc::new(Stamped(intercepted));
    client.ready().await.unwrap();
    let request = Request::new(Bytes::from_static(b"x"));
    let call = client.unary(request, path("Chat"), BytesCodec);
    let response = soon("an answer", call).await.unwrap();
    assert_eq!(response.metadata().get("stamp").unwrap(), "2");
    assert!(response.extensions().get::<Backend>().is_some());
    let heads = heads.lock().unwrap();
    assert_eq!(heads[0].headers["token"], "secret");
    assert_eq!(heads[0].headers["layer"], "1");
}

#[tokio::test]
async fn bad_timeout_and_bad_path_are_refused_before_anything_is_sent() {
    let (peer, heads) = observed().await;
    let channel = to(peer.address).build().unwrap();
    let mut request = Request::new(Bytes::new());
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let status = soon("an error", unary(&channel, request)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("grpc-timeout: expected at most 8 digits"), "{status}");
    assert!(heads.lock().unwrap().is_empty());
    assert_eq!(peer.accepts(), 0);
}

#[tokio::test]
async fn bidirectional_call_is_a_conversation() {
    let server = echo().await;
    let channel = to(server.address).build().unwrap();
    let (ask, mut asked) = tokio::sync::mpsc::channel::<Bytes>(1);
    let questions = stream::poll_fn(move |cx| asked.poll_recv(cx));
    ask.send(Bytes::from_static(b"0")).await.unwrap();
    let mut answers = soon("a head", chat(&channel, "Chat", questions)).await.unwrap().into_inner();
    for i in 0..100 {
        let answer = soon("an echo", answers.message()).await.unwrap().unwrap();
        assert_eq!(answer, i.to_string());
        ask.send(Bytes::from((i + 1).to_string())).await.unwrap();
    }
    drop(ask);
    assert_eq!(soon("the last", answers.message()).await.unwrap().unwrap(), "100");
    assert!(soon("the end", answers.message()).await.unwrap().is_none());
    drop((channel, answers));
    server.stop().await;
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_answer() {
    let server = echo().await;
    let channel = to(server.address).build().unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..500 {
        let channel = channel.clone();
        calls.spawn(async move {
            let text = format!("call {i}");
            let answer = unary(&channel, Request::new(text.clone().into())).await.unwrap();
            assert_eq!(answer.into_inner(), text);
        });
    }
    while let Some(call) = soon("an answer", calls.join_next()).await {
        call.unwrap();
    }
    drop(channel);
    server.stop().await;
}

#[tokio::test]
async fn resolver_that_ends_or_panics_does_not_leave_calls_waiting() {
    for (says, text) in [
        (Says::Ends, "the resolver ended without an answer"),
        (Says::Panics, "the resolver panicked"),
    ] {
        let (_manual, builder) = manual(says);
        let channel = builder.build().unwrap();
        let status = soon("an error", hello(&channel)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(text), "{status}");
    }
    // One that has answered before may end; its answer stays.
    let server = echo().await;
    let (says, builder) = manual(Says::Addresses(vec![server.address]));
    let events = Events::default();
    let channel = builder.recorder(events.recorder()).build().unwrap();
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "hello");
    says.say(Says::Ends);
    until("the resolver's end", || says.is_unused()).await;
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "hello");
    assert_eq!(events.count("resolver error"), 0);
    drop(channel);
    server.stop().await;
}
