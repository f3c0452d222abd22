//! The backend: it answers with what it got.

use std::{
    convert::Infallible,
    net::SocketAddrV4,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use evenkeel_server::Server;
use futures_util::stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, header::CONTENT_TYPE, request::Parts,
};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tonic::{Code, Status, body::Body, codegen::Service, server::NamedService, service::Routes};

use super::{ASK, COPIED, IN_TRAILERS};
use crate::error::LabError;

/// Well above what is sent, so that only a proxy can be what refuses it.
const HEADER_LIST_BYTES_MAX: u32 = 256 * 1024;

/// A mirror that serves; dropping it closes everything.
pub(crate) struct Mirror {
    #[cfg(test)]
    pub(super) address: std::net::SocketAddr,
    calls: Calls,
    _serving: JoinSet<()>,
}

/// What of a request reached the backend.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Arrived {
    pub(super) authority: String,
    pub(super) path: String,
    /// In their order, with values as text.
    pub(super) headers: Vec<(String, String)>,
}

/// Calls that were begun and never answered, and how many of them are over.
#[derive(Clone, Debug)]
struct Calls {
    given_up: watch::Sender<u64>,
}

impl Mirror {
    /// Serves on `address`.
    ///
    /// # Errors
    ///
    /// When it can't listen there.
    pub(crate) async fn start(address: SocketAddrV4) -> Result<Self, LabError> {
        let what = || format!("the mirror on {address}");
        let listener = TcpListener::bind(address).await.map_err(LabError::io(what()))?;
        #[cfg(test)]
        let address = listener.local_addr().map_err(LabError::io(what()))?;
        let calls = Calls { given_up: watch::Sender::new(0) };
        let routes = Routes::new(Reflecting { calls: calls.clone() });
        let builder = Server::builder().max_header_list_bytes(HEADER_LIST_BYTES_MAX);
        // Envoy's health checks ask for the server as a whole.
        let server = builder.health([Reflecting::NAME]).build(routes);
        let other = |error: &dyn std::fmt::Display| std::io::Error::other(error.to_string());
        let server = server.map_err(|error| LabError::io(what())(other(&error)))?;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // An end that comes early shows in the probes: nobody answers them.
            server.serve([listener]).await.ok();
        });
        Ok(Self {
            #[cfg(test)]
            address,
            calls,
            _serving: serving,
        })
    }

    /// How many calls that it would never have answered were given up, from now on.
    pub(super) fn given_up(&self) -> watch::Receiver<u64> {
        self.calls.given_up.subscribe()
    }
}

#[derive(Clone)]
struct Reflecting {
    calls: Calls,
}

impl NamedService for Reflecting {
    // Sidecars route by it.
    const NAME: &'static str = "helloworld.Greeter";
}

impl Service<Request<Body>> for Reflecting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let calls = self.calls.clone();
        // The body is held until the call is over: dropped earlier, it would cancel the rest of it.
        let (head, body) = request.into_parts();
        Box::pin(async move {
            let answer = answer(&calls, &head).await;
            drop(body);
            Ok(answer)
        })
    }
}

/// Counts a call that ends without an answer.
struct Unanswered(watch::Sender<u64>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

async fn answer(calls: &Calls, request: &Parts) -> Response<Body> {
    let asked = request.headers.get(ASK).and_then(|value| value.to_str().ok()).unwrap_or("");
    match asked.split_once(' ') {
        Some(("trailers", code)) => in_trailers(request, &status(code)),
        Some(("only", code)) => status(code).into_http(),
        _ if asked == "hang" => {
            let _unanswered = Unanswered(calls.given_up.clone());
            std::future::pending().await
        }
        _ => in_trailers(request, &Status::ok("")),
    }
}

/// The status that a probe asks for; a client that gets another one sees the difference.
pub(super) fn status(code: &str) -> Status {
    let code = code.parse().map_or(Code::Unknown, Code::from_i32);
    // A percent sign, a line feed and letters beyond ASCII have to be escaped on the wire.
    let message = format!("100 % of {code:?}:\nnicht schön, 不好");
    Status::with_details(code, message, Bytes::from_static(&[0, 1, 0xfe, 0xff]))
}

/// Headers, a message that says what arrived, and `status` in the trailers.
fn in_trailers(request: &Parts, status: &Status) -> Response<Body> {
    let headers = &request.headers;
    let mut trailers = HeaderMap::new();
    if let Err(error) = status.add_header(&mut trailers) {
        return error.into_http();
    }
    let mut response = Response::new(());
    copy(headers, response.headers_mut(), "");
    copy(headers, &mut trailers, IN_TRAILERS);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    let frames = [Frame::data(message(&Arrived::of(request))), Frame::trailers(trailers)];
    let frames = stream::iter(frames.map(Ok::<_, Infallible>));
    response.map(|()| Body::new(StreamBody::new(frames)))
}

/// Copies the headers that the probes use, each value of each, under its name after `prefix`.
fn copy(from: &HeaderMap, to: &mut HeaderMap, prefix: &str) {
    for name in COPIED {
        let Ok(copied) = HeaderName::try_from(format!("{prefix}{name}")) else { continue };
        for value in from.get_all(name) {
            to.append(copied.clone(), value.clone());
        }
    }
}

/// `arrived` as a gRPC message. Proxies look at its length and nothing else.
fn message(arrived: &Arrived) -> Bytes {
    let text = serde_json::json!(arrived).to_string();
    let mut framed = BytesMut::with_capacity(5 + text.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    framed.put(text.as_bytes());
    framed.freeze()
}

impl Arrived {
    fn of(request: &Parts) -> Self {
        let uri = &request.uri;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            authority: uri.authority().map_or_else(String::new, ToString::to_string),
            path: uri.path().to_owned(),
            headers: request
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        }
    }

    /// The values of `name`.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}
