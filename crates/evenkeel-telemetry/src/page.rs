//! Text over HTTP/1.1 on a port of its own: metrics for Prometheus, and whatever else a service
//! shows of itself. Not on the gRPC port: who scrapes speaks no HTTP/2 without TLS, and should not
//! need the rights of a client.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tracing::warn;

/// Readers at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 20;
/// How long a connection may take in all: a reader that comes again makes another.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a reader may take for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// After an error of accept, which is a shortage of this process's.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a reader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: StatusCode,
    kind: &'static str,
    text: String,
}

impl Answer {
    /// What was asked for; `kind` is its content type.
    #[must_use]
    pub fn page(kind: &'static str, text: String) -> Self {
        Self { status: StatusCode::OK, kind, text }
    }

    /// There is no such page; `text` says which there are.
    #[must_use]
    pub fn not_found(text: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, kind: "text/plain", text }
    }

    /// The page can't be made; `text` says why.
    #[must_use]
    pub fn failed(text: String) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, kind: "text/plain", text }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.text.into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(self.kind));
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        response
    }
}

/// Serves what `answer` says to GETs of a path, until it is dropped: 20 readers at once, for a
/// minute each. `port` is what the log calls the listener when it can't accept.
pub async fn serve<A>(listener: TcpListener, port: &'static str, answer: A)
where
    A: Fn(&str) -> Answer + Clone + Send + Sync + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, _)) => {
                let answer = answer.clone();
                connections.spawn(async move {
                    // Readers that come and go are no event.
                    let _ = timeout(CONNECTION_TIME_MAX, connection(socket, answer)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "{port} can't accept");
                // A timer that ends with the page; at once it would fail again.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    socket: TcpStream,
    answer: impl Fn(&str) -> Answer,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = match *request.method() {
            Method::GET => answer(request.uri().path()),
            _ => Answer {
                status: StatusCode::METHOD_NOT_ALLOWED,
                kind: "text/plain",
                text: "expected GET\n".to_owned(),
            },
        };
        std::future::ready(Ok::<_, Infallible>(answer.response()))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .await
}
