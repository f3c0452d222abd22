//! The simplest client that reads watches: one connection per request.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{Duration, timeout},
};

/// Nothing that is awaited here may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Sends one request to `address` (`host:port`).
pub(crate) async fn send(
    address: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> (StatusCode, Incoming) {
    let socket = TcpStream::connect(address).await.expect("the server listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let bytes = body.map(ToString::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(bytes)))
        .unwrap();
    let answer = timeout(PATIENCE, sender.send_request(request)).await;
    let answer = answer.expect("an answer in time").expect("an answer");
    (answer.status(), answer.into_body())
}

/// All of a body, as JSON.
pub(crate) async fn whole(body: Incoming) -> Value {
    let bytes = timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

/// The lines of a watch.
pub(crate) struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, buffer: Vec::new() }
    }

    /// The next event; `None` at the end of the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        timeout(PATIENCE, self.read()).await.expect("an event in time")
    }

    /// The next event that is no bookmark.
    pub(crate) async fn change(&mut self) -> Value {
        loop {
            let event = self.next().await.expect("the watch goes on");
            if event["type"] != "BOOKMARK" {
                return event;
            }
        }
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).expect("a line is JSON"));
            }
            let frame = self.body.frame().await?;
            self.buffer.extend_from_slice(&frame.ok()?.into_data().ok()?);
        }
    }
}
