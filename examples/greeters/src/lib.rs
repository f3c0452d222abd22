//! Real greeters on 127.0.0.1 in this process, so that an example is one command and no example has
//! a server in its own text. Not for copying: your services are your own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use evenkeel_server::{ServeError, Server, ShutdownHandle};
use helloworld::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status, service::Routes};

/// Answers with its own name.
struct Named(String);

#[tonic::async_trait]
impl Greeter for Named {
    async fn say_hello(
        &self,
        _request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: self.0.clone() }))
    }
}

/// A greeter on a free port. Dropping it lets it run on; [`RunningGreeter::stop`] ends it.
pub struct RunningGreeter {
    /// What it answers.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    handle: ShutdownHandle,
    task: JoinHandle<Result<(), ServeError>>,
}

impl RunningGreeter {
    /// Starts a greeter that answers with `name`.
    ///
    /// # Errors
    ///
    /// There is no free port on 127.0.0.1.
    pub async fn start(name: impl Into<String>) -> io::Result<Self> {
        let name = name.into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let routes = Routes::new(GreeterServer::new(Named(name.clone())));
        // No time between NOT_SERVING and GOAWAY: nobody here looks at health.
        let built = Server::builder().drain_delay(Duration::ZERO).build(routes);
        let server = built.map_err(io::Error::other)?;
        let handle = server.shutdown_handle();
        let task = tokio::spawn(async move { server.serve([listener]).await.map(drop) });
        Ok(Self { name, address, handle, task })
    }

    /// Drains it and waits for its end.
    ///
    /// # Errors
    ///
    /// It could not go on serving before.
    pub async fn stop(self) -> io::Result<()> {
        self.handle.drain();
        self.task.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}

/// Starts `count` greeters with the names `1`, `2` and so on.
///
/// # Errors
///
/// There is no free port on 127.0.0.1.
pub async fn start(count: usize) -> io::Result<Vec<RunningGreeter>> {
    let mut greeters = Vec::with_capacity(count);
    for number in 1..=count {
        greeters.push(RunningGreeter::start(number.to_string()).await?);
    }
    Ok(greeters)
}

/// Their addresses with commas between them: what follows `ipv4:` in a target.
pub fn addresses(greeters: &[RunningGreeter]) -> String {
    let addresses: Vec<String> = greeters.iter().map(|g| g.address.to_string()).collect();
    addresses.join(",")
}
