//! From ended spans to a collector. Whatever becomes of the collector, calls are unaffected: a span
//! that ends is put into a bounded list, and one task sends what is there. The SDK's processor does
//! the same on a thread of its own, but neither says what it dropped nor warns only once.

mod grpc;
mod http;
pub(crate) mod metrics;
mod queue;
mod tls;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use crate::{
    otlp::{ExportTraceServiceResponse, InstrumentationScope},
    settings::{Place, Protocol, Settings},
    wire::Wire,
};
pub(crate) use queue::Queue;
pub use queue::SpanCounts;

/// How often one batch is tried before it is dropped. With the waits that is half a minute.
const TRIES_MAX: u32 = 6;
/// The wait before the second try; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// Flushes that may be asked for at once.
const FLUSHES_MAX: usize = 8;

/// Why a request did not get through.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct ExportError {
    pub(crate) why: String,
    /// Another try may do better.
    pub(crate) is_passing: bool,
}

impl ExportError {
    pub(crate) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_passing: true }
    }

    pub(crate) fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_passing: false }
    }
}

/// What is sent: spans or metrics.
trait Signal {
    /// The path of its method.
    const METHOD: &'static str;
    type Response: grpc::Protobuf;
}

/// Spans.
struct Traces;

impl Signal for Traces {
    const METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    type Response = ExportTraceServiceResponse;
}

/// One of the two ways.
enum Transport {
    Grpc(grpc::Grpc),
    Http(http::Http),
}

impl Transport {
    fn new(place: &Place) -> Result<Self, String> {
        Ok(match place.protocol {
            Protocol::Grpc => Self::Grpc(grpc::Grpc::new(place)?),
            Protocol::HttpProtobuf => Self::Http(http::Http::new(place)?),
        })
    }

    /// One try with a request in Protobuf, which takes no longer than `within`.
    async fn send<S: Signal>(
        &mut self,
        request: Bytes,
        within: Duration,
    ) -> Result<S::Response, ExportError> {
        let sent = async {
            match self {
                Self::Grpc(grpc) => grpc.send::<S>(request).await,
                Self::Http(http) => http.send::<S>(request).await,
            }
        };
        let late = || ExportError::passing(format!("no answer within {within:?}"));
        tokio::time::timeout(within, sent).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Asks the exporter's task for a flush; it ends with the last of these.
#[derive(Clone)]
pub(crate) struct Flusher(mpsc::Sender<oneshot::Sender<()>>);

impl Flusher {
    /// Everything that has ended so far was sent, or dropped after one try.
    pub(crate) async fn flush(&self) {
        let (done, finished) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            finished.await.ok();
        }
    }
}

/// Starts the task on the current runtime.
///
/// # Errors
///
/// The collector's address can't be a channel's target.
pub(crate) fn start(settings: &Settings, queue: Arc<Queue>) -> Result<Flusher, String> {
    let place = &settings.place;
    let (asks, asked) = mpsc::channel(FLUSHES_MAX);
    let exporter = Exporter {
        transport: Transport::new(place)?,
        place: place.to_string(),
        timeout: place.timeout,
        delay: settings.delay,
        resource: settings.resource.encode_to_vec(),
        queue,
        retry: None,
        is_warned: false,
        dropped_before: 0,
        dropped_seen: 0,
    };
    tokio::spawn(exporter.run(asked));
    Ok(Flusher(asks))
}

/// Spans that go out together.
struct Batch {
    /// Written once, however often it is tried.
    request: Bytes,
    spans: u64,
    tries: u32,
}

/// A batch that is to be tried again.
struct Retry {
    batch: Batch,
    at: Instant,
}

struct Exporter {
    transport: Transport,
    /// For people.
    place: String,
    timeout: Duration,
    delay: Duration,
    /// In Protobuf.
    resource: Vec<u8>,
    queue: Arc<Queue>,
    retry: Option<Retry>,
    /// The present trouble was told.
    is_warned: bool,
    /// Dropped before the present trouble.
    dropped_before: u64,
    /// Dropped when the collector last took something.
    dropped_seen: u64,
}

impl Exporter {
    async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        loop {
            let (wake, waits) = match &self.retry {
                Some(retry) => (retry.at, true),
                None => (Instant::now() + self.delay, false),
            };
            tokio::select! {
                ask = asked.recv() => {
                    let Some(done) = ask else { return };
                    self.flush().await;
                    let _ = done.send(());
                }
                _ = sleep_until(wake) => self.send_all().await,
                _ = self.queue.filled(), if !waits => self.send_all().await,
            }
        }
    }

    /// Sends what there is, up to the first failure.
    async fn send_all(&mut self) {
        while let Some(mut batch) = self.next() {
            batch.tries += 1;
            match self.send(&batch).await {
                Ok(()) => {}
                Err(error) if error.is_passing && batch.tries < TRIES_MAX => {
                    self.warn(&error.why);
                    let at = Instant::now() + WAIT_FIRST * (1 << (batch.tries - 1));
                    self.retry = Some(Retry { batch, at });
                    return;
                }
                Err(error) => {
                    self.queue.lost(batch.spans);
                    self.warn(&error.why);
                    // What refuses one batch for good refuses the next as well: not in a loop.
                    return;
                }
            }
        }
    }

    /// One try for everything, and none after a failure: who asks is about to end.
    async fn flush(&mut self) {
        let mut is_broken = false;
        while let Some(batch) = self.next() {
            if is_broken {
                self.queue.lost(batch.spans);
            } else if let Err(error) = self.send(&batch).await {
                self.queue.lost(batch.spans);
                self.warn(&error.why);
                is_broken = true;
            }
        }
    }

    /// The batch that did not get through, or the next.
    fn next(&mut self) -> Option<Batch> {
        if let Some(retry) = self.retry.take() {
            return Some(retry.batch);
        }
        let spans = self.queue.take();
        let count = spans.len() as u64;
        (count > 0).then(|| Batch { request: self.request(&spans), spans: count, tries: 0 })
    }

    async fn send(&mut self, batch: &Batch) -> Result<(), ExportError> {
        let sent = self.transport.send::<Traces>(batch.request.clone(), self.timeout).await;
        sent.map(|response| self.accepted(batch.spans, response))
    }

    /// An `ExportTraceServiceRequest` with one `ResourceSpans` with one `ScopeSpans`, around spans
    /// that are written already.
    fn request(&self, spans: &[Vec<u8>]) -> Bytes {
        const HEADS_BYTES: usize = 64;
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let bytes: usize = spans.iter().map(|span| span.len() + size_of::<u32>()).sum();
        let mut wire = Wire::with_capacity(self.resource.len() + HEADS_BYTES + bytes);
        wire.inside(1, |resource_spans| {
            resource_spans.bytes(1, &self.resource);
            resource_spans.inside(2, |scope_spans| {
                scope_spans.bytes(1, &scope.encode_to_vec());
                for span in spans {
                    scope_spans.bytes(2, span);
                }
            });
        });
        wire.into_bytes().into()
    }

    fn accepted(&mut self, count: u64, response: ExportTraceServiceResponse) {
        let partial = response.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0).min(count);
        self.queue.sent(count - rejected);
        if rejected > 0 {
            self.queue.lost(rejected);
            let why: String = partial.error_message.chars().take(200).collect();
            self.warn(&format!("it rejected {rejected} spans: {why:?}"));
        }
        let dropped = self.queue.counts().dropped;
        let before = std::mem::replace(&mut self.dropped_seen, dropped);
        if dropped > before {
            self.warn("it does not take them as fast as they end");
        } else if std::mem::take(&mut self.is_warned) {
            let lost = dropped - self.dropped_before;
            info!("spans are taken again by {}; {lost} were dropped", self.place);
            self.dropped_before = dropped;
        }
    }

    /// Once for each trouble.
    fn warn(&mut self, why: &str) {
        if std::mem::replace(&mut self.is_warned, true) {
            return;
        }
        let (place, max) = (&self.place, self.queue.max());
        warn!(
            "spans can't be sent to {place}: {why}; calls are unaffected, up to {max} spans are \
             kept and more are dropped until it takes them"
        );
    }
}
