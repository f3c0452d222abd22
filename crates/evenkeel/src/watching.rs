//! The streams behind the engine's watches. They run inside the driver's task, not in tasks of
//! their own: what they tell is the driver's business anyway, a slow driver slows the server by
//! HTTP/2's windows instead of filling a queue, and nothing can outlive the driver.
//!
//! Another kind of watch is another arm in [`Watches::start`]: a generated client on top of
//! [`Pinned`], and a function that makes an event of a message. One that also sends (`balancer`)
//! gives its client a stream of requests and keeps the sender beside the handle.

mod balancer;
mod lb_messages;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use evenkeel_core::{
    Code, ServingStatus, Status as CoreStatus, Watch, WatchEvent, WatchId, WatchMessage,
};
use evenkeel_proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus as WireStatus,
    health_client::HealthClient,
};
use futures_util::{
    FutureExt as _, StreamExt as _, TryFutureExt as _,
    future::{AbortHandle, Abortable},
    stream::{self, BoxStream, SelectAll, Stream},
};

pub(crate) use balancer::GOODBYE;
use balancer::Outbox;

use crate::{
    call::Pinned,
    edge::{self, Response, Status, Streaming},
};

/// The largest message of a health service, in bytes; its one field takes two.
const HEALTH_MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// How a stream that runs is talked to, and ended.
enum Handle {
    /// It only listens, and can be dropped at any time.
    Listens(AbortHandle),
    /// We talk, and say goodbye.
    Talks(Outbox),
}

/// The watches of one channel.
#[derive(Default)]
pub(crate) struct Watches {
    streams: SelectAll<Abortable<BoxStream<'static, (WatchId, WatchEvent)>>>,
    /// By watch, until it ends or nobody wants it any more.
    handles: BTreeMap<WatchId, Handle>,
    /// A server without a health service was logged.
    warned: Arc<AtomicBool>,
}

impl Watches {
    /// Starts a watch's stream; `pinned` sends on its subchannel's connection.
    pub(crate) fn start(&mut self, id: WatchId, watch: Watch, pinned: Pinned) {
        let events = match watch {
            Watch::Health { service } => self.health(&service, pinned),
            Watch::Balancer { service, authority } => {
                let (outbox, events) = balancer::start(&service, authority.as_deref(), pinned);
                let (_, registration) = AbortHandle::new_pair();
                let events = events.map(move |event| (id, event)).boxed();
                self.streams.push(Abortable::new(events, registration));
                self.handles.insert(id, Handle::Talks(outbox));
                return;
            }
            other => {
                let text = format!("this channel has no stream for {other:?}");
                let ended = WatchEvent::Ended(CoreStatus::new(Code::Unimplemented, text));
                stream::iter([ended]).boxed()
            }
        };
        let (handle, registration) = AbortHandle::new_pair();
        let events = events.map(move |event| (id, event)).boxed();
        self.streams.push(Abortable::new(events, registration));
        self.handles.insert(id, Handle::Listens(handle));
    }

    /// Says something on a watch's stream, unless it ended already.
    pub(crate) fn send(&mut self, id: WatchId, message: WatchMessage) {
        if let Some(Handle::Talks(outbox)) = self.handles.get(&id) {
            outbox.say(message);
        }
    }

    /// Ends a watch's stream, unless it ended already. [`Watches::next`] has to be polled for it to
    /// be dropped, or for the balancer to hear what was said last.
    pub(crate) fn stop(&mut self, id: WatchId) {
        match self.handles.remove(&id) {
            Some(Handle::Listens(handle)) => handle.abort(),
            Some(Handle::Talks(outbox)) => outbox.close(),
            None => {}
        }
    }

    /// Ends all streams on which there is nothing to say.
    pub(crate) fn stop_listening(&mut self) {
        self.handles.retain(|_, handle| {
            if let Handle::Listens(handle) = handle {
                handle.abort();
            }
            matches!(handle, Handle::Talks(_))
        });
        // Polled once, so that those that were aborted are dropped.
        let _ = self.next_ready();
    }

    /// How many streams there are, those that only say goodbye included.
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Until the last stream is over; what they still tell is of no use.
    pub(crate) async fn all_over(&mut self) {
        while self.streams.next().await.is_some() {}
    }

    /// The next event of any of them; never when there is none.
    pub(crate) async fn next(&mut self) -> (WatchId, WatchEvent) {
        while let Some((id, event)) = self.streams.next().await {
            let known = match event {
                WatchEvent::Ended(_) => self.handles.remove(&id).is_some(),
                _ => self.handles.contains_key(&id),
            };
            // What a stream tells after nobody wants it any more is nobody's.
            if known {
                return (id, event);
            }
        }
        std::future::pending().await
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
            Some(WatchEvent::Health(match response.status() {
                WireStatus::Unknown => ServingStatus::Unknown,
                WireStatus::Serving => ServingStatus::Serving,
                WireStatus::NotServing => ServingStatus::NotServing,
                WireStatus::ServiceUnknown => ServingStatus::ServiceUnknown,
            }))
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

/// The messages of a stream that mean something as events, and its end. An end that comes with the
/// connection's is not told: the engine hears of the connection and then wants no more of the
/// stream, and news of a failed stream beforehand would fail calls that can wait for the next
/// connection.
fn events<T: Send + 'static>(
    pinned: Pinned,
    opened: impl Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
    event: fn(T) -> Option<WatchEvent>,
) -> impl Stream<Item = WatchEvent> + Send {
    let messages = opened.map_ok(Response::into_inner).try_flatten_stream().boxed();
    stream::unfold(Some((pinned, messages)), move |state| async move {
        let (pinned, mut messages) = state?;
        let ended = loop {
            match messages.next().await {
                Some(Ok(message)) => {
                    let Some(event) = event(message) else { continue };
                    return Some((event, Some((pinned, messages))));
                }
                Some(Err(status)) => break edge::core_status(&status),
                None => break CoreStatus::new(Code::Ok, "the server ended the stream"),
            }
        };
        if pinned.is_ending() {
            std::future::pending::<()>().await;
        }
        Some((WatchEvent::Ended(ended), None))
    })
}
