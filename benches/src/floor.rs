//! The floor: unary calls on raw h2, with the same headers and checks as any gRPC client needs, and
//! nothing else. No picker, no deadline, no retry, no status details.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use helloworld::{HelloReply, HelloRequest};
use http::{
    HeaderMap, HeaderValue, Request, Uri, Version,
    header::{CONTENT_TYPE, TE, USER_AGENT},
};
use prost::Message as _;
use tokio::{net::TcpStream, task::JoinSet};

use crate::callers::NAME;

/// The 5 bytes before each gRPC message: compressed or not, and its length.
const PREFIX_LEN: usize = 5;

struct Connection {
    send: SendRequest<Bytes>,
    uri: Uri,
}

/// Connections that are used in turn. Clones share them.
#[derive(Clone)]
pub struct Floor {
    connections: Arc<[Connection]>,
    turn: Arc<AtomicUsize>,
    headers: HeaderMap,
    // Ends the connections' tasks with the last clone.
    _tasks: Arc<JoinSet<Result<(), h2::Error>>>,
}

impl Floor {
    /// Connects to each.
    ///
    /// # Errors
    ///
    /// One of them can't be connected to.
    pub async fn connect(backends: &[SocketAddr]) -> Result<Self, String> {
        let (mut connections, mut tasks) = (Vec::new(), JoinSet::new());
        for backend in backends {
            let text = |e: &dyn std::fmt::Display| format!("raw h2 to {backend}: {e}");
            let socket = TcpStream::connect(backend).await.map_err(|e| text(&e))?;
            socket.set_nodelay(true).map_err(|e| text(&e))?;
            let (send, connection) = h2::client::Builder::new()
                .enable_push(false)
                .handshake(socket)
                .await
                .map_err(|e| text(&e))?;
            tasks.spawn(connection);
            let uri = format!("http://{backend}/helloworld.Greeter/SayHello");
            let uri = uri.parse().map_err(|e| text(&e))?;
            connections.push(Connection { send, uri });
        }
        let mut headers = HeaderMap::new();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(USER_AGENT, HeaderValue::from_static("raw-h2"));
        let (connections, turn) = (connections.into(), Arc::default());
        Ok(Self { connections, turn, headers, _tasks: Arc::new(tasks) })
    }

    /// One call on the next connection.
    ///
    /// # Errors
    ///
    /// The call broke or has another status than OK.
    pub async fn call(&self) -> Result<HelloReply, String> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let connection = &self.connections[turn];
        self.call_on(connection).await.map_err(|e| format!("raw h2: {e}"))
    }

    async fn call_on(
        &self,
        connection: &Connection,
    ) -> Result<HelloReply, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::post(connection.uri.clone()).version(Version::HTTP_2).body(())?;
        *request.headers_mut() = self.headers.clone();
        let message = message()?;

        let mut send = connection.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(request, false)?;
        stream.send_data(message, true)?;
        let (_, mut body) = response.await?.into_parts();
        let first = body.data().await.ok_or("expected a message, got none")??;
        body.flow_control().release_capacity(first.len())?;
        // A reply this small may still come in two frames; then it is collected.
        let mut whole = first;
        while let Some(more) = body.data().await {
            let more = more?;
            body.flow_control().release_capacity(more.len())?;
            whole = [whole, more].concat().into();
        }
        let trailers = body.trailers().await?.ok_or("expected trailers, got none")?;
        if trailers.get("grpc-status").is_none_or(|status| status != "0") {
            return Err(format!("expected grpc-status 0, got {trailers:?}").into());
        }
        Ok(HelloReply::decode(whole.get(PREFIX_LEN..).ok_or("the message is cut short")?)?)
    }
}

/// The request as it goes over the wire.
pub(crate) fn message() -> Result<Bytes, String> {
    let message = HelloRequest { name: NAME.to_owned() };
    let len = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX_LEN + len);
    body.put_u8(0);
    body.put_u32(u32::try_from(len).map_err(|e| e.to_string())?);
    message.encode(&mut body).map_err(|e| e.to_string())?;
    Ok(body.freeze())
}
