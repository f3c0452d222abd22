//! Servers that answer with what a table's row is about, and a limit for each wait.
#![allow(dead_code)] // each test binary uses a part of it

use std::{
    convert::Infallible,
    future::{Future, pending},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_server::{Server, ShutdownHandle};
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use http::{Request, Response, header::USER_AGENT};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tonic::{
    Code, Status, body::Body, client::GrpcService, codegen::StdError, server::NamedService,
    service::Routes,
};
use tower_service::Service;

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn soon<F: Future>(what: &str, f: F) -> F::Output {
    timeout(PATIENCE, f).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Greets once, over any channel.
pub(crate) async fn greet<C>(channel: C) -> Result<String, Status>
where
    C: GrpcService<Body>,
    C::Error: Into<StdError>,
    C::ResponseBody: tonic::codegen::Body<Data = tonic::codegen::Bytes> + Send + 'static,
    <C::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    let call = GreeterClient::new(channel);
    say_hello(call).await
}

/// Greets once with a client.
pub(crate) async fn say_hello<C>(mut client: GreeterClient<C>) -> Result<String, Status>
where
    C: GrpcService<Body>,
    C::Error: Into<StdError>,
    C::ResponseBody: tonic::codegen::Body<Data = tonic::codegen::Bytes> + Send + 'static,
    <C::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    let request = HelloRequest { name: "you".to_owned() };
    soon("an answer", client.say_hello(request)).await.map(|r| r.into_inner().message)
}

/// What a [`Probe`] does with a call.
#[derive(Clone, Copy)]
pub(crate) enum Does {
    /// Fails with ABORTED; the message is the call's authority and user agent.
    Tells,
    /// Never answers.
    Hangs,
}

#[derive(Clone)]
struct Probe(Does);

impl NamedService for Probe {
    const NAME: &'static str = "helloworld.Greeter";
}

impl Service<Request<Body>> for Probe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let authority = request.uri().authority().map_or("none", |a| a.as_str());
        let agent = request.headers().get(USER_AGENT).and_then(|v| v.to_str().ok());
        let status = Status::new(Code::Aborted, format!("{authority} {}", agent.unwrap_or("none")));
        match self.0 {
            Does::Tells => Box::pin(async move { Ok(status.into_http()) }),
            Does::Hangs => Box::pin(pending()),
        }
    }
}

/// A server with the probe.
pub(crate) struct Probed {
    pub(crate) address: SocketAddr,
    handle: ShutdownHandle,
    task: JoinHandle<()>,
}

impl Probed {
    pub(crate) async fn start(does: Does) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let builder = Server::builder().drain_delay(Duration::ZERO).drain_grace(Duration::ZERO);
        let server = builder.build(Routes::new(Probe(does))).expect("valid settings");
        let handle = server.shutdown_handle();
        let task = tokio::spawn(async move {
            server.serve([listener]).await.expect("serves");
        });
        Self { address, handle, task }
    }

    pub(crate) async fn stop(self) {
        self.handle.drain();
        soon("the server's end", self.task).await.expect("no panic");
    }
}

/// An address on which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    listener.local_addr().expect("a bound listener has an address")
}

/// A server that takes one call and then closes the connection under it.
pub(crate) async fn breaks() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a client comes");
        let mut connection = h2::server::handshake(socket).await.expect("it speaks HTTP/2");
        let call = connection.accept().await;
        assert!(matches!(call, Some(Ok(_))), "a call");
    });
    address
}
