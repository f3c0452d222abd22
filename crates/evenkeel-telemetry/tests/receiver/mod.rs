//! A receiver of OTLP for tests, over gRPC and over HTTP/1.1: keeps every span and every request
//! with metrics, and can be told to refuse or not to answer.

#![allow(dead_code)] // each test uses a part of it

pub(crate) mod greeters;
pub(crate) mod log;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use evenkeel_server::{Server, tls::ServerTls};
use evenkeel_telemetry::{
    MetricsSettings, Settings,
    otlp::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse, ExportTraceServiceRequest,
        ExportTraceServiceResponse, MetricsService, MetricsServiceServer, Span, TraceService,
        TraceServiceServer, Value, metrics::Metric,
    },
};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, service::Routes};

/// No wait of a test is longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// How the receiver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Taking,
    /// UNAVAILABLE, or 503.
    Refusing,
    /// Not at all.
    Silent,
}

#[derive(Default)]
struct Got {
    spans: Vec<Span>,
    resources: Vec<BTreeMap<String, String>>,
    headers: Vec<HeaderMap>,
    metrics: Vec<Vec<Metric>>,
}

/// The receiver, on both protocols. Clones are the same.
#[derive(Clone)]
pub(crate) struct Receiver {
    got: Arc<Mutex<Got>>,
    /// Requests so far.
    requests: watch::Sender<usize>,
    mood: watch::Sender<Mood>,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// How the receiver's two protocols are secured.
pub(crate) struct Secure {
    pub(crate) grpc: ServerTls,
    pub(crate) http: TlsAcceptor,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With TLS, or in plain text.
    pub(crate) async fn start_with(secure: Option<Secure>) -> Self {
        let (tls, acceptor) = secure.map(|of| (of.grpc, of.http)).unzip();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            got: Arc::default(),
            requests: watch::Sender::new(0),
            mood: watch::Sender::new(Mood::Taking),
            grpc: grpc.local_addr().unwrap(),
            http: http.local_addr().unwrap(),
        };
        let routes = Routes::new(TraceServiceServer::new(receiver.clone()))
            .add_service(MetricsServiceServer::new(receiver.clone()));
        let mut builder = Server::builder().drain_delay(Duration::ZERO);
        if let Some(tls) = tls {
            builder = builder.tls(tls).unwrap();
        }
        tokio::spawn(builder.build(routes).unwrap().serve([grpc]));
        tokio::spawn(receiver.clone().serve_http(http, acceptor));
        receiver
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Waits until so many requests came.
    pub(crate) async fn asked(&self, requests: usize) {
        let mut seen = self.requests.subscribe();
        timeout(LIMIT, seen.wait_for(|n| *n >= requests)).await.expect("in time").unwrap();
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.got.lock().unwrap().spans.clone()
    }

    pub(crate) fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }

    pub(crate) fn resources(&self) -> Vec<BTreeMap<String, String>> {
        self.got.lock().unwrap().resources.clone()
    }

    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.got.lock().unwrap().headers.clone()
    }

    /// The metrics of each request.
    pub(crate) fn metrics(&self) -> Vec<Vec<Metric>> {
        self.got.lock().unwrap().metrics.clone()
    }

    /// Counts a request; false when it is to be refused.
    async fn takes(&self) -> bool {
        self.requests.send_modify(|n| *n += 1);
        let mood = *self.mood.borrow();
        match mood {
            Mood::Refusing => false,
            Mood::Silent => std::future::pending().await,
            Mood::Taking => true,
        }
    }

    async fn take_metrics(&self, headers: HeaderMap, request: ExportMetricsServiceRequest) -> bool {
        if !self.takes().await {
            return false;
        }
        let mut got = self.got.lock().unwrap();
        got.headers.push(headers);
        for resource in request.resource_metrics {
            got.resources.push(attributes(&resource.resource.unwrap().attributes));
            let scopes = resource.scope_metrics.into_iter();
            got.metrics.push(scopes.flat_map(|scope| scope.metrics).collect());
        }
        true
    }

    async fn take(&self, headers: HeaderMap, request: ExportTraceServiceRequest) -> bool {
        if !self.takes().await {
            return false;
        }
        let mut got = self.got.lock().unwrap();
        got.headers.push(headers);
        for resource in request.resource_spans {
            got.resources.push(attributes(&resource.resource.unwrap().attributes));
            got.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        true
    }

    async fn serve_http(self, listener: TcpListener, acceptor: Option<TlsAcceptor>) {
        while let Ok((socket, _)) = listener.accept().await {
            let (receiver, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let Some(acceptor) = acceptor else { return receiver.converse(socket).await };
                // A client that is refused, or refuses, tells so itself.
                if let Ok(socket) = acceptor.accept(socket).await {
                    receiver.converse(socket).await;
                }
            });
        }
    }

    async fn converse(self, socket: impl AsyncRead + AsyncWrite + Unpin) {
        let service = hyper::service::service_fn(move |request: http::Request<_>| {
            self.clone().answer(request)
        });
        let server = hyper::server::conn::http1::Builder::new();
        server.serve_connection(TokioIo::new(socket), service).await.ok();
    }

    async fn answer(
        self,
        request: http::Request<hyper::body::Incoming>,
    ) -> Result<http::Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        assert_eq!(head.method, "POST");
        assert_eq!(head.headers["content-type"], "application/x-protobuf");
        let body = body.collect().await.unwrap().to_bytes();
        let is_taken = match head.uri.path() {
            "/v1/traces" => {
                let message = ExportTraceServiceRequest::decode(body).unwrap();
                self.take(head.headers, message).await
            }
            "/v1/metrics" => {
                let message = ExportMetricsServiceRequest::decode(body).unwrap();
                self.take_metrics(head.headers, message).await
            }
            other => panic!("expected a path of OTLP, got {other}"),
        };
        let mut response = http::Response::new(Full::default());
        if !is_taken {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Ok(response)
    }

    /// The variables that send spans here by `protocol`, and `more`.
    pub(crate) fn settings(&self, protocol: &str, more: &[(&str, &str)]) -> Settings {
        let at = if protocol == "grpc" { self.grpc } else { self.http };
        settings(at, protocol, more)
    }

    /// The same for metrics.
    pub(crate) fn metrics_settings(
        &self,
        protocol: &str,
        more: &[(&str, &str)],
    ) -> MetricsSettings {
        let at = if protocol == "grpc" { self.grpc } else { self.http };
        metrics_settings(at, protocol, more)
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        match self.take_metrics(headers, request.into_inner()).await {
            true => Ok(Response::new(ExportMetricsServiceResponse::default())),
            false => Err(Status::unavailable("not now")),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        match self.take(headers, request.into_inner()).await {
            true => Ok(Response::new(ExportTraceServiceResponse::default())),
            false => Err(Status::unavailable("not now")),
        }
    }
}

/// Settings by variables, as users make them.
pub(crate) fn settings(at: SocketAddr, protocol: &str, more: &[(&str, &str)]) -> Settings {
    Settings::read("test", &|name| variable(at, protocol, more, name)).unwrap().unwrap()
}

/// The same for metrics.
pub(crate) fn metrics_settings(
    at: SocketAddr,
    protocol: &str,
    more: &[(&str, &str)],
) -> MetricsSettings {
    MetricsSettings::read("test", &|name| variable(at, protocol, more, name)).unwrap().unwrap()
}

fn variable(at: SocketAddr, protocol: &str, more: &[(&str, &str)], name: &str) -> Option<String> {
    let endpoint = format!("http://{at}");
    let own = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
    ];
    let found = more.iter().chain(&own).find(|(key, _)| *key == name);
    found.map(|(_, value)| (*value).to_owned())
}

/// Attributes as text.
pub(crate) fn attributes(list: &[evenkeel_telemetry::otlp::KeyValue]) -> BTreeMap<String, String> {
    let value = |value: &Option<evenkeel_telemetry::otlp::AnyValue>| match value {
        Some(any) => match &any.value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(yes)) => yes.to_string(),
            Some(Value::DoubleValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        },
        None => String::new(),
    };
    list.iter().map(|pair| (pair.key.clone(), value(&pair.value))).collect()
}

/// The one of these attributes, as text.
pub(crate) fn attribute(span: &Span, key: &str) -> Option<String> {
    attributes(&span.attributes).remove(key)
}
