//! One call: gives its handler the connect info, its deadline and a net for panics. tonic's own
//! server has the first two in its private transport; nothing there catches a panic, which resets
//! the stream without a status.

use std::{
    any::Any,
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, uri::PathAndQuery};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, service::Service};
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body, service::Routes, transport::server::TcpConnectInfo};
use tower_service::Service as _;
use tracing::{debug, error};

use crate::timeout;

/// The service of one connection.
#[derive(Clone)]
pub(crate) struct CallService {
    routes: Routes,
    info: TcpConnectInfo,
}

impl CallService {
    pub(crate) fn new(routes: Routes, info: TcpConnectInfo) -> Self {
        Self { routes, info }
    }
}

type RoutesFuture = <Routes as tower_service::Service<Request<Incoming>>>::Future;

impl Service<Request<Incoming>> for CallService {
    type Response = Response<CallBody>;
    type Error = Infallible;
    type Future = CallFuture;

    fn call(&self, mut request: Request<Incoming>) -> CallFuture {
        let deadline = match timeout::from_headers(request.headers()) {
            Ok(timeout) => timeout.map(Deadline::after),
            Err(status) => return CallFuture::refused(status),
        };
        let guard = Guard { deadline, path: request.uri().path_and_query().cloned() };
        request.extensions_mut().insert(self.info.clone());
        // axum's router, which is what `Routes` is, is always ready.
        let mut routes = self.routes.clone();
        match guard.catch(|| routes.call(request)) {
            Ok(future) => CallFuture { handler: Some(future), guard, refused: None },
            Err(status) => CallFuture::refused(status),
        }
    }
}

/// The time at which a call is over, whether or not its response has begun. A response that stalls
/// because its client does not read is not polled and ends with its stream or its connection.
struct Deadline {
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self { sleep: Box::pin(sleep(timeout)) }
    }
}

/// What watches over the handler from the request to the end of the response.
#[derive(Default)]
struct Guard {
    deadline: Option<Deadline>,
    path: Option<PathAndQuery>,
}

impl Guard {
    fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = &mut self.deadline else { return false };
        let expired = deadline.sleep.as_mut().poll(cx).is_ready();
        if expired {
            debug!(path = self.path(), "the client's deadline passed");
        }
        expired
    }

    /// Runs a piece of the handler. It is not run again after a panic, so that nothing sees the
    /// state that the panic left: that is what makes the assertion of unwind safety true.
    fn catch<T>(&self, piece: impl FnOnce() -> T) -> Result<T, Status> {
        catch_unwind(AssertUnwindSafe(piece)).map_err(|panic| {
            error!(path = self.path(), panic = message(&*panic), "a handler panicked");
            Status::internal("the handler panicked; the server's log says where")
        })
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
    handler: Option<RoutesFuture>,
    guard: Guard,
    refused: Option<Status>,
}

impl CallFuture {
    fn refused(status: Status) -> Self {
        Self { handler: None, guard: Guard::default(), refused: Some(status) }
    }
}

impl Future for CallFuture {
    type Output = Result<Response<CallBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { handler, guard, refused } = &mut *self;
        let Some(future) = handler else {
            return refused
                .take()
                .map_or(Poll::Pending, |status| Poll::Ready(Ok(only_trailers(status))));
        };
        let status = match guard.catch(|| Pin::new(future).poll(cx)) {
            Ok(Poll::Ready(Ok(response))) => {
                let guard = std::mem::take(guard);
                let body = |inner| CallBody { state: Some(BodyState { inner, guard }) };
                return Poll::Ready(Ok(response.map(body)));
            }
            Ok(Poll::Ready(Err(never))) => match never {},
            Ok(Poll::Pending) if !guard.expired(cx) => return Poll::Pending,
            Ok(Poll::Pending) => deadline_exceeded(),
            Err(status) => status,
        };
        // Ends the handler now and not when hyper drops the stream.
        *handler = None;
        Poll::Ready(Ok(only_trailers(status)))
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
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(BodyState { inner, guard }) = &mut self.state else { return Poll::Ready(None) };
        let status = match guard.catch(|| Pin::new(inner).poll_frame(cx)) {
            Ok(Poll::Pending) if guard.expired(cx) => deadline_exceeded(),
            Ok(frame) => return frame,
            Err(status) => status,
        };
        self.state = None;
        Poll::Ready(Some(Ok(trailers(status))))
    }

    fn is_end_stream(&self) -> bool {
        self.state.as_ref().is_none_or(|state| state.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            // Trailers may take the place of data, so no length can be promised.
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

fn trailers(status: Status) -> Frame<Bytes> {
    let mut headers = HeaderMap::new();
    // Our statuses have short ASCII messages and no metadata; if it could fail, an empty trailer is
    // what a client reads as UNKNOWN.
    let _ = status.add_header(&mut headers);
    Frame::trailers(headers)
}
