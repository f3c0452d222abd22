//! The floor under every way to balance: bare HTTP/2 connections, one to each address, taken in
//! turn. No resolver, no picker, no deadline, no retry.
//!
//! It is a service below the generated client, like our channel, and not a loop of its own: then
//! the same program makes the same calls over both, and what differs is the channel. tonic's own
//! channel would be no floor: it has a queue and a task before each call.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http::{HeaderValue, Request, Response, Uri, Version, header::USER_AGENT};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::{net::TcpStream, task::JoinSet};
use tonic::{Status, codegen::Service};

/// Connections that are used in turn. Clones share them.
#[derive(Clone)]
pub(super) struct Floor {
    connections: Arc<[Connection]>,
    turn: Arc<AtomicUsize>,
    /// Ends the connections' tasks with the last clone.
    _tasks: Arc<JoinSet<Result<(), h2::Error>>>,
}

struct Connection {
    send: SendRequest<Bytes>,
    authority: String,
}

impl Floor {
    /// Connects to each of `addresses`.
    ///
    /// # Errors
    ///
    /// When one can't be connected to.
    pub(super) async fn connect(addresses: &[SocketAddr]) -> Result<Self, String> {
        let (mut connections, mut tasks) = (Vec::new(), JoinSet::new());
        for address in addresses {
            let told = |error: &dyn std::fmt::Display| format!("HTTP/2 to {address}: {error}");
            let socket = TcpStream::connect(address).await.map_err(|error| told(&error))?;
            socket.set_nodelay(true).map_err(|error| told(&error))?;
            let mut builder = h2::client::Builder::new();
            let shaken = builder.enable_push(false).handshake(socket).await;
            let (send, connection) = shaken.map_err(|error| told(&error))?;
            tasks.spawn(connection);
            connections.push(Connection { send, authority: address.to_string() });
        }
        if connections.is_empty() {
            return Err("expected at least one address to connect to".to_owned());
        }
        let (connections, turn) = (connections.into(), Arc::default());
        Ok(Self { connections, turn, _tasks: Arc::new(tasks) })
    }

    async fn call(self, request: Request<tonic::body::Body>) -> Result<Response<Reply>, Status> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let Connection { send, authority } = &self.connections[turn];
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = Uri::builder()
            .scheme("http")
            .authority(authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(broken)?;
        head.version = Version::HTTP_2;
        head.headers.insert(USER_AGENT, HeaderValue::from_static("evenkeel-lab-floor"));
        // Before the headers are sent: a unary request is one message that is there already.
        let message = body.collect().await?.to_bytes();
        let mut send = send.clone().ready().await.map_err(broken)?;
        let request = Request::from_parts(head, ());
        let (response, mut stream) = send.send_request(request, false).map_err(broken)?;
        stream.send_data(message, true).map_err(broken)?;
        let (head, body) = response.await.map_err(broken)?.into_parts();
        Ok(Response::from_parts(head, Reply { body, ended: false }))
    }
}

impl Service<Request<tonic::body::Body>> for Floor {
    type Response = Response<Reply>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.clone().call(request))
    }
}

/// A response's frames as h2 gives them.
pub(super) struct Reply {
    body: RecvStream,
    ended: bool,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.body.poll_data(cx)) {
            Some(Ok(data)) => {
                self.body.flow_control().release_capacity(data.len()).map_err(broken)?;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(broken(error)))),
            None => {
                let trailers = ready!(self.body.poll_trailers(cx)).map_err(broken)?;
                self.ended = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }
}

fn broken(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("HTTP/2: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evenkeel_server::Server;
    use helloworld::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    };
    use tokio::net::TcpListener;
    use tonic::service::Routes;

    use super::*;

    struct Named(&'static str);

    #[tonic::async_trait]
    impl Greeter for Named {
        async fn say_hello(
            &self,
            request: tonic::Request<HelloRequest>,
        ) -> Result<tonic::Response<HelloReply>, Status> {
            match request.get_ref().name.as_str() {
                "nobody" => Err(Status::not_found("nobody is here")),
                name => {
                    let message = format!("Hello {name} from {}", self.0);
                    Ok(tonic::Response::new(HelloReply { message }))
                }
            }
        }
    }

    /// Servers that end with the test's runtime.
    async fn served(names: [&'static str; 2]) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for name in names {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let routes = Routes::new(GreeterServer::new(Named(name)));
            let server = Server::builder().build(routes).unwrap();
            tokio::spawn(server.serve([listener]));
        }
        addresses
    }

    async fn say(client: &mut GreeterClient<Floor>, name: &str) -> Result<String, Status> {
        let call = client.say_hello(HelloRequest { name: name.to_owned() });
        let reply = tokio::time::timeout(Duration::from_secs(10), call).await.expect("in time")?;
        Ok(reply.into_inner().message)
    }

    #[tokio::test]
    async fn connections_take_turns_and_a_status_alone_comes_through() {
        let floor = Floor::connect(&served(["one", "two"]).await).await.unwrap();
        let mut client = GreeterClient::new(floor);
        let mut heard = Vec::new();
        for _ in 0..4 {
            heard.push(say(&mut client, "you").await.unwrap());
        }
        let [one, two] = ["Hello you from one", "Hello you from two"];
        assert_eq!(heard, [one, two, one, two]);
        let refused = say(&mut client, "nobody").await.expect_err("nobody is there");
        assert_eq!((refused.code(), refused.message()), (tonic::Code::NotFound, "nobody is here"));
    }

    #[tokio::test]
    async fn nobody_to_connect_to_is_an_error_that_says_where() {
        assert!(Floor::connect(&[]).await.is_err_and(|error| error.contains("at least one")));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        let error = Floor::connect(&[closed]).await.err().expect("nobody listens");
        assert!(error.contains(&closed.to_string()), "{error}");
    }
}
