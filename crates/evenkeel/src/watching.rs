//! The streams behind the engine's watches. They run inside the driver's task, not in tasks of
//! their own: what they tell is the driver's business anyway, a slow driver slows the server by
//! HTTP/2's windows instead of filling a queue, and nothing can outlive the driver.
//!
//! Another kind of watch is another arm in [`Watches::start`]: a generated client on top of
//! [`Pinned`], and a function that makes an event of a message. One that also sends gives its
//! client a stream of requests and keeps the sender beside the handle.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use evenkeel_core::{Code, ServingStatus, Status as CoreStatus, Watch, WatchEvent, WatchId};
use evenkeel_proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus as WireStatus,
    health_client::HealthClient,
};
use futures_util::{
    FutureExt as _, StreamExt as _, TryFutureExt as _,
    future::{AbortHandle, Abortable},
    stream::{self, BoxStream, SelectAll, Stream},
};

use crate::{
    call::Pinned,
    edge::{self, Response, Status, Streaming},
};

/// The largest message of a health service, in bytes; its one field takes two.
const HEALTH_MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// The watches of one channel.
#[derive(Default)]
pub(crate) struct Watches {
    streams: SelectAll<Abortable<BoxStream<'static, (WatchId, WatchEvent)>>>,
    /// By watch, until it ends.
    handles: BTreeMap<WatchId, AbortHandle>,
    /// A server without a health service was logged.
    warned: Arc<AtomicBool>,
}

impl Watches {
    /// Starts a watch's stream; `pinned` sends on its subchannel's connection.
    pub(crate) fn start(&mut self, id: WatchId, watch: Watch, pinned: Pinned) {
        let events = match watch {
            Watch::Health { service } => self.health(&service, pinned),
            other => {
                let text = format!("this channel has no stream for {other:?}");
                let ended = WatchEvent::Ended(CoreStatus::new(Code::Unimplemented, text));
                stream::iter([ended]).boxed()
            }
        };
        let (handle, registration) = AbortHandle::new_pair();
        let events = events.map(move |event| (id, event)).boxed();
        self.streams.push(Abortable::new(events, registration));
        self.handles.insert(id, handle);
    }

    /// Cancels a watch's stream, unless it ended already. It is dropped when it is polled next,
    /// which [`Watches::next`] does.
    pub(crate) fn stop(&mut self, id: WatchId) {
        if let Some(handle) = self.handles.remove(&id) {
            handle.abort();
        }
    }

    /// The next event of any of them; never when there is none.
    pub(crate) async fn next(&mut self) -> (WatchId, WatchEvent) {
        match self.streams.next().await {
            Some((id, event)) => {
                if let WatchEvent::Ended(_) = event {
                    self.handles.remove(&id);
                }
                (id, event)
            }
            None => std::future::pending().await,
        }
    }

    /// The next event, if it is there already.
    pub(crate) fn next_ready(&mut self) -> Option<(WatchId, WatchEvent)> {
        self.next().now_or_never()
    }

    /// gRFC A17.
    fn health(&self, service: &str, pinned: Pinned) -> BoxStream<'static, WatchEvent> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let (warned, name) = (self.warned.clone(), pinned.to_string());
        let client = HealthClient::new(pinned.clone());
        let opened = async move {
            client.max_decoding_message_size(HEALTH_MESSAGE_BYTES_MAX).watch(request).await
        };
        let status = |response: HealthCheckResponse| {
            WatchEvent::Health(match response.status() {
                WireStatus::Unknown => ServingStatus::Unknown,
                WireStatus::Serving => ServingStatus::Serving,
                WireStatus::NotServing => ServingStatus::NotServing,
                WireStatus::ServiceUnknown => ServingStatus::ServiceUnknown,
            })
        };
        let warn_once = move |event: &WatchEvent| {
            let off = matches!(event, WatchEvent::Ended(s) if s.code == Code::Unimplemented);
            if off && !warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "{name} has no grpc.health.v1.Health/Watch: it and all servers like it count \
                     as healthy, whatever healthCheckConfig says; said once per channel"
                );
            }
        };
        events(pinned, opened, status).inspect(warn_once).boxed()
    }
}

/// The messages of a stream as events, and its end. An end that comes with the connection's is not
/// told: the engine hears of the connection and then wants no more of the stream, and news of a
/// failed stream beforehand would fail calls that can wait for the next connection.
fn events<T: Send + 'static>(
    pinned: Pinned,
    opened: impl Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
    event: fn(T) -> WatchEvent,
) -> impl Stream<Item = WatchEvent> + Send {
    let messages = opened.map_ok(Response::into_inner).try_flatten_stream().boxed();
    stream::unfold(Some((pinned, messages)), move |state| async move {
        let (pinned, mut messages) = state?;
        let ended = match messages.next().await {
            Some(Ok(message)) => return Some((event(message), Some((pinned, messages)))),
            Some(Err(status)) => edge::core_status(&status),
            None => CoreStatus::new(Code::Ok, "the server ended the stream"),
        };
        if pinned.is_ending() {
            std::future::pending::<()>().await;
        }
        Some((WatchEvent::Ended(ended), None))
    })
}
