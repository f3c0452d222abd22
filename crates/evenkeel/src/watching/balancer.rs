//! The stream to a balancer, `grpc.lb.v1.LoadBalancer/BalanceLoad`: the one watch on which we talk.
//!
//! Reports don't queue: one that the balancer has not taken yet is added to the next, so that a
//! balancer that reads slowly costs one report and no count is lost.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use evenkeel_core::{ClientStats, WatchEvent, WatchMessage};
use evenkeel_proto::grpc::lb::v1::{
    InitialLoadBalanceRequest, LoadBalanceRequest,
    load_balance_request::LoadBalanceRequestType as Request,
    load_balancer_client::LoadBalancerClient,
};
use futures_util::{
    StreamExt as _,
    stream::{BoxStream, Stream},
};
use http::uri::Authority;
use tokio::{sync::Notify, time::sleep};

use super::{
    events,
    lb_messages::{event, on_the_wire},
};
use crate::call::Pinned;

/// The largest message of a balancer, in bytes: gRPC's own default. A list of 65,536 IPv4 servers
/// with tokens of 20 bytes has 2.5 MB.
const BALANCER_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a balancer has to end a stream that we have ended; then it is reset.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// What is still to be said on a stream.
#[derive(Default)]
struct Words {
    initial: Option<LoadBalanceRequest>,
    report: Option<ClientStats>,
    closed: bool,
    waker: Option<Waker>,
}

/// Our half of a stream.
#[derive(Clone, Default)]
pub(super) struct Outbox {
    words: Arc<Mutex<Words>>,
    closed: Arc<Notify>,
}

impl Outbox {
    fn new(service: &str) -> Self {
        let outbox = Self::default();
        let initial = InitialLoadBalanceRequest { name: service.to_owned() };
        let initial = Request::InitialRequest(initial);
        outbox.lock().initial =
            Some(LoadBalanceRequest { load_balance_request_type: Some(initial) });
        outbox
    }

    /// Says something, when the balancer takes it.
    pub(super) fn say(&self, message: WatchMessage) {
        let WatchMessage::ClientStats(report) = message else { return };
        self.change(|words| match &mut words.report {
            Some(waiting) => waiting.add(report),
            none => *none = Some(report),
        });
    }

    /// Ends our half after what was said.
    pub(super) fn close(&self) {
        self.change(|words| words.closed = true);
        self.closed.notify_one();
    }

    fn change(&self, change: impl FnOnce(&mut Words)) {
        let waker = {
            let mut words = self.lock();
            change(&mut words);
            words.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// No code that holds the lock can panic; should it ever, the data is whole all the same.
    fn lock(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream for Outbox {
    type Item = LoadBalanceRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LoadBalanceRequest>> {
        let mut words = self.lock();
        if let Some(initial) = words.initial.take() {
            return Poll::Ready(Some(initial));
        }
        if let Some(report) = words.report.take() {
            return Poll::Ready(Some(on_the_wire(report)));
        }
        if words.closed {
            return Poll::Ready(None);
        }
        words.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Opens the stream. It ends at the latest [`GOODBYE`] after its outbox was closed.
pub(super) fn start(
    service: &str,
    authority: Option<&str>,
    pinned: Pinned,
) -> (Outbox, BoxStream<'static, WatchEvent>) {
    let outbox = Outbox::new(service);
    // A name that is no authority is not ours to refuse: the balancer sees the channel's own.
    let authority = authority.and_then(|text| text.parse::<Authority>().ok());
    let pinned = pinned.with_authority(authority);
    let client = LoadBalancerClient::new(pinned.clone());
    let words = outbox.clone();
    let opened = async move {
        client.max_decoding_message_size(BALANCER_MESSAGE_BYTES_MAX).balance_load(words).await
    };
    let closed = outbox.closed.clone();
    let over = async move {
        closed.notified().await;
        sleep(GOODBYE).await;
    };
    let told = events(pinned, opened, event).take_until(Box::pin(over)).boxed();
    (outbox, told)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::FutureExt as _;

    use super::*;

    fn report(started: u64) -> ClientStats {
        let drops = BTreeMap::from([("lb".into(), started)]);
        ClientStats { started, finished: 2 * started, drops, ..ClientStats::default() }
    }

    /// The started calls of the next report, or 0 for the initial request.
    fn next(outbox: &mut Outbox) -> Option<Option<i64>> {
        let next = outbox.next().now_or_never()?;
        Some(next.map(|request| match request.load_balance_request_type {
            Some(Request::ClientStats(stats)) => stats.num_calls_started,
            _ => 0,
        }))
    }

    #[test]
    fn the_initial_request_comes_first_and_reports_add_up() {
        let mut outbox = Outbox::new("greeter");
        outbox.say(WatchMessage::ClientStats(report(2)));
        outbox.say(WatchMessage::ClientStats(report(3)));
        assert_eq!(next(&mut outbox), Some(Some(0)));
        assert_eq!(next(&mut outbox), Some(Some(5)));
        assert_eq!(next(&mut outbox), None);
        outbox.say(WatchMessage::ClientStats(report(7)));
        outbox.close();
        assert_eq!(next(&mut outbox), Some(Some(7)));
        assert_eq!(next(&mut outbox), Some(None));
    }
}
