//! Servers that greet, with spans or without.

use std::{net::SocketAddr, time::Duration};

use evenkeel::Channel;
use evenkeel_server::{Server, ServerStats, ShutdownHandle};
use evenkeel_telemetry::Telemetry;
use helloworld::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tonic::{Request, Response, Status, service::Routes};

use super::LIMIT;

/// What the request's name asks for.
struct Hello {
    /// Calls that hang.
    hung: watch::Sender<usize>,
}

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let name = request.into_inner().name;
        match name.as_str() {
            "fail" => return Err(Status::not_found("nobody of that name")),
            "panic" => panic!("as asked"),
            "hang" => {
                self.hung.send_modify(|n| *n += 1);
                std::future::pending().await
            }
            _ => {}
        }
        Ok(Response::new(HelloReply { message: format!("Hello {name}") }))
    }
}

pub(crate) struct Greeting {
    pub(crate) at: SocketAddr,
    pub(crate) handle: ShutdownHandle,
    pub(crate) stats: ServerStats,
    hung: watch::Sender<usize>,
}

impl Greeting {
    /// Waits until so many calls hang, or did.
    pub(crate) async fn hangs(&self, calls: usize) {
        let mut hung = self.hung.subscribe();
        timeout(LIMIT, hung.wait_for(|n| *n >= calls)).await.expect("in time").unwrap();
    }
}

pub(crate) async fn greeter(telemetry: &Telemetry) -> Greeting {
    let hung = watch::Sender::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let builder = telemetry.server(Server::builder().drain_delay(Duration::ZERO));
    let server =
        builder.build(Routes::new(GreeterServer::new(Hello { hung: hung.clone() }))).unwrap();
    let (handle, stats) = (server.shutdown_handle(), server.stats());
    tokio::spawn(server.serve([listener]));
    Greeting { at, handle, stats, hung }
}

/// So many calls, one after the other, none of which may fail or take long.
pub(crate) async fn calls(telemetry: &Telemetry, backend: SocketAddr, count: usize) {
    let target = format!("ipv4:{backend}");
    let channel = telemetry.channel(Channel::builder(&target), &target).build().unwrap();
    let mut client = GreeterClient::new(channel);
    for _ in 0..count {
        let call = client.say_hello(HelloRequest { name: "you".into() });
        timeout(LIMIT, call).await.expect("in time").expect("calls are unaffected");
    }
}
