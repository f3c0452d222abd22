//! The servers, in a process of their own: tonic's own server, which favours no candidate, once per
//! listener. Prints the addresses as a JSON line, answers each line on its input with the calls of
//! each listener so far, and ends with its input.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use helloworld::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    task::JoinSet,
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::byte_service::ByteService;

struct Greetings {
    address: SocketAddr,
    calls: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Greeter for Greetings {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let name = request.into_inner().name;
        let message = format!("Hello {name} (Backend IP: {})", self.address.ip());
        Ok(Response::new(HelloReply { message }))
    }
}

/// Serves on `count` ports of 127.0.0.1 until the input ends.
///
/// # Errors
///
/// A listener can't be opened, or a server ended.
pub async fn run(count: usize) -> io::Result<()> {
    let mut servers = JoinSet::new();
    let (mut addresses, mut counters) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let calls = Arc::new(AtomicU64::new(0));
        addresses.push(address);
        counters.push(calls.clone());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder()
            .add_service(GreeterServer::new(Greetings { address, calls }))
            .add_service(ByteService);
        servers.spawn(server.serve_with_incoming(incoming));
    }
    println!("{}", serde_json::json!(addresses));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(_) => {
                    let calls: Vec<_> =
                        counters.iter().map(|c| c.load(Ordering::Relaxed)).collect();
                    println!("{}", serde_json::json!(calls));
                }
                None => return Ok(()),
            },
            Some(ended) = servers.join_next() => {
                return Err(io::Error::other(format!("a server ended: {ended:?}")));
            }
        }
    }
}
