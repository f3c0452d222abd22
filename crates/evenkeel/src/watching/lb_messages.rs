//! Between a balancer's messages on the wire and those of the core. Apart from their stream, so
//! that whatever bytes a balancer sends can be tried without one.

use std::time::SystemTime;

use evenkeel_core::{BalancerMessage, ClientStats, SECOND_NS, ServerEntry, WatchEvent};
use evenkeel_proto::grpc::lb::v1::{
    ClientStats as WireStats, ClientStatsPerToken, LoadBalanceRequest, LoadBalanceResponse, Server,
    load_balance_request::LoadBalanceRequestType as Request,
    load_balance_response::LoadBalanceResponseType as Answer,
};

/// What a message says; one of a kind that we don't know says nothing.
pub(super) fn event(message: LoadBalanceResponse) -> Option<WatchEvent> {
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
            let entry = |server: Server| ServerEntry {
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

pub(super) fn on_the_wire(report: ClientStats) -> LoadBalanceRequest {
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

    use super::*;

    fn says(answer: Answer) -> Option<WatchEvent> {
        event(LoadBalanceResponse { load_balance_response_type: Some(answer) })
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
