//! What counts every call that a server answers: metrics, say (gRFC A66). A layer could, with a box
//! for each call and every poll of its handler inside; a meter is told numbers and allocates
//! nothing. It also hears the bytes of a call's messages, which no layer sees.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use evenkeel_proto::framing::MessageBytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::streams::Progress;

/// `grpc-status` of a path that no service has.
const UNIMPLEMENTED: u8 = 12;

/// Hears of every call, on the task where it happens; see [`crate::Builder::call_meter`]. It must
/// not block.
pub trait CallMeter: Send + Sync + 'static {
    /// A call begins, with its path, `/service/method`. The method's number comes back at the end,
    /// so that a path is looked up once; `None` when it is not known to be a method's yet: clients
    /// may send any path.
    fn started(&self, path: &str) -> Option<u32>;

    /// A path of which [`CallMeter::started`] did not know is a method's: there is an answer that
    /// is gRPC's and not UNIMPLEMENTED. Returns the method's number.
    fn known(&self, path: &str) -> u32;

    /// The call has ended; told once. Without a method the path was none.
    fn ended(&self, method: Option<u32>, end: &CallEnd);
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallEnd {
    /// Its `grpc-status`; `None` when the client was gone before its end, or the handler's response
    /// had none.
    pub status: Option<u8>,
    /// From its headers to its trailers.
    pub took: Duration,
    /// Bytes of messages that were sent: compressed, without framing.
    pub sent_bytes: u64,
    /// Bytes of messages that the handler received: compressed, without framing.
    pub received_bytes: u64,
}

/// The meter of a server's settings.
#[derive(Clone)]
pub(crate) struct Meter(pub(crate) Arc<dyn CallMeter>);

impl fmt::Debug for Meter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Meter")
    }
}

/// A call that is counted.
pub(crate) struct Metered {
    meter: Arc<dyn CallMeter>,
    method: Option<u32>,
    began: Instant,
    sent: MessageBytes,
    /// Where the request's body counts.
    received: Option<Arc<Progress>>,
}

impl Metered {
    pub(crate) fn begin(meter: &Meter, path: &str) -> Self {
        let method = meter.0.started(path);
        let (sent, received) = (MessageBytes::default(), None);
        Self { meter: meter.0.clone(), method, began: Instant::now(), sent, received }
    }

    pub(crate) fn receives(&mut self, progress: &Arc<Progress>) {
        self.received = Some(Arc::clone(progress));
    }

    /// The head of the response, of a call with this path.
    pub(crate) fn answered(&mut self, path: &str, head: &HeaderMap, status: Option<u8>) {
        let is_grpc = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        if self.method.is_none()
            && status != Some(UNIMPLEMENTED)
            && head.get(CONTENT_TYPE).is_some_and(is_grpc)
        {
            self.method = Some(self.meter.known(path));
        }
    }

    pub(crate) fn sends(&mut self, data: &[u8]) {
        self.sent.add(data);
    }

    pub(crate) fn end(self, status: Option<u8>) {
        let received_bytes = self.received.map_or(0, |progress| progress.received());
        let (took, sent_bytes) = (self.began.elapsed(), self.sent.total());
        self.meter.ended(self.method, &CallEnd { status, took, sent_bytes, received_bytes });
    }
}

/// A request's body on its way to the handler.
pub(crate) struct RequestBody {
    inner: Incoming,
    counted: Option<(MessageBytes, Arc<Progress>)>,
}

impl RequestBody {
    /// Counted into `progress`, if there is one.
    pub(crate) fn new(inner: Incoming, progress: Option<&Arc<Progress>>) -> Self {
        let counted = progress.map(|progress| (MessageBytes::default(), Arc::clone(progress)));
        Self { inner, counted }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { inner, counted } = &mut *self;
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        if let (Some((bytes, progress)), Some(Ok(frame))) = (counted, &frame)
            && let Some(data) = frame.data_ref()
        {
            progress.receive(bytes.add(data));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
