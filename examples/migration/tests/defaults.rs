//! The table of docs/move-to-evenkeel.md, row by row, as far as a row can be seen from outside. A
//! new tonic that behaves differently makes a test fail, and the page is corrected.

mod servers;

use std::{
    future::{Future, pending},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel::{
    BuildError, Connecting, Connector, Keepalive,
    core::{
        Address, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate, Target, TargetError,
    },
};
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use hyper_util::rt::TokioIo;
use migration::{balance_list, from_ginepro, one_channel};
use servers::{Does, Probed, breaks, greet, nobody, say_hello, soon};
use tokio::{
    io::DuplexStream,
    time::{error::Elapsed, timeout},
};
use tonic::{
    Code, Request, Status,
    transport::{Channel as TonicChannel, Endpoint, Uri},
};
use tower_service::Service;

fn evenkeel(target: impl Into<String>) -> evenkeel::ChannelBuilder {
    evenkeel::Channel::builder(target)
}

#[tokio::test]
async fn each_before_and_each_after_reaches_the_greeters() {
    let backends = greeters::start(3).await.expect("free ports");
    let one = backends[0].address.to_string();
    let port = backends[0].address.port();
    let all = greeters::addresses(&backends);
    let before = one_channel::before::client(&one).await.expect("it connects");
    assert_eq!(say_hello(before).await.expect("an answer"), "1");
    let after = one_channel::after::client(&one).await.expect("it builds");
    assert_eq!(say_hello(after).await.expect("an answer"), "1");
    let before = from_ginepro::before::client("127.0.0.1", port).await.expect("it looks up");
    assert_eq!(say_hello(before).await.expect("an answer"), "1");
    let after = from_ginepro::after::client("127.0.0.1", port).await.expect("it connects");
    assert_eq!(say_hello(after).await.expect("an answer"), "1");
    let before = balance_list::before::client(&all).expect("addresses");
    let after = balance_list::after::client(&all).expect("addresses");
    soon("all three of both", async {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 6 {
            let name = say_hello(before.clone()).await.expect("an answer");
            seen.insert(format!("before {name}"));
            let name = say_hello(after.clone()).await.expect("an answer");
            seen.insert(format!("after {name}"));
        }
    })
    .await;
    for backend in backends {
        soon("its end", backend.stop()).await.expect("it served");
    }
}

#[tokio::test]
async fn row_connecting_and_refused() {
    let server = nobody().await.to_string();
    assert!(one_channel::before::client(&server).await.is_err(), "tonic's connect() connects");
    let after = one_channel::after::client(&server).await.expect("build() does not connect");
    let error = say_hello(after).await.expect_err("nobody listens");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains(&server), "it says where: {}", error.message());

    let lazy = Endpoint::from_shared(format!("http://{server}")).expect("valid").connect_lazy();
    let error = greet(lazy).await.expect_err("nobody listens");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(!error.message().contains(&server), "tonic says only that: {}", error.message());
}

#[tokio::test]
async fn row_time_out_of_the_channel() {
    let server = Probed::start(Does::Hangs).await;
    let limit = Duration::from_millis(50);
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("valid");
    let error = greet(endpoint.timeout(limit).connect_lazy()).await.expect_err("it hangs");
    assert_eq!(error.code(), Code::Cancelled, "tonic: {error}");

    let config = r#"{"methodConfig": [{"name": [{}], "timeout": "0.05s"}]}"#;
    let builder = evenkeel(format!("dns:///{}", server.address)).service_config(config);
    let error = greet(builder.build().expect("valid")).await.expect_err("it hangs");
    assert_eq!(error.code(), Code::DeadlineExceeded, "evenkeel: {error}");
    server.stop().await;
}

#[tokio::test]
async fn row_authority_and_user_agent() {
    let servers = [Probed::start(Does::Tells).await, Probed::start(Does::Tells).await];
    let addresses = servers.iter().map(|s| s.address.to_string()).collect::<Vec<_>>();
    let told = |result: Result<String, Status>| {
        let error = result.expect_err("the probe fails each call");
        assert_eq!(error.code(), Code::Aborted, "{error}");
        error.message().to_owned()
    };
    let ours = |text: &str| evenkeel(text).build().expect("valid");

    let before = balance_list::before::client(&addresses.join(",")).expect("addresses");
    let mut seen = std::collections::BTreeSet::new();
    soon("both servers", async {
        while seen.len() < 2 {
            seen.insert(told(say_hello(before.clone()).await));
        }
    })
    .await;
    for address in &addresses {
        let wanted = format!("{address} tonic/");
        assert!(seen.iter().any(|text| text.starts_with(&wanted)), "{wanted} {seen:?}");
    }

    let text = told(greet(ours(&format!("ipv4:{}", addresses.join(",")))).await);
    assert!(text.starts_with(&format!("{} grpc-rust-evenkeel/", addresses[0])), "{text}");
    let text = told(greet(ours(&format!("dns:///{}", addresses[1]))).await);
    assert!(text.starts_with(&format!("{} ", addresses[1])), "{text}");
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test]
async fn row_connection_lost_under_a_call() {
    let lazy = Endpoint::from_shared(format!("http://{}", breaks().await)).expect("valid");
    let theirs = greet(lazy.connect_lazy()).await.expect_err("the connection broke");
    assert_eq!(theirs.code(), Code::Unknown, "tonic: {theirs}");
    let target = format!("dns:///{}", breaks().await);
    let ours = greet(evenkeel(target).build().expect("valid")).await;
    let ours = ours.expect_err("the connection broke");
    assert_eq!(ours.code(), Code::Unavailable, "evenkeel: {ours}");
}

#[tokio::test]
async fn row_settings_that_are_refused() {
    let refused = |built: Result<evenkeel::Channel, BuildError>, wanted: &str| {
        let error = built.expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error}");
    };
    refused(evenkeel("http://greeter.default:8000").build(), "no resolver for the scheme \"http\"");
    let second = Duration::from_secs(1);
    let fast = Keepalive { time: second, timeout: second, permit_without_calls: false };
    refused(evenkeel("dns:///greeter:8000").keepalive(fast).build(), "at least 10s");
    // tonic takes both.
    let endpoint = Endpoint::from_static("http://greeter.default:8000");
    drop(endpoint.http2_keep_alive_interval(second).connect_lazy());
}

/// Never connects, for tonic and for evenkeel.
struct Never;

impl Service<Uri> for Never {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(pending())
    }
}

impl Connector for Never {
    fn connect(&self, _address: &Address) -> Connecting {
        Box::pin(pending())
    }
}

/// Says `[]` and no more.
struct Nobody;

impl ResolverFactory for Nobody {
    fn schemes(&self) -> &[&str] {
        &["nobody"]
    }

    fn default_authority(&self, _target: &Target) -> Result<String, TargetError> {
        Ok("localhost".to_owned())
    }

    fn start(
        &self,
        _target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        Ok(Box::pin(async move { sink.update(ResolverUpdate::new(Vec::new())) }))
    }
}

/// A call with a deadline of 1 s: its error, or `Elapsed` when it still hangs after an hour. Time
/// is paused: the hour passes at once when nothing else can happen.
async fn within_an_hour<C>(channel: C) -> Result<Status, Elapsed>
where
    C: tonic::client::GrpcService<tonic::body::Body>,
    C::Error: Into<tonic::codegen::StdError>,
    C::ResponseBody: tonic::codegen::Body<Data = tonic::codegen::Bytes> + Send + 'static,
    <C::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let mut client = GreeterClient::new(channel);
    let mut request = Request::new(HelloRequest { name: "you".to_owned() });
    request.set_timeout(Duration::from_secs(1));
    let answer = timeout(Duration::from_secs(3_600), client.say_hello(request)).await?;
    Ok(answer.expect_err("nobody can answer"))
}

#[tokio::test(start_paused = true)]
async fn row_deadline_while_connecting() {
    let theirs = Endpoint::from_static("http://greeter:8000").connect_with_connector_lazy(Never);
    assert!(within_an_hour(theirs).await.is_err(), "tonic's deadline starts with the connection");

    let channel = evenkeel("ipv4:127.0.0.1:1").connector(Arc::new(Never)).build();
    let ours = within_an_hour(channel.expect("valid")).await.expect("it does not hang");
    assert_eq!(ours.code(), Code::DeadlineExceeded, "evenkeel: {ours}");
}

#[tokio::test(start_paused = true)]
async fn row_no_endpoints() {
    let (theirs, _changes) = TonicChannel::balance_channel::<u8>(1);
    assert!(
        within_an_hour(theirs).await.is_err(),
        "tonic waits for an endpoint, whatever the call"
    );

    let channel = evenkeel("nobody:x").register_resolver(Arc::new(Nobody)).build();
    let ours = within_an_hour(channel.expect("valid")).await.expect("it does not hang");
    assert_eq!(ours.code(), Code::Unavailable, "evenkeel: {ours}");
}
