//! One call: gives its handler the connect info, its deadline and a net for panics. tonic's own
//! server has the first two in its private transport; nothing there catches a panic, which resets
//! the stream without a status.

use std::{
    any::Any,
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response, uri::PathAndQuery};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, service::Service};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body, service::Routes, transport::server::TcpConnectInfo};
use tower_service::Service as _;
use tracing::{debug, error};

use crate::{
    config::{RESPONSE_PIECE_BYTES_MAX, Settings},
    counted::{Meter, Metered, RequestBody},
    layer::{CallStart, Layer, Scope},
    observe::Event,
    orca::{CallMetrics, Orca, report},
    streams::{Progress, Streams},
    timeout,
};

/// The service of one connection.
pub(crate) struct CallService {
    routes: Routes,
    info: TcpConnectInfo,
    /// What a secure connection adds.
    extensions: Option<Extensions>,
    streams: Streams,
    /// Where trailers carry reports.
    orca: Option<Orca>,
    layer: Option<Layer>,
    meter: Option<Meter>,
}

impl CallService {
    pub(crate) fn new(
        routes: Routes,
        info: TcpConnectInfo,
        extensions: Option<Extensions>,
        streams: Streams,
        settings: &Settings,
    ) -> Self {
        let orca = settings.orca.as_ref().filter(|orca| orca.per_call).cloned();
        let (layer, meter) = (settings.layer.clone(), settings.meter.clone());
        Self { routes, info, extensions, streams, orca, layer, meter }
    }
}

type RoutesFuture = <Routes as tower_service::Service<Request<RequestBody>>>::Future;

impl Service<Request<Incoming>> for CallService {
    type Response = Response<CallBody>;
    type Error = Infallible;
    type Future = CallFuture;

    fn call(&self, mut request: Request<Incoming>) -> CallFuture {
        self.streams.record(Event::StreamOpened);
        let mut scope = self.begin(&mut request);
        let timeout = match timeout::from_headers(request.headers()) {
            Ok(timeout) => timeout,
            Err(status) => {
                scope.end(Some(status.code() as u8));
                return CallFuture::refused(status);
            }
        };
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let progress = self.streams.announce(deadline);
        let counted = scope.receives(&progress).cloned();
        let mut guard = Guard {
            timer: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
            path: request.uri().path_and_query().cloned(),
            progress,
            streams: self.streams.clone(),
            metrics: self.orca.as_ref().map(|orca| CallMetrics::new(&orca.metrics)),
            scope,
        };
        if let Some(metrics) = &guard.metrics {
            request.extensions_mut().insert(metrics.clone());
        }
        request.extensions_mut().insert(self.info.clone());
        if let Some(extensions) = &self.extensions {
            request.extensions_mut().extend(extensions.clone());
        }
        // axum's router, which is what `Routes` is, is always ready.
        let mut routes = self.routes.clone();
        let request = request.map(|body| RequestBody::new(body, counted.as_ref()));
        match guard.catch(|| routes.call(request)) {
            Ok(future) => CallFuture { handler: Some((future, guard)), refused: None },
            Err(status) => {
                guard.scope.end(Some(status.code() as u8));
                CallFuture::refused(status)
            }
        }
    }
}

impl CallService {
    fn begin(&self, request: &mut Request<Incoming>) -> Scope {
        let metered = self.meter.as_ref().map(|meter| Metered::begin(meter, request.uri().path()));
        let Some(layer) = &self.layer else { return Scope::new(None, metered) };
        let mut extensions = std::mem::take(request.extensions_mut());
        let (path, headers) = (request.uri().path(), request.headers());
        let peer = self.info.remote_addr();
        let call = CallStart { path, headers, extensions: &mut extensions, peer };
        let scope = Scope::new(layer.start(call), metered);
        *request.extensions_mut() = extensions;
        scope
    }
}

/// What watches over the handler from the request to the end of the response. A response that
/// stalls because its client does not read is not polled; its stream's task watches over that.
struct Guard {
    /// Runs out at the call's deadline.
    timer: Option<Pin<Box<Sleep>>>,
    path: Option<PathAndQuery>,
    progress: Arc<Progress>,
    streams: Streams,
    /// What the call's end reports of its load.
    metrics: Option<CallMetrics>,
    /// What the user runs around the call.
    scope: Scope,
}

impl Guard {
    fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(timer) = &mut self.timer else { return false };
        let expired = timer.as_mut().poll(cx).is_ready();
        if expired {
            debug!(path = self.path(), "the client's deadline passed");
            self.streams.record(Event::DeadlineExceeded);
        }
        expired
    }

    /// Runs a piece of the handler. It is not run again after a panic, so that nothing sees the
    /// state that the panic left: that is what makes the assertion of unwind safety true.
    fn catch<T>(&mut self, piece: impl FnOnce() -> T) -> Result<T, Status> {
        let scope = &mut self.scope;
        let ran = catch_unwind(AssertUnwindSafe(|| scope.run(piece))).map_err(|panic| {
            error!(path = self.path(), panic = message(&*panic), "a handler panicked");
            self.streams.record(Event::HandlerPanicked);
            Status::internal("the handler panicked; the server's log says where")
        })?;
        ran.ok_or_else(|| Status::internal("the server's call layer did not run the handler"))
    }

    /// Adds what the call reports of its load to its trailers.
    fn report(&self, trailers: &mut HeaderMap) {
        if let Some(metrics) = &self.metrics {
            report(metrics, trailers);
        }
    }

    fn answered(&mut self, head: &HeaderMap, status: Option<u8>) {
        let path = self.path.as_ref().map_or("", PathAndQuery::path);
        self.scope.answered(path, head, status);
    }

    fn path(&self) -> &str {
        self.path.as_ref().map_or("", PathAndQuery::as_str)
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not text")
}

fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the call's grpc-timeout passed on the server")
}

/// The future of a call's response headers.
pub(crate) struct CallFuture {
    /// `None` once it has ended, or when the call was refused.
    handler: Option<(RoutesFuture, Guard)>,
    refused: Option<Status>,
}

impl CallFuture {
    fn refused(status: Status) -> Self {
        Self { handler: None, refused: Some(status) }
    }
}

impl Future for CallFuture {
    type Output = Result<Response<CallBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { handler, refused } = &mut *self;
        let Some((future, guard)) = handler else {
            return refused
                .take()
                .map_or(Poll::Pending, |status| Poll::Ready(Ok(only_trailers(status))));
        };
        let result = guard.catch(|| Pin::new(future).poll(cx));
        if matches!(result, Ok(Poll::Pending)) && !guard.expired(cx) {
            return Poll::Pending;
        }
        // Ends the handler now and not when hyper drops the stream.
        let Some((_, mut guard)) = handler.take() else { return Poll::Pending };
        let mut response = match result {
            Ok(Poll::Ready(Ok(response))) => response,
            Ok(Poll::Ready(Err(never))) => match never {},
            Ok(Poll::Pending) => deadline_exceeded().into_http(),
            Err(status) => status.into_http(),
        };
        // A response of trailers only has them in its head.
        let is_over = response.headers().contains_key(Status::GRPC_STATUS);
        let status = grpc_status(response.headers());
        guard.answered(response.headers(), status);
        if is_over {
            guard.report(response.headers_mut());
            guard.scope.end(status);
        }
        let body = |inner| CallBody { state: Some(BodyState::new(inner, guard)) };
        Poll::Ready(Ok(response.map(body)))
    }
}

fn only_trailers(status: Status) -> Response<CallBody> {
    status.into_http()
}

/// The body of a response, under the same guard as the handler that made it.
#[derive(Default)]
pub(crate) struct CallBody {
    /// `None` once it has ended.
    state: Option<BodyState>,
}

struct BodyState {
    inner: Body,
    guard: Guard,
    /// Of a frame that is handed on in pieces.
    rest: Bytes,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Status>>>;

impl BodyState {
    fn new(inner: Body, guard: Guard) -> Self {
        Self { inner, guard, rest: Bytes::new() }
    }

    /// The next frame, or its first piece; an error ends the response.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Polled, Status> {
        let Self { inner, guard, rest } = self;
        if rest.is_empty() {
            let frame = guard.catch(|| Pin::new(inner).poll_frame(cx))?;
            if frame.is_pending() && guard.expired(cx) {
                return Err(deadline_exceeded());
            }
            let large = |frame: &Frame<Bytes>| {
                frame.data_ref().is_some_and(|data| data.len() > RESPONSE_PIECE_BYTES_MAX)
            };
            if let Poll::Ready(Some(Ok(frame))) = &frame
                && let Some(data) = frame.data_ref()
            {
                guard.scope.sends(data);
            }
            match frame {
                Poll::Ready(Some(Ok(frame))) if large(&frame) => {
                    *rest = frame.into_data().unwrap_or_default();
                }
                mut other => {
                    if let Poll::Ready(Some(Ok(frame))) = &mut other
                        && let Some(trailers) = frame.trailers_mut()
                    {
                        guard.report(trailers);
                        guard.scope.end(grpc_status(trailers));
                    }
                    guard.progress.polled(other.is_ready());
                    return Ok(other);
                }
            }
        }
        guard.progress.polled(true);
        let piece = rest.split_to(rest.len().min(RESPONSE_PIECE_BYTES_MAX));
        Ok(Poll::Ready(Some(Ok(Frame::data(piece)))))
    }
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(state) = &mut self.state else { return Poll::Ready(None) };
        state.poll(cx).unwrap_or_else(|status| {
            let code = status.code() as u8;
            let mut trailers = trailers(status);
            if let Some(mut state) = self.state.take() {
                state.guard.report(&mut trailers);
                state.guard.scope.end(Some(code));
            }
            Poll::Ready(Some(Ok(Frame::trailers(trailers))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.state.as_ref().is_none_or(|state| state.rest.is_empty() && state.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            // Trailers may take the place of data, so no length can be promised.
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get(Status::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

fn trailers(status: Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Our statuses have short ASCII messages and no metadata; if it could fail, an empty trailer is
    // what a client reads as UNKNOWN.
    let _ = status.add_header(&mut headers);
    headers
}
