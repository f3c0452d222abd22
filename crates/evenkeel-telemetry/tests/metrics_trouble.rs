//! A collector that takes no metrics: calls are as they were, nothing is kept for it, and the log
//! says so once.

mod receiver;

use std::time::Duration;

use evenkeel_telemetry::{Telemetry, otlp::metrics::Data};
use receiver::{
    LIMIT, Mood, Receiver,
    greeters::{calls, greeter},
    log::Log,
    metrics_settings,
};
use tokio::{net::TcpListener, time::timeout};
use tracing::Level;

/// Often, so that a test sees many tries.
const OFTEN: [(&str, &str); 2] =
    [("OTEL_METRIC_EXPORT_INTERVAL", "5"), ("OTEL_METRIC_EXPORT_TIMEOUT", "200")];
const CALLS: usize = 200;

#[tokio::test]
async fn a_collector_that_is_down_costs_one_warning() {
    for protocol in ["grpc", "http/protobuf"] {
        let log = Log::default();
        let _listening = log.listen();
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let settings = metrics_settings(nobody, protocol, &OFTEN);
        let telemetry = Telemetry::off().with_metrics(&settings).unwrap();
        let backend = greeter(&Telemetry::off()).await;
        calls(&telemetry, backend.at, CALLS).await;
        let warning = log.warned().await;
        assert!(warning.starts_with(&format!("metrics can't be sent to {nobody}")), "{warning}");
        assert!(warning.contains("calls are unaffected"), "{warning}");
        calls(&telemetry, backend.at, CALLS).await;
        timeout(LIMIT, telemetry.shutdown(LIMIT)).await.expect("in time");
        assert_eq!(log.warnings(), 1, "{:?}", log.lines());
    }
}

#[tokio::test]
async fn a_collector_that_refused_and_comes_back_has_missed_nothing() {
    for protocol in ["grpc", "http/protobuf"] {
        let log = Log::default();
        let _listening = log.listen();
        let receiver = Receiver::start().await;
        receiver.set(Mood::Refusing);
        let settings = receiver.metrics_settings(protocol, &OFTEN);
        let telemetry = Telemetry::off().with_metrics(&settings).unwrap();
        let backend = greeter(&Telemetry::off()).await;
        calls(&telemetry, backend.at, CALLS).await;
        receiver.asked(3).await;
        log.warned().await;
        receiver.set(Mood::Taking);
        telemetry.flush(LIMIT).await;
        let lines = log.lines();
        assert_eq!((log.warnings(), lines.len()), (1, 2), "{lines:?}");
        assert_eq!(lines[1].0, Level::INFO);
        assert!(lines[1].1.contains("metrics are taken again"), "{lines:?}");
        let all = receiver.metrics();
        let metrics = all.last().unwrap();
        let calls = metrics.iter().find(|metric| metric.name == "grpc.client.call.duration");
        let Some(Data::Histogram(calls)) = &calls.unwrap().data else { panic!("a histogram") };
        assert_eq!(calls.data_points[0].count, CALLS as u64);
    }
}

#[tokio::test]
async fn a_collector_that_is_silent_holds_up_neither_calls_nor_the_end() {
    for protocol in ["grpc", "http/protobuf"] {
        let log = Log::default();
        let _listening = log.listen();
        let receiver = Receiver::start().await;
        receiver.set(Mood::Silent);
        let settings = receiver.metrics_settings(protocol, &OFTEN);
        let telemetry = Telemetry::off().with_metrics(&settings).unwrap();
        let backend = greeter(&Telemetry::off()).await;
        calls(&telemetry, backend.at, CALLS).await;
        assert!(log.warned().await.contains("no answer within 200ms"), "{:?}", log.lines());
        calls(&telemetry, backend.at, CALLS).await;
        let end = telemetry.shutdown(Duration::from_millis(50));
        timeout(LIMIT, end).await.expect("in time");
        assert_eq!(log.warnings(), 1, "{:?}", log.lines());
    }
}
