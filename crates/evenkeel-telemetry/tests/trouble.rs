//! A collector that is down, slow or refuses: calls are as they were, memory is bounded, and the
//! log says so once.

mod receiver;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use evenkeel::Channel;
use evenkeel_telemetry::Telemetry;
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use receiver::{LIMIT, Mood, Receiver, greeters::greeter, settings};
use tokio::{net::TcpListener, time::timeout};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

/// Takes note of the crate's own warnings and news, on the test's thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl Log {
    fn listen(&self) -> DefaultGuard {
        tracing::subscriber::set_default(self.clone())
    }

    fn lines(&self) -> Vec<(Level, String)> {
        self.0.lock().unwrap().clone()
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("evenkeel_telemetry")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push((*event.metadata().level(), message.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Small limits, so that a test reaches them.
const SMALL: [(&str, &str); 4] = [
    ("OTEL_BSP_MAX_QUEUE_SIZE", "50"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
    ("OTEL_BSP_SCHEDULE_DELAY", "1"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
];
const KEPT_MAX: u64 = 50 + 10; // the queue and the batch that is being tried

async fn calls(telemetry: &Telemetry, backend: SocketAddr, count: usize) {
    let target = format!("ipv4:{backend}");
    let channel = telemetry.channel(Channel::builder(&target), &target).build().unwrap();
    let mut client = GreeterClient::new(channel);
    for _ in 0..count {
        let call = client.say_hello(HelloRequest { name: "you".into() });
        timeout(LIMIT, call).await.expect("in time").expect("calls are unaffected");
    }
}

async fn warned(log: &Log) -> String {
    let wait = async {
        loop {
            if let Some((_, line)) = log.lines().first() {
                return line.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, wait).await.expect("a warning")
}

/// Everything that a trouble has in common.
async fn trouble(telemetry: &Telemetry, log: &Log) {
    const CALLS: usize = 300;
    let backend = greeter(&Telemetry::off()).await;
    calls(telemetry, backend.at, CALLS).await;
    warned(log).await;
    calls(telemetry, backend.at, CALLS).await;
    let counts = telemetry.counts();
    assert_eq!(counts.ended, 4 * CALLS as u64);
    assert!(counts.ended - counts.sent - counts.dropped <= KEPT_MAX, "{counts:?}");
    let warnings = log.lines().into_iter().filter(|(level, _)| *level == Level::WARN);
    assert_eq!(warnings.count(), 1, "{:?}", log.lines());
}

#[tokio::test]
async fn a_collector_that_is_down_costs_one_warning_and_bounded_memory() {
    for protocol in ["grpc", "http/protobuf"] {
        let log = Log::default();
        let _listening = log.listen();
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let telemetry = Telemetry::start(&settings(nobody, protocol, &SMALL)).unwrap();
        trouble(&telemetry, &log).await;
        let warning = warned(&log).await;
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
        // The channel keeps the deadline by itself.
        let why = if protocol == "grpc" { "deadline of 300ms" } else { "no answer within 300ms" };
        assert!(warned(&log).await.contains(why), "{:?}", log.lines());
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
