//! The stream to a balancer, `grpc.lb.v1.LoadBalancer/BalanceLoad`: the one watch on which we talk.
//!
//! Reports don't queue: one that the balancer has not taken yet is added to the next, so that a
//! balancer that reads slowly costs one report and no count is lost.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use evenkeel_core::{
    BalancerMessage, ClientStats, SECOND_NS, ServerEntry, WatchEvent, WatchMessage,
};
use evenkeel_proto::grpc::lb::v1::{
    ClientStats as WireStats, ClientStatsPerToken, InitialLoadBalanceRequest, LoadBalanceRequest,
    LoadBalanceResponse, load_balance_request::LoadBalanceRequestType as Request,
    load_balance_response::LoadBalanceResponseType as Answer,
    load_balancer_client::LoadBalancerClient,
};
use futures_util::{
    StreamExt as _,
    stream::{BoxStream, Stream},
};
use http::uri::Authority;
use tokio::{sync::Notify, time::sleep};

use super::events;
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

/// What a message says; one of a kind that we don't know says nothing.
fn event(message: LoadBalanceResponse) -> Option<WatchEvent> {
    let message = match message.load_balance_response_type? {
        Answer::InitialResponse(initial) => {
            let report_interval_ns = initial.client_stats_report_interval.and_then(|interval| {
                // By hand: prost's own conversion overflows on what no duration is. A negative one
                // is none, as 0 is.
                let seconds = u64::try_from(interval.seconds).ok()?;
                let nanos = u64::try_from(interval.nanos).ok()?;
                let ns = seconds.checked_mul(SECOND_NS)?.checked_add(nanos)?;
                (ns > 0).then_some(ns)
            });
            BalancerMessage::Initial { report_interval_ns }
        }
        Answer::ServerList(list) => {
            let entry = |server: evenkeel_proto::grpc::lb::v1::Server| ServerEntry {
                address: server.ip_address,
                port: server.port,
                token: server.load_balance_token,
                drop: server.drop,
            };
            BalancerMessage::List(list.servers.into_iter().map(entry).collect())
        }
        Answer::FallbackResponse(_) => BalancerMessage::Fallback,
    };
    Some(WatchEvent::Balancer(message))
}

fn on_the_wire(report: ClientStats) -> LoadBalanceRequest {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let drops = report.drops.iter().map(|(token, calls)| ClientStatsPerToken {
        load_balance_token: token.to_string(),
        num_calls: count(*calls),
    });
    let stats = WireStats {
        timestamp: Some(SystemTime::now().into()),
        num_calls_started: count(report.started),
        num_calls_finished: count(report.finished),
        num_calls_finished_with_client_failed_to_send: count(report.failed_to_send),
        num_calls_finished_known_received: count(report.known_received),
        calls_finished_with_drop: drops.collect(),
    };
    let stats = Request::ClientStats(stats);
    LoadBalanceRequest { load_balance_request_type: Some(stats) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use evenkeel_proto::grpc::lb::v1::{
        FallbackResponse, InitialLoadBalanceResponse, Server, ServerList,
    };
    use futures_util::FutureExt as _;

    use super::*;

    fn says(answer: Answer) -> Option<WatchEvent> {
        event(LoadBalanceResponse { load_balance_response_type: Some(answer) })
    }

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

    #[test]
    fn counts_go_out_as_the_protocol_has_them() {
        let sent = on_the_wire(ClientStats {
            started: 5,
            finished: 4,
            failed_to_send: 1,
            known_received: u64::MAX,
            drops: BTreeMap::from([("a".into(), 2), ("".into(), 1)]),
        });
        let Some(Request::ClientStats(stats)) = sent.load_balance_request_type else {
            panic!("a report is sent");
        };
        assert!(stats.timestamp.is_some());
        assert_eq!((stats.num_calls_started, stats.num_calls_finished), (5, 4));
        assert_eq!(stats.num_calls_finished_with_client_failed_to_send, 1);
        assert_eq!(stats.num_calls_finished_known_received, i64::MAX);
        let drops: Vec<_> = (stats.calls_finished_with_drop.iter())
            .map(|drop| (drop.load_balance_token.as_str(), drop.num_calls))
            .collect();
        assert_eq!(drops, [("", 1), ("a", 2)]);
    }

    #[test]
    fn messages_are_read_as_they_are() {
        let initial = |seconds, nanos| {
            let mut response = InitialLoadBalanceResponse::default();
            let interval = response.client_stats_report_interval.get_or_insert_default();
            (interval.seconds, interval.nanos) = (seconds, nanos);
            says(Answer::InitialResponse(response))
        };
        let wants =
            |ns| Some(WatchEvent::Balancer(BalancerMessage::Initial { report_interval_ns: ns }));
        assert_eq!(initial(1, 500_000_000), wants(Some(1_500_000_000)));
        for (seconds, nanos) in [(0, 0), (-1, 0), (0, -5), (i64::MAX, 0), (i64::MIN, i32::MIN)] {
            assert_eq!(initial(seconds, nanos), wants(None), "{seconds} {nanos}");
        }
        assert_eq!(
            says(Answer::InitialResponse(InitialLoadBalanceResponse::default())),
            wants(None)
        );
        let server = Server {
            ip_address: vec![1, 2, 3],
            port: -7,
            load_balance_token: "t".into(),
            drop: true,
        };
        let want = ServerEntry { address: vec![1, 2, 3], port: -7, token: "t".into(), drop: true };
        let want = WatchEvent::Balancer(BalancerMessage::List(vec![want]));
        assert_eq!(says(Answer::ServerList(ServerList { servers: vec![server] })), Some(want));
        let want = Some(WatchEvent::Balancer(BalancerMessage::Fallback));
        assert_eq!(says(Answer::FallbackResponse(FallbackResponse {})), want);
        assert_eq!(event(LoadBalanceResponse::default()), None);
    }
}
