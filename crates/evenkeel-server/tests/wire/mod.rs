//! A server on a free port, and clients that see what a gRPC library hides: GOAWAY, the end of a
//! connection, frames. The client is h2 alone, so that the server is not tested by its own code.

// Each test file uses a part of this.
#![allow(dead_code)]

pub(crate) mod attacks;
#[cfg(feature = "tls")]
pub(crate) mod certificates;
pub(crate) mod frames;
pub(crate) mod probe;

use std::{future::Future, net::SocketAddr, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use evenkeel_server::{
    Builder, DrainReport, Event, Health, ServeError, ServerStats, ShutdownHandle,
};
use h2::client::{ResponseFuture, SendRequest};
use helloworld::HelloRequest;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use self::probe::Probe;

pub(crate) const SAY_HELLO: &str = "/helloworld.Greeter/SayHello";

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bounds every wait of these tests.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("within 10 s")
}

/// A server that runs in a task.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) probe: Probe,
    pub(crate) shutdown: ShutdownHandle,
    pub(crate) health: Option<Health>,
    pub(crate) stats: ServerStats,
    pub(crate) task: JoinHandle<Result<DrainReport, ServeError>>,
}

impl Running {
    pub(crate) async fn start(builder: Builder) -> Self {
        let probe = Probe::default();
        let server = builder.build(probe.routes()).expect("good settings");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self {
            address: listener.local_addr().expect("bound"),
            probe,
            shutdown: server.shutdown_handle(),
            health: server.health(),
            stats: server.stats(),
            task: tokio::spawn(server.serve([listener])),
        }
    }

    /// Waits until this event has happened so often.
    pub(crate) async fn counted(&self, event: Event, count: u64) {
        // A counter has no way to tell; nothing but looking again does.
        within(async {
            while self.stats.count(event) < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(self.stats.count(event), count, "{event:?} in {:?}", self.stats);
    }

    /// Waits for the end of the drain.
    pub(crate) async fn report(self) -> DrainReport {
        within(self.task).await.expect("no panic").expect("served")
    }

    pub(crate) async fn drain(self) -> DrainReport {
        self.shutdown.drain();
        self.report().await
    }

    /// Drains; the client must see a clean end.
    pub(crate) async fn drain_with(self, client: Client) -> DrainReport {
        self.shutdown.drain();
        client.ended().await.expect("a clean end");
        self.report().await
    }
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http_status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) data: Bytes,
    /// Of the trailers, or of the headers when there are no others.
    pub(crate) grpc_status: Option<i32>,
    /// What came last: the trailers, or the headers when there are no others.
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    /// The text of a greeting.
    pub(crate) fn text(&self) -> String {
        assert_eq!(self.grpc_status, Some(0), "{self:?}");
        helloworld::HelloReply::decode(&self.data[5..]).expect("a reply").message
    }
}

/// One connection.
pub(crate) struct Client {
    send: SendRequest<Bytes>,
    pub(crate) local: SocketAddr,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("a connection")
    }

    pub(crate) async fn try_connect(address: SocketAddr) -> Result<Self, BoxError> {
        let socket = within(TcpStream::connect(address)).await?;
        let local = socket.local_addr()?;
        Self::over(socket, local).await
    }

    /// A connection whose streams have this much window, in bytes.
    pub(crate) async fn connect_with_window(address: SocketAddr, bytes: u32) -> Self {
        let socket = within(TcpStream::connect(address)).await.expect("a connection");
        let local = socket.local_addr().expect("connected");
        let mut builder = h2::client::Builder::new();
        let handshake = builder.initial_window_size(bytes).handshake(socket);
        let (send, connection) = within(handshake).await.expect("HTTP/2");
        Self { send, local, connection: tokio::spawn(connection) }
    }

    /// HTTP/2 over a stream that is connected, and secured, already.
    pub(crate) async fn over(
        socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        local: SocketAddr,
    ) -> Result<Self, BoxError> {
        let (send, connection) = within(h2::client::handshake(socket)).await?;
        Ok(Self { send, local, connection: tokio::spawn(connection) })
    }

    /// Sends a request and does not wait for its answer.
    pub(crate) async fn start(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        message: &impl Message,
    ) -> Result<ResponseFuture, h2::Error> {
        let mut request = Request::post(format!("http://greeter.test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let mut send = within(self.send.clone().ready()).await?;
        let (response, mut body) = send.send_request(request, false)?;
        body.send_data(framed(message), true)?;
        Ok(response)
    }

    pub(crate) async fn call(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        message: &impl Message,
    ) -> Result<Answer, h2::Error> {
        let response = self.start(path, headers, message).await?;
        finish(response).await
    }

    pub(crate) async fn hello(&mut self, name: &str) -> Result<Answer, h2::Error> {
        self.call(SAY_HELLO, &[], &hello(name)).await
    }

    /// Whether this connection takes new calls, as far as this side knows.
    pub(crate) async fn takes_calls(&mut self) -> bool {
        within(self.send.clone().ready()).await.is_ok()
    }

    /// Waits until this connection takes no new calls.
    pub(crate) async fn refuses_calls(&mut self) {
        // The connection's task sees the GOAWAY; nothing but asking again tells.
        within(async {
            while self.send.clone().ready().await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until the server ends the connection; holding on to `send` keeps h2 from doing it.
    pub(crate) async fn ended(self) -> Result<(), h2::Error> {
        let result = within(self.connection).await.expect("no panic");
        drop(self.send);
        result
    }

    /// Ends the connection from here.
    pub(crate) async fn close(self) {
        drop(self.send);
        // How it ends does not matter: the server has seen the end of its side.
        let _ = within(self.connection).await;
    }
}

pub(crate) fn hello(name: &str) -> HelloRequest {
    HelloRequest { name: name.to_owned() }
}

/// A message behind gRPC's prefix of five bytes.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).expect("the buffer grows");
    bytes.freeze()
}

pub(crate) async fn finish(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = within(response).await?.into_parts();
    let mut data = BytesMut::new();
    while let Some(chunk) = within(body.data()).await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        data.extend_from_slice(&chunk);
    }
    let trailers = within(body.trailers()).await?.unwrap_or_else(|| head.headers.clone());
    let status = trailers.get("grpc-status");
    Ok(Answer {
        http_status: head.status.as_u16(),
        grpc_status: status
            .map(|status| status.to_str().expect("a number"))
            .map(|text| text.parse().expect("a number")),
        trailers,
        headers: head.headers,
        data: data.freeze(),
    })
}
