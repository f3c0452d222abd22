//! A collector that is down, slow or refuses: calls are as they were, memory is bounded, and the
//! log says so once.

mod receiver;

use std::time::Duration;

use evenkeel_telemetry::Telemetry;
use receiver::{
    LIMIT, Mood, Receiver,
    greeters::{calls, greeter},
    log::Log,
    settings,
};
use tokio::{net::TcpListener, time::timeout};
use tracing::Level;

/// Small limits, so that a test reaches them.
const SMALL: [(&str, &str); 4] = [
    ("OTEL_BSP_MAX_QUEUE_SIZE", "50"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
    ("OTEL_BSP_SCHEDULE_DELAY", "1"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
];
const KEPT_MAX: u64 = 50 + 10; // the queue and the batch that is being tried

/// Everything that a trouble has in common.
async fn trouble(telemetry: &Telemetry, log: &Log) {
    const CALLS: usize = 300;
    let backend = greeter(&Telemetry::off()).await;
    calls(telemetry, backend.at, CALLS).await;
    log.warned().await;
    calls(telemetry, backend.at, CALLS).await;
    let counts = telemetry.counts();
    assert_eq!(counts.ended, 4 * CALLS as u64);
    assert!(counts.ended - counts.sent - counts.dropped <= KEPT_MAX, "{counts:?}");
    assert_eq!(log.warnings(), 1, "{:?}", log.lines());
}

#[tokio::test]
async fn a_collector_that_is_down_costs_one_warning_and_bounded_memory() {
    for protocol in ["grpc", "http/protobuf"] {
        let log = Log::default();
        let _listening = log.listen();
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let telemetry = Telemetry::start(&settings(nobody, protocol, &SMALL)).unwrap();
        trouble(&telemetry, &log).await;
        let warning = log.warned().await;
        assert!(warning.starts_with(&format!("spans can't be sent to {nobody}")), "{warning}");
        assert!(warning.contains("calls are unaffected, up to 50 spans are kept"), "{warning}");
        let counts = telemetry.shutdown(LIMIT).await;
        assert_eq!((counts.sent, counts.dropped), (0, counts.ended));
    }
}

#[tokio::test]
async fn a_collector_that_refuses_and_comes_back_is_told_of_twice() {
    for protocol in ["grpc", "http/protobuf"] {
        let log = Log::default();
        let _listening = log.listen();
        let receiver = Receiver::start().await;
        receiver.set(Mood::Refusing);
        let telemetry = Telemetry::start(&receiver.settings(protocol, &SMALL)).unwrap();
        trouble(&telemetry, &log).await;
        receiver.set(Mood::Taking);
        telemetry.flush(LIMIT).await;
        let counts = telemetry.counts();
        assert!(counts.sent > 0, "{counts:?}");
        assert_eq!(counts.sent as usize, receiver.spans().len());
        assert_eq!(counts.ended, counts.sent + counts.dropped);
        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[1].0, Level::INFO);
        assert!(lines[1].1.contains("spans are taken again"), "{lines:?}");
    }
}

#[tokio::test]
async fn a_collector_that_is_silent_holds_up_neither_calls_nor_the_end() {
    for protocol in ["grpc", "http/protobuf"] {
        let log = Log::default();
        let _listening = log.listen();
        let receiver = Receiver::start().await;
        receiver.set(Mood::Silent);
        let telemetry = Telemetry::start(&receiver.settings(protocol, &SMALL)).unwrap();
        trouble(&telemetry, &log).await;
        receiver.asked(1).await;
        // The channel keeps the deadline too, and on a busy machine either is first.
        let why = ["deadline of 300ms", "no answer within 300ms"];
        let warned = log.warned().await;
        assert!(why.iter().any(|why| warned.contains(why)), "{:?}", log.lines());
        timeout(LIMIT, telemetry.shutdown(Duration::from_millis(50))).await.expect("in time");
        assert!(receiver.spans().is_empty());
    }
}

#[tokio::test]
async fn what_is_sent_for_tracing_is_not_traced() {
    let receiver = Receiver::start().await;
    let telemetry = Telemetry::start(&receiver.settings("grpc", &SMALL)).unwrap();
    let backend = greeter(&Telemetry::off()).await;
    calls(&telemetry, backend.at, 40).await;
    let counts = telemetry.shutdown(LIMIT).await;
    assert_eq!((counts.ended, counts.sent), (80, 80));
    assert!(receiver.headers().iter().all(|headers| !headers.contains_key("traceparent")));
    assert!(receiver.headers().len() >= 2, "several requests, none of which made a span");
}

#[tokio::test]
async fn off_adds_nothing_to_calls() {
    let receiver = Receiver::start().await;
    let telemetry = Telemetry::off();
    let backend = greeter(&telemetry).await;
    calls(&telemetry, backend.at, 3).await;
    assert!(!telemetry.is_on());
    assert_eq!(telemetry.shutdown(LIMIT).await, telemetry.counts());
    assert_eq!(telemetry.counts().ended, 0);
    assert!(receiver.spans().is_empty());
}
