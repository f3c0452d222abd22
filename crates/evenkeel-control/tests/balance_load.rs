//! The protocol as a client of it sees it: messages in, messages out, and how streams end. Over
//! the service alone, without sockets, so that time can stand still.

mod client;

use std::time::Duration;

use client::{Answer, Client, Stage, config, initial, key, stats};
use evenkeel_control::{
    Refusal, Warning,
    config::Config,
    grpclb::{self, FIRST_MESSAGE_WAIT, MESSAGE_BYTES_MAX, STATS_BURST},
    merge::Change,
    snapshot::Endpoint,
};
use evenkeel_proto::grpc::lb::v1::{ClientStatsPerToken, LoadBalanceRequest};
use tonic::Code;

const THREE: &str = "
services:
- name: greeter
  aliases: [greeter.test]
  endpoints: [{address: \"127.0.0.1:1\"}, {address: \"127.0.0.2:2\"}, {address: \"[::1]:3\"}]
- name: watched
";

fn stage() -> Stage {
    Stage::new(THREE)
}

#[tokio::test(start_paused = true)]
async fn the_interval_comes_first_and_then_the_list_with_tokens() {
    let stage = stage();
    let mut client = stage.client("greeter.test:8000");
    assert_eq!(client.next().await, Answer::Initial(Some(Duration::from_secs(10))));
    let servers = client.servers().await;
    let shown: Vec<_> = servers.iter().map(|s| (s.ip_address.len(), s.port, s.drop)).collect();
    assert_eq!(shown, [(4, 1, false), (4, 2, false), (16, 3, false)]);
    for server in &servers {
        let endpoint = grpclb::decode_token(&server.load_balance_token).expect("a token of ours");
        assert_eq!(i32::from(endpoint.port()), server.port);
    }
    client.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn changes_follow_and_what_stays_has_its_token() {
    let stage = stage();
    let mut client = stage.client("greeter");
    client.next().await;
    let before = client.servers().await;
    let list = "[{address: \"127.0.0.1:1\"}, {address: \"127.0.0.9:9\"}]";
    stage.control.configure(&config(&format!("services: [{{name: greeter, endpoints: {list}}}]")));
    let after = client.servers().await;
    assert_eq!(after.len(), 2);
    assert_eq!(after[0], before[0]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_first_sync_and_an_empty_list_after_it() {
    let stage = stage();
    let mut client = stage.client("watched");
    assert!(matches!(client.next().await, Answer::Initial(_)));
    client.is_quiet().await;
    stage.control.watched(&key("watched"), Change::Replace(Vec::new()));
    assert_eq!(client.servers().await, []);
    let endpoint = Endpoint::new(([127, 0, 0, 1], 1).into());
    stage.control.watched(&key("watched"), Change::Replace(vec![endpoint]));
    assert_eq!(client.servers().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn clients_begin_at_different_places() {
    let stage = stage();
    let mut firsts = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = stage.client("greeter");
        client.next().await;
        firsts.push(client.servers().await[0].port);
        clients.push(client);
    }
    firsts.sort_unstable();
    assert_eq!(firsts, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn drops_and_weights_are_entries() {
    let stage = Stage::new(
        "
services:
- name: greeter
  endpoints: [{address: \"127.0.0.1:1\", weight: 2}, {address: \"127.0.0.2:2\"}]
  drops: [{category: overload, percent: 25}]
",
    );
    let mut client = stage.client("greeter");
    client.next().await;
    let servers = client.servers().await;
    let count = |port| servers.iter().filter(|server| server.port == port).count();
    assert_eq!((count(1), count(2), count(0)), (2, 1, 1));
    let drop = servers.iter().find(|server| server.drop).expect("one");
    assert_eq!(drop.load_balance_token, "drop-overload");
}

#[tokio::test(start_paused = true)]
async fn a_subset_is_as_large_as_configured() {
    let endpoints: Vec<String> =
        (1..=40).map(|port| format!("{{address: \"127.0.0.1:{port}\"}}")).collect();
    let list = endpoints.join(", ");
    let yaml = format!("services: [{{name: a, endpoints: [{list}], subset: {{size: 10}}}}]");
    let stage = Stage::new(&yaml);
    let mut ports = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = stage.client("a");
        client.next().await;
        let servers = client.servers().await;
        assert_eq!(servers.len(), 10);
        ports.extend(servers.iter().map(|server| server.port));
        clients.push(client);
    }
    ports.sort_unstable();
    assert_eq!(ports, (1..=40).collect::<Vec<_>>(), "four clients tile the ring");
}

/// It has begun a list when the others come; of those only the newest is left when it reads again.
#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_the_newest_list_and_no_backlog() {
    let stage = stage();
    let mut client = stage.client("greeter");
    client.next().await;
    client.servers().await;
    for port in 1..=100_u16 {
        let yaml = format!(
            "services: [{{name: greeter, endpoints: [{{address: \"127.0.0.1:{port}\"}}]}}]"
        );
        stage.control.configure(&config(&yaml));
    }
    assert_eq!(client.servers().await[0].port, 100);
    client.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_goes_ends_its_streams_with_not_found() {
    let stage = stage();
    let mut client = stage.client("greeter");
    client.next().await;
    client.servers().await;
    stage.control.configure(&Config::default());
    let message = client.ended(Code::NotFound).await;
    assert!(message.contains("greeter.default is not served"), "{message}");
    assert_eq!(stage.grpclb.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn streams_end_one_after_the_other_when_the_balancer_drains() {
    let stage = stage();
    let mut clients = Vec::new();
    for name in ["greeter", "watched"] {
        let mut client = stage.client(name);
        client.next().await;
        clients.push(client);
    }
    clients[0].servers().await;
    clients.push(stage.silent());
    stage.grpclb.end_streams();
    for mut client in clients {
        let message = client.ended(Code::Unavailable).await;
        assert!(message.contains("ask another one"), "{message}");
    }
    let mut late = stage.client("greeter");
    late.ended_at_last(Code::Unavailable).await;
}

#[tokio::test(start_paused = true)]
async fn what_clients_report_adds_up_in_the_status() {
    let stage = Stage::new(&format!("{THREE}  drops: [{{category: a, percent: 50}}]\n"));
    let mut client = stage.client("watched");
    client.next().await;
    let mut report = stats(10, 0);
    report.num_calls_finished = 8;
    report.num_calls_finished_with_client_failed_to_send = 1;
    report.num_calls_finished_known_received = 5;
    report.calls_finished_with_drop =
        vec![ClientStatsPerToken { load_balance_token: "drop-a".into(), num_calls: 2 }];
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(10)).await;
        client.report(report.clone());
        client.is_quiet().await;
    }
    let status = stage.status();
    let watched = status.services.iter().find(|s| s.service == key("watched")).expect("served");
    let sums = &watched.client_stats;
    assert_eq!((sums.reports, sums.started, sums.finished), (3, 30, 24));
    assert_eq!((sums.failed_to_send, sums.known_received), (3, 15));
    assert_eq!(sums.dropped, [("drop-a".to_owned(), 6)].into());
    assert_eq!(status.warnings, [].into());
    assert_eq!(status.clients[0].reports, 3);
    let metrics = stage.metrics();
    let line = "evenkeel_balancer_client_calls_dropped_total{service=\"watched.default\",\
                token=\"drop-a\"} 6";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn bad_names_end_the_stream_with_a_reason() {
    let long = "a".repeat(300);
    let huge = "a".repeat(100 * 1024);
    for (name, code, why, refusal) in [
        ("no-such", Code::NotFound, "greeter.default, watched.default", Refusal::UnknownName),
        ("", Code::InvalidArgument, "an empty name", Refusal::BadName),
        (&long[..], Code::InvalidArgument, "300 bytes", Refusal::BadName),
        (&huge[..], Code::OutOfRange, "65536", Refusal::BadMessage),
    ] {
        let stage = stage();
        let message = stage.client(name).ended(code).await;
        assert!(message.contains(why), "{message}");
        assert_eq!(stage.refused(refusal), 1, "{refusal:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_the_wrong_order_ends_the_stream() {
    let stage = stage();
    let mut client = stage.silent();
    client.report(stats(1, 0));
    let message = client.ended(Code::InvalidArgument).await;
    assert!(message.contains("initial request first"), "{message}");
    assert_eq!(stage.refused(Refusal::NotInitial), 1);

    let mut client = stage.silent();
    client.send(LoadBalanceRequest::default());
    client.ended(Code::InvalidArgument).await;

    let mut client = stage.client("greeter");
    client.next().await;
    client.servers().await;
    client.send(initial("greeter"));
    let message = client.ended(Code::InvalidArgument).await;
    assert!(message.contains("second initial request"), "{message}");
    assert_eq!(stage.refused(Refusal::SecondInitial), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let stage = stage();
    let begun = tokio::time::Instant::now();
    let mut client = stage.silent();
    client.ended_at_last(Code::DeadlineExceeded).await;
    assert_eq!(begun.elapsed().as_secs(), FIRST_MESSAGE_WAIT.as_secs());
    assert_eq!(stage.refused(Refusal::NoInitial), 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_end_the_stream() {
    for bytes in [&b"\0\0\0\0\x02\xff\xff"[..], b"\x01\0\0\0\x01\0", b"\x07\0\0\0\0"] {
        let stage = stage();
        let mut client = stage.silent();
        client.send_raw(bytes);
        assert!(matches!(client.next().await, Answer::Ended(code, _) if code != Code::Ok));
        assert_eq!(stage.refused(Refusal::BadMessage), 1, "{bytes:?}");
    }
    let stage = stage();
    let mut client = stage.silent();
    client.send_raw(&[&[0][..], &(MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes()].concat());
    client.ended(Code::OutOfRange).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_done_gets_its_end() {
    let stage = stage();
    let mut client = stage.client("watched");
    client.next().await;
    client.finish();
    client.ended(Code::Ok).await;
    assert_eq!(stage.grpclb.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn reports_that_can_not_be_are_counted_and_the_stream_goes_on() {
    let stage = stage();
    let mut client = stage.client("watched");
    client.next().await;
    for (report, warning) in [
        (stats(1, 100), None),
        (stats(1, 50), Some(Warning::StatsBackwards)),
        (stats(-5, 100), Some(Warning::StatsNegative)),
        (stats(i64::MAX, 101), Some(Warning::StatsTooLarge)),
    ] {
        tokio::time::advance(Duration::from_secs(10)).await;
        client.report(report);
        client.is_quiet().await;
        if let Some(warning) = warning {
            assert_eq!(stage.status().warnings[warning.name()], 1, "{warning:?}");
        }
    }
    for _ in 0..4 {
        client.report(stats(1, 200));
        client.is_quiet().await;
    }
    let early = stage.status().warnings[Warning::StatsEarly.name()];
    assert!((1..=2).contains(&early), "{early}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_reports_ends_the_stream() {
    let stage = stage();
    let mut client = stage.client("watched");
    client.next().await;
    for _ in 0..=STATS_BURST {
        client.report(stats(1, 0));
    }
    let message = client.ended(Code::ResourceExhausted).await;
    assert!(message.contains("every 10s"), "{message}");
    assert_eq!(stage.refused(Refusal::StatsFlood), 1);
}

#[tokio::test(start_paused = true)]
async fn streams_have_a_limit_and_their_room_comes_back() {
    let stage =
        Stage::new(&format!("{THREE}limits: {{streams_max: 3, streams_per_peer_max: 2}}\n"));
    let one = stage.client("greeter");
    let _two = stage.client("greeter");
    let (code, message) = stage.refused_at_once().await;
    assert_eq!(code, Code::ResourceExhausted);
    assert!(message.contains("at most 2 streams from one address"), "{message}");
    let _other = stage.client_from("greeter", "127.0.0.9:1");
    let (_, message) = stage.refused_at_once().await;
    assert!(message.contains("at most 3 streams on this balancer"), "{message}");
    drop(one);
    stage.client_from("greeter", "127.0.0.9:2").next().await;
}

#[tokio::test(start_paused = true)]
async fn compression_and_other_methods_are_not_offered() {
    let stage = stage();
    let gzip = |request: &mut http::Request<tonic::body::Body>| {
        request.headers_mut().insert("grpc-encoding", "gzip".parse().expect("a value"));
    };
    let (code, message) = stage.call(gzip).await.expect_err("refused");
    assert_eq!((code, message.contains("not compressed")), (Code::Unimplemented, true));
    let other = |request: &mut http::Request<tonic::body::Body>| {
        *request.uri_mut() = "/grpc.lb.v1.LoadBalancer/Other".parse().expect("a path");
    };
    let (code, message) = stage.call(other).await.expect_err("refused");
    assert_eq!((code, message.contains("BalanceLoad")), (Code::Unimplemented, true));
}

/// Many streams, each of which has its list: nothing is kept when they are gone.
#[tokio::test(start_paused = true)]
async fn clients_that_are_gone_leave_nothing() {
    let stage = stage();
    let mut clients: Vec<Client> = (0..100).map(|_| stage.client("greeter")).collect();
    for client in &mut clients {
        client.next().await;
        client.servers().await;
    }
    let status = stage.status();
    assert_eq!((status.clients.len(), status.clients_total), (100, 100));
    drop(clients);
    let status = stage.status();
    let greeter = &status.services[0];
    assert_eq!((stage.grpclb.streams(), status.clients_total, greeter.streams), (0, 0, 0));
    assert_eq!((greeter.streams_total, greeter.lists_sent), (100, 100));
}
