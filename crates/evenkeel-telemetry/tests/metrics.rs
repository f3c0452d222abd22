//! From a channel and a server to a receiver of OTLP and to a page for Prometheus: what was counted
//! is what was done, by gRPC's names.

mod receiver;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use evenkeel::Channel;
use evenkeel_telemetry::{
    Telemetry,
    metrics::{Family, INSTRUMENTS, Kind, Value},
    otlp::metrics::{AggregationTemporality, Data, Metric, NumberValue},
};
use helloworld::{HelloReply, HelloRequest, greeter_client::GreeterClient};
use http::uri::PathAndQuery;
use receiver::{LIMIT, Receiver, attributes, greeters::greeter};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tonic::{Code, Request, Status};

const METHOD: &str = "helloworld.Greeter/SayHello";

async fn call(channel: &Channel, name: &str) -> Result<String, Status> {
    let request = Request::new(HelloRequest { name: name.into() });
    let mut client = GreeterClient::new(channel.clone());
    let answer = timeout(LIMIT, client.say_hello(request)).await.expect("in time");
    answer.map(|response| response.into_inner().message)
}

fn target(backends: &[SocketAddr]) -> String {
    let list: Vec<String> = backends.iter().map(ToString::to_string).collect();
    format!("ipv4:{}", list.join(","))
}

fn channel(telemetry: &Telemetry, backends: &[SocketAddr]) -> Channel {
    let target = target(backends);
    telemetry.channel(Channel::builder(&target), &target).build().unwrap()
}

/// Metrics that are kept, and sent nowhere.
fn kept() -> Telemetry {
    let lookup = |name: &str| (name == "OTEL_METRICS_EXPORTER").then(|| "prometheus".to_owned());
    let settings = evenkeel_telemetry::MetricsSettings::read("test", &lookup).unwrap().unwrap();
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    Telemetry::off().with_metrics(&settings.page(free)).unwrap()
}

/// The lines of the page that are samples: names with labels, and values.
fn samples(telemetry: &Telemetry) -> BTreeMap<String, f64> {
    let page = telemetry.prometheus();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let split = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(split).collect()
}

/// The value of a sample; 0 when it is not there.
fn sample(telemetry: &Telemetry, name: &str) -> f64 {
    samples(telemetry).get(name).copied().unwrap_or(0.0)
}

/// Waits for a sample's value: a server's end may come after its client's.
async fn reaches(telemetry: &Telemetry, name: &str, value: f64) {
    let wait = async {
        while sample(telemetry, name) != value {
            tokio::task::yield_now().await;
        }
    };
    let seen = || format!("{name} {value}, got {}", telemetry.prometheus());
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("expected {}", seen()));
}

fn find<'a>(metrics: &'a [Metric], name: &str) -> &'a Metric {
    let names: Vec<_> = metrics.iter().map(|metric| &metric.name).collect();
    let found = metrics.iter().find(|metric| metric.name == name);
    found.unwrap_or_else(|| panic!("expected {name}, got {names:?}"))
}

/// Labels of a sum's points, and their values.
fn sums(metric: &Metric) -> Vec<(BTreeMap<String, String>, i64)> {
    let Some(Data::Sum(sum)) = &metric.data else { panic!("expected a sum, got {metric:?}") };
    assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
    let points = sum.data_points.iter().map(|point| {
        let Some(NumberValue::AsInt(value)) = point.value else { panic!("{point:?}") };
        (attributes(&point.attributes), value)
    });
    points.collect()
}

/// Labels of a histogram's points, how many values they have, and their sum.
fn histograms(metric: &Metric) -> Vec<(BTreeMap<String, String>, u64, f64)> {
    let Some(Data::Histogram(all)) = &metric.data else { panic!("expected one, got {metric:?}") };
    assert_eq!(all.aggregation_temporality(), AggregationTemporality::Cumulative);
    let points = all.data_points.iter().map(|point| {
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
        assert!(point.start_time_unix_nano <= point.time_unix_nano);
        (attributes(&point.attributes), point.count, point.sum.unwrap())
    });
    points.collect()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

#[tokio::test]
async fn calls_arrive_at_a_collector_by_method_target_and_status_from_both_sides() {
    for protocol in ["grpc", "http/protobuf"] {
        let receiver = Receiver::start().await;
        let settings = receiver.metrics_settings(protocol, &[]);
        let telemetry = Telemetry::off().with_metrics(&settings).unwrap();
        let backend = greeter(&telemetry).await;
        let channel = channel(&telemetry, &[backend.at]);
        for _ in 0..3 {
            call(&channel, "you").await.unwrap();
        }
        for _ in 0..2 {
            assert_eq!(call(&channel, "fail").await.unwrap_err().code(), Code::NotFound);
        }
        let of = format!(r#"{{grpc_method="{METHOD}",grpc_status="NOT_FOUND"}}"#);
        let ended = format!("grpc_server_call_duration_seconds_count{of}");
        reaches(&telemetry, &ended, 2.0).await;
        timeout(LIMIT, telemetry.flush(LIMIT)).await.expect("in time");
        let all = receiver.metrics();
        let metrics = all.last().unwrap();

        let target = target(&[backend.at]);
        let client = [("grpc.method", METHOD), ("grpc.target", target.as_str())];
        let started = find(metrics, "grpc.client.attempt.started");
        assert_eq!(sums(started), [(labels(&client), 5)]);
        assert_eq!(started.unit, "{attempt}");
        let with = |status| labels(&[client[0], client[1], ("grpc.status", status)]);
        let duration = find(metrics, "grpc.client.attempt.duration");
        let seen: Vec<_> = histograms(duration).into_iter().map(|(of, n, _)| (of, n)).collect();
        assert_eq!(seen, [(with("OK"), 3), (with("NOT_FOUND"), 2)]);
        assert_eq!(duration.unit, "s");
        assert!(histograms(duration).iter().all(|(_, _, sum)| *sum > 0.0 && *sum < 10.0));
        // `you` in a field is 5 bytes, `Hello you` is 11, `fail` is 6.
        let sent = find(metrics, "grpc.client.attempt.sent_total_compressed_message_size");
        assert_eq!(histograms(sent), [(with("OK"), 3, 15.0), (with("NOT_FOUND"), 2, 12.0)]);
        let received = find(metrics, "grpc.client.attempt.rcvd_total_compressed_message_size");
        assert_eq!(histograms(received), [(with("OK"), 3, 33.0), (with("NOT_FOUND"), 2, 0.0)]);
        assert_eq!(histograms(find(metrics, "grpc.client.call.duration")).len(), 2);

        let server = |status| labels(&[("grpc.method", METHOD), ("grpc.status", status)]);
        let started = sums(find(metrics, "grpc.server.call.started"));
        assert_eq!(started, [(labels(&[("grpc.method", METHOD)]), 5)]);
        let received = find(metrics, "grpc.server.call.rcvd_total_compressed_message_size");
        assert_eq!(histograms(received), [(server("OK"), 3, 15.0), (server("NOT_FOUND"), 2, 12.0)]);
        let sent = find(metrics, "grpc.server.call.sent_total_compressed_message_size");
        assert_eq!(histograms(sent), [(server("OK"), 3, 33.0), (server("NOT_FOUND"), 2, 0.0)]);
        assert_eq!(receiver.resources()[0]["service.name"], "test");
    }
}

#[tokio::test]
async fn everything_that_is_sent_is_in_the_table_with_its_unit_and_kind() {
    let receiver = Receiver::start().await;
    let telemetry = Telemetry::off().with_metrics(&receiver.metrics_settings("grpc", &[])).unwrap();
    let backend = greeter(&telemetry).await;
    telemetry.watch_server(backend.stats.clone());
    call(&channel(&telemetry, &[backend.at]), "you").await.unwrap();
    telemetry.flush(LIMIT).await;
    let all = receiver.metrics();
    let metrics = all.last().unwrap();
    assert!(metrics.len() > 15, "{}", metrics.len());
    for metric in metrics {
        let known = INSTRUMENTS.iter().find(|known| known.name == metric.name).unwrap();
        let kind = match &metric.data {
            Some(Data::Sum(sum)) if sum.is_monotonic => Kind::Counter,
            Some(Data::Sum(_)) => Kind::UpDownCounter,
            Some(Data::Gauge(_)) => Kind::Gauge,
            _ => Kind::Histogram,
        };
        assert_eq!((known.kind, known.unit), (kind, metric.unit.as_str()), "{}", metric.name);
    }
}

#[tokio::test]
async fn metrics_are_sent_at_the_interval_and_once_more_at_the_end() {
    let receiver = Receiver::start().await;
    let often = [("OTEL_METRIC_EXPORT_INTERVAL", "20")];
    let settings = receiver.metrics_settings("http/protobuf", &often);
    let telemetry = Telemetry::off().with_metrics(&settings).unwrap();
    let backend = greeter(&Telemetry::off()).await;
    let channel = channel(&telemetry, &[backend.at]);
    call(&channel, "you").await.unwrap();
    receiver.asked(3).await;
    call(&channel, "you").await.unwrap();
    telemetry.shutdown(LIMIT).await;
    let all = receiver.metrics();
    assert_eq!(sums(find(all.last().unwrap(), "grpc.client.attempt.started"))[0].1, 2);
}

#[tokio::test]
async fn a_path_that_no_service_has_is_other_to_the_server() {
    let telemetry = kept();
    let backend = greeter(&telemetry).await;
    let channel = channel(&telemetry, &[backend.at]);
    for path in ["/no.Such/Method", "/no.Such/Other"] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        let codec = tonic_prost::ProstCodec::<HelloRequest, HelloReply>::default();
        let path = PathAndQuery::from_static(path);
        let call = client.unary(Request::new(HelloRequest::default()), path, codec);
        let status = timeout(LIMIT, call).await.expect("in time").unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
    let other = r#"{grpc_method="other",grpc_status="UNIMPLEMENTED"}"#;
    reaches(&telemetry, &format!("grpc_server_call_duration_seconds_count{other}"), 2.0).await;
    let started = r#"grpc_server_call_started_total{grpc_method="other"}"#;
    assert_eq!(sample(&telemetry, started), 2.0);
    let names = samples(&telemetry);
    assert!(!names.keys().any(|name| name.contains("server") && name.contains("no.Such")));
    let client = names.keys().filter(|name| name.starts_with("grpc_client_attempt_started"));
    assert_eq!(client.count(), 2, "a client's methods are its program's");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_on_both_sides() {
    let telemetry = kept();
    let backend = greeter(&telemetry).await;
    let channel = channel(&telemetry, &[backend.at]);
    // Known before, so that the server has a name for it.
    call(&channel, "you").await.unwrap();
    let held = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel, "hang").await }
    });
    backend.hangs(1).await;
    held.abort();
    let cancelled = format!(r#"grpc_method="{METHOD}",grpc_status="CANCELLED"}}"#);
    let server = format!("grpc_server_call_duration_seconds_count{{{cancelled}");
    reaches(&telemetry, &server, 1.0).await;
    let target = target(&[backend.at]);
    let of =
        format!(r#"{{grpc_method="{METHOD}",grpc_target="{target}",grpc_status="CANCELLED"}}"#);
    let client = format!("grpc_client_call_duration_seconds_count{of}");
    reaches(&telemetry, &client, 1.0).await;
}

#[tokio::test]
async fn connections_are_counted_from_their_making_to_their_end() {
    let telemetry = kept();
    let backends = [greeter(&telemetry).await, greeter(&telemetry).await];
    let addresses = [backends[0].at, backends[1].at];
    let name = |metric: &str| format!(r#"{metric}{{grpc_target="{}"}}"#, target(&addresses));
    let (open, ended) =
        (name("grpc_subchannel_open_connections"), name("grpc_subchannel_disconnections_total"));
    let channels = [channel(&telemetry, &addresses), channel(&telemetry, &addresses)];
    for channel in &channels {
        call(channel, "you").await.unwrap();
    }
    reaches(&telemetry, &open, 4.0).await;
    reaches(&telemetry, &name("evenkeel_resolver_endpoints"), 4.0).await;
    let made = name("grpc_subchannel_connection_attempts_succeeded_total");
    assert_eq!(sample(&telemetry, &made), 4.0);
    assert_eq!(sample(&telemetry, &ended), 0.0);
    backends[1].handle.drain();
    reaches(&telemetry, &ended, 2.0).await;
    reaches(&telemetry, &open, 2.0).await;
    let failed = name("grpc_subchannel_connection_attempts_failed_total");
    let wait = async {
        while sample(&telemetry, &failed) == 0.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, wait).await.expect("nobody is there any more");
    drop(channels);
    reaches(&telemetry, &open, 0.0).await;
    reaches(&telemetry, &ended, 4.0).await;
    reaches(&telemetry, &name("evenkeel_resolver_endpoints"), 0.0).await;
    let old = name("grpc_lb_pick_first_disconnections_total");
    assert_eq!(sample(&telemetry, &old), 4.0);
}

#[tokio::test]
async fn a_resolver_that_fails_is_a_level_until_its_channel_is_gone() {
    let telemetry = kept();
    // A port at which nobody answers: taken, and given back.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let target = format!("dns://{silent}/greeter.test:1");
    let builder = telemetry.channel(Channel::builder(&target), &target);
    let channel = builder.build().unwrap();
    channel.connect();
    let failing = format!(r#"evenkeel_resolver_failing{{grpc_target="{target}"}}"#);
    reaches(&telemetry, &failing, 1.0).await;
    drop(channel);
    reaches(&telemetry, &failing, 0.0).await;
}

#[tokio::test]
async fn retries_of_a_call_are_a_distribution_of_their_own() {
    let telemetry = kept();
    let backend = greeter(&Telemetry::off()).await;
    let config = r#"{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,
        "initialBackoff":"0.001s","maxBackoff":"0.001s","backoffMultiplier":1,
        "retryableStatusCodes":["NOT_FOUND"]}}]}"#;
    let target = target(&[backend.at]);
    let builder = Channel::builder(&target).service_config(config);
    let channel = telemetry.channel(builder, &target).build().unwrap();
    call(&channel, "you").await.unwrap();
    call(&channel, "fail").await.unwrap_err();
    let of = format!(r#"{{grpc_method="{METHOD}",grpc_target="{target}"}}"#);
    reaches(&telemetry, &format!("grpc_client_call_retries_sum{of}"), 2.0).await;
    assert_eq!(sample(&telemetry, &format!("grpc_client_call_retries_count{of}")), 1.0);
    assert_eq!(sample(&telemetry, &format!("grpc_client_call_transparent_retries_count{of}")), 0.0);
    assert_eq!(sample(&telemetry, &format!("grpc_client_call_retry_delay_seconds_count{of}")), 1.0);
    assert_eq!(sample(&telemetry, &format!("grpc_client_attempt_started_total{of}")), 4.0);
}

async fn get(at: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(at).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, socket.read_to_string(&mut answer)).await.expect("in time").unwrap();
    answer
}

#[tokio::test]
async fn the_page_has_what_is_counted_and_what_others_add() {
    let telemetry = kept();
    let at = telemetry.serve_page().await.unwrap().expect("it was asked for");
    telemetry.add_metrics(|all| {
        let mut own = Family::new("shop.orders", Kind::Counter, "{order}", "Orders.");
        own.add([("shop.kind", "large")], Value::Number(7.0));
        all.push(own);
    });
    let backend = greeter(&telemetry).await;
    call(&channel(&telemetry, &[backend.at]), "you").await.unwrap();
    let page = get(at, "GET /metrics").await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("content-type: text/plain; version=0.0.4\r\n"), "{page}");
    assert!(page.contains("target_info{service_name=\"test\""), "{page}");
    assert!(page.contains("shop_orders_total{shop_kind=\"large\"} 7\n"), "{page}");
    assert!(page.contains("# TYPE grpc_client_call_duration_seconds histogram\n"), "{page}");
    assert!(get(at, "GET /other").await.starts_with("HTTP/1.1 404"));
    assert!(get(at, "POST /metrics").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn a_page_whose_port_is_taken_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = taken.local_addr().unwrap();
    let lookup = |name: &str| match name {
        "OTEL_METRICS_EXPORTER" => Some("prometheus".to_owned()),
        "OTEL_EXPORTER_PROMETHEUS_PORT" => Some(at.port().to_string()),
        _ => None,
    };
    let settings = evenkeel_telemetry::MetricsSettings::read("test", &lookup).unwrap().unwrap();
    let telemetry = Telemetry::off().with_metrics(&settings).unwrap();
    let error = telemetry.serve_page().await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("metrics on {at}: ")), "{error}");
    assert!(error.ends_with("free it or choose another"), "{error}");
}

#[tokio::test]
async fn off_counts_nothing() {
    let telemetry = Telemetry::off();
    let backend = greeter(&telemetry).await;
    call(&channel(&telemetry, &[backend.at]), "you").await.unwrap();
    assert!(!telemetry.has_metrics());
    assert_eq!(telemetry.prometheus(), "");
    assert_eq!(telemetry.serve_page().await.unwrap(), None);
    telemetry.shutdown(Duration::ZERO).await;
}
