//! The page for Prometheus on a port of its own, over HTTP/1.1. Not on the gRPC port: who scrapes
//! speaks no HTTP/2 without TLS, and should not need the rights of a client.

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

use super::{CONTENT_TYPE, Metrics};

/// Readers at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 20;
/// How long a connection may take in all: a scraper that comes again makes another.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a reader may take for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// After an error of accept, which is a shortage of this process's.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, _)) => {
                let metrics = metrics.clone();
                connections.spawn(async move {
                    // Readers that come and go are no event.
                    let _ = timeout(CONNECTION_TIME_MAX, connection(socket, metrics)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "the port for metrics can't accept");
                // A timer that ends with the page; at once it would fail again.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, metrics: Arc<Metrics>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&metrics, request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .await
}

fn answer(metrics: &Metrics, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (method, path) {
        (&Method::GET, "/metrics") => (StatusCode::OK, CONTENT_TYPE, metrics.page()),
        (&Method::GET, other) => {
            let text = format!("expected /metrics, got {other:?}\n");
            (StatusCode::NOT_FOUND, "text/plain", text)
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "expected GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
