//! `--admin-listen`: what the balancer has and does, as JSON for people and the lab and as metrics
//! for Prometheus. HTTP/1.1 on a port of its own, because Prometheus scrapes with nothing else
//! without TLS, and because addresses are not for every client's eyes.

use std::{convert::Infallible, fmt::Write as _, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel_control::{
    Control,
    grpclb::Grpclb,
    metrics::{Kind, Page},
    status::{self, Status},
    xds::Xds,
};
use evenkeel_server::ServerStats;
use evenkeel_telemetry::{
    Telemetry,
    metrics::{Family, Kind as FamilyKind, Value},
};
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
/// How long a connection may take in all, whatever it asks.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a reader may take for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// After an error of accept, which is a shortage of this process's.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is shown.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) control: Control,
    pub(crate) grpclb: Grpclb,
    pub(crate) xds: Option<Xds>,
    pub(crate) server: ServerStats,
    /// What is counted of the server's calls.
    pub(crate) telemetry: Telemetry,
}

/// Listens; the error says which flag to change.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let text = format!(
            "could not listen on {address}: {error}; free it or choose another with \
             --admin-listen or GRPCLB_ADMIN_LISTEN"
        );
        io::Error::new(error.kind(), text)
    })
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, shown: Shown) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, _)) => {
                let shown = shown.clone();
                connections.spawn(async move {
                    // Readers that come and go are no event.
                    let _ = timeout(CONNECTION_TIME_MAX, connection(socket, shown)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "the admin port can't accept");
                // A timer that ends with the server; at once it would fail again.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, shown: Shown) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = shown.answer(request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .await
}

impl Shown {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "expected GET\n".into());
        }
        match path {
            "/status" => {
                let mut status = Status::of(&self.control, &self.grpclb);
                if let Some(xds) = &self.xds {
                    status = status.with_xds(xds);
                }
                match serde_json::to_string_pretty(&status) {
                    Ok(json) => text(StatusCode::OK, "application/json", json + "\n"),
                    Err(error) => {
                        let error = error.to_string();
                        text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error)
                    }
                }
            }
            "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4", self.metrics()),
            other => {
                let mut problem = String::from("expected /status or /metrics, got ");
                // Writing to a String does not fail.
                let _ = writeln!(problem, "{other:?}");
                text(StatusCode::NOT_FOUND, "text/plain", problem)
            }
        }
    }

    fn metrics(&self) -> String {
        self.own_metrics().into_text() + &self.telemetry.prometheus()
    }

    /// What the balancer itself counts.
    pub(crate) fn own_metrics(&self) -> Page {
        let mut page = Page::default();
        status::write_metrics(&mut page, &self.control, &self.grpclb);
        if let Some(xds) = &self.xds {
            xds.write_metrics(&mut page);
        }
        let counters = self.server.counters();
        let events = counters.map(|(name, count)| ([("event", name)], count as f64));
        let help = "Events of the gRPC server, limits that were hit among them.";
        page.metric(Kind::Counter, "evenkeel_balancer_server_events_total", help, events);
        page
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// The balancer's metrics in the form in which they are sent.
pub(crate) fn families(page: Page) -> impl Iterator<Item = Family> {
    page.into_metrics().into_iter().map(|metric| {
        let kind = match metric.kind {
            Kind::Counter => FamilyKind::Counter,
            Kind::Gauge => FamilyKind::Gauge,
        };
        let mut family = Family::new(metric.name, kind, "", metric.help);
        for (labels, value) in metric.samples {
            family.add(labels, Value::Number(value));
        }
        family
    })
}
