//! Load reports (gRFC A51): in the trailers of every call, however it ends, and out of band.

mod wire;

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use evenkeel_proto::xds::{
    data::orca::v3::OrcaLoadReport, service::orca::v3::OrcaLoadReportRequest,
};
use evenkeel_server::{
    Server,
    orca::{Orca, ServerMetrics},
};
use h2::RecvStream;
use prost::Message as _;
use tonic::{Code, metadata::MetadataMap};
use wire::{
    Answer, Client, Running, SAY_HELLO, hello,
    probe::{STREAM, Step},
    within,
};

const KEY: &str = "endpoint-load-metrics-bin";
const OUT_OF_BAND: &str = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";
const MS: Duration = Duration::from_millis(1);

/// The report of a call, if it has one.
fn report(answer: &Answer) -> Option<OrcaLoadReport> {
    let trailers = MetadataMap::from_headers(answer.trailers.clone());
    let bytes = trailers.get_bin(KEY)?.to_bytes().expect("base64");
    Some(OrcaLoadReport::decode(bytes).expect("a report"))
}

fn metrics() -> ServerMetrics {
    let metrics = ServerMetrics::new();
    metrics.set_cpu_utilization(0.25);
    metrics.set_qps(100.0);
    metrics
}

#[tokio::test]
async fn every_answer_has_the_servers_values_and_the_calls_own_over_them() {
    let metrics = metrics();
    let server = Running::start(Server::builder().orca(Orca::new(&metrics))).await;
    let mut client = Client::connect(server.address).await;
    let plain = client.hello("you").await.expect("an answer");
    let expected =
        OrcaLoadReport { cpu_utilization: 0.25, rps_fractional: 100.0, ..Default::default() };
    assert_eq!(report(&plain), Some(expected.clone()));
    assert!(!plain.headers.contains_key(KEY), "in trailers only: {:?}", plain.headers);

    let cost = client.hello("cost").await.expect("an answer");
    assert_eq!(cost.text(), "recorded: true");
    let own = report(&cost).expect("a report");
    assert_eq!((own.cpu_utilization, own.rps_fractional), (0.9, 100.0));
    assert_eq!(own.request_cost.get("rows"), Some(&12.0));
    assert_eq!(own.utilization.len(), 0, "1.5 is out of its range");
    assert_eq!(metrics.ignored(), 1);

    let next = client.hello("you").await.expect("an answer");
    assert_eq!(report(&next), Some(expected), "a call's values are its own");
}

#[tokio::test]
async fn a_call_that_fails_reports_too() {
    let server = Running::start(Server::builder().orca(Orca::new(&metrics()))).await;
    let mut client = Client::connect(server.address).await;
    let failed = client.hello("cost and fail").await.expect("an answer");
    assert_eq!(failed.grpc_status, Some(Code::ResourceExhausted as i32));
    assert_eq!(report(&failed).expect("a report").request_cost["rows"], 12.0);

    let late = client.call(SAY_HELLO, &[("grpc-timeout", "50m")], &hello("hold")).await;
    let late = late.expect("an answer");
    assert_eq!(late.grpc_status, Some(Code::DeadlineExceeded as i32));
    assert_eq!(report(&late).expect("a report").cpu_utilization, 0.25);

    let panicked = client.hello("panic").await.expect("an answer");
    assert_eq!(panicked.grpc_status, Some(Code::Internal as i32));
    assert_eq!(report(&panicked).expect("a report").cpu_utilization, 0.25);

    let unknown = client.call("/no.Service/Method", &[], &hello("")).await.expect("an answer");
    assert_eq!(report(&unknown).expect("a report").cpu_utilization, 0.25);
}

#[tokio::test]
async fn a_stream_reports_at_its_end_what_holds_then() {
    let metrics = metrics();
    let server = Running::start(Server::builder().orca(Orca::new(&metrics))).await;
    let mut client = Client::connect(server.address).await;
    let steps = server.probe.stream();
    let stream = client.start(STREAM, &[], &hello("")).await.expect("sent");
    steps.try_send(Step::Data(b"begun")).expect("the call will take it");
    let (_, mut body) = within(stream).await.expect("headers").into_parts();
    within(body.data()).await.expect("data").expect("no error");
    metrics.set_qps(7.0);
    steps.send(Step::End).await.expect("the call takes it");
    assert!(within(body.data()).await.is_none());
    let trailers = within(body.trailers()).await.expect("no error").expect("trailers");
    let bytes = MetadataMap::from_headers(trailers).get_bin(KEY).expect("a report").to_bytes();
    let report = OrcaLoadReport::decode(bytes.expect("base64")).expect("a report");
    assert_eq!(report.rps_fractional, 7.0);
}

#[tokio::test]
async fn without_values_or_without_orca_trailers_have_no_report() {
    let plain = Server::builder();
    let empty = Server::builder().orca(Orca::new(&ServerMetrics::new()));
    let silent = Server::builder().orca(Orca::new(&metrics()).per_call(false));
    for (builder, recorded) in [(plain, false), (empty, true), (silent, false)] {
        let server = Running::start(builder).await;
        let mut client = Client::connect(server.address).await;
        let answer = client.hello("you").await.expect("an answer");
        assert_eq!(report(&answer), None);
        let answer = client.hello("cost").await.expect("an answer");
        assert_eq!(answer.text(), format!("recorded: {recorded}"));
        assert_eq!(report(&answer).is_some(), recorded);
        let answer = client.call(OUT_OF_BAND, &[], &request(None)).await.expect("an answer");
        assert_eq!(answer.grpc_status, Some(Code::Unimplemented as i32), "nobody asked for it");
    }
}

fn request(interval: Option<Duration>) -> OrcaLoadReportRequest {
    let report_interval =
        interval.map(|interval| interval.try_into().expect("a short time can be written"));
    OrcaLoadReportRequest { report_interval, ..Default::default() }
}

/// A stream of reports.
struct Reports {
    body: RecvStream,
    read: BytesMut,
}

impl Reports {
    async fn open(client: &mut Client, interval: Option<Duration>) -> Self {
        let sent = client.start(OUT_OF_BAND, &[], &request(interval)).await.expect("sent");
        let body = within(sent).await.expect("headers").into_body();
        Self { body, read: BytesMut::new() }
    }

    /// The next report; `None` at the end.
    async fn next(&mut self) -> Option<OrcaLoadReport> {
        loop {
            if let Some(prefix) = self.read.first_chunk::<5>() {
                let [_, length @ ..] = *prefix;
                let length = u32::from_be_bytes(length) as usize;
                if self.read.len() >= 5 + length {
                    self.read.advance(5);
                    let bytes = self.read.split_to(length);
                    return Some(OrcaLoadReport::decode(bytes).expect("a report"));
                }
            }
            let chunk: Bytes = within(self.body.data()).await?.expect("no error");
            self.body.flow_control().release_capacity(chunk.len()).expect("received");
            self.read.extend_from_slice(&chunk);
        }
    }

    async fn status(&mut self) -> String {
        let trailers = within(self.body.trailers()).await.expect("no error").expect("trailers");
        trailers["grpc-status"].to_str().expect("a number").to_owned()
    }
}

#[tokio::test]
async fn reports_come_at_once_and_then_with_the_newest_values() {
    let metrics = metrics();
    let orca = Orca::new(&metrics).min_report_interval(20 * MS);
    let server = Running::start(Server::builder().orca(orca)).await;
    let mut client = Client::connect(server.address).await;
    let mut reports = Reports::open(&mut client, Some(20 * MS)).await;
    let first = reports.next().await.expect("a report");
    assert_eq!((first.cpu_utilization, first.rps_fractional), (0.25, 100.0));
    metrics.set_cpu_utilization(None);
    metrics.set_application_utilization(0.75);
    metrics.set_utilization("disk", 0.5);
    within(async {
        while reports.next().await.expect("a report").application_utilization == 0.0 {}
    })
    .await;
    let last = reports.next().await.expect("a report");
    assert_eq!((last.cpu_utilization, last.application_utilization), (0.0, 0.75));
    assert_eq!(last.utilization.get("disk"), Some(&0.5));
}

#[tokio::test]
async fn nobody_gets_reports_more_often_than_the_server_allows() {
    let metrics = metrics();
    let orca = Orca::new(&metrics).min_report_interval(100 * MS);
    let server = Running::start(Server::builder().orca(orca)).await;
    let mut client = Client::connect(server.address).await;
    for asked in [None, Some(MS)] {
        let began = std::time::Instant::now();
        let mut reports = Reports::open(&mut client, asked).await;
        for _ in 0..4 {
            reports.next().await.expect("a report");
        }
        assert!(began.elapsed() >= 290 * MS, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_reader_that_stops_gets_the_newest_report_when_it_goes_on() {
    // Below 5 ms tokio's interval makes up for ticks that it missed.
    const INTERVAL: Duration = Duration::from_millis(10);
    let metrics = metrics();
    let orca = Orca::new(&metrics).min_report_interval(INTERVAL);
    let server = Running::start(Server::builder().orca(orca)).await;
    // A report has 23 bytes: two doubles with their tags, behind gRPC's prefix.
    let mut client = Client::connect_with_window(server.address, 23).await;
    let mut slow = Reports::open(&mut client, Some(INTERVAL)).await;
    let first = within(slow.body.data()).await.expect("a report").expect("no error");
    assert_eq!(first.len(), 23);

    let mut other = Client::connect(server.address).await;
    let mut quick = Reports::open(&mut other, Some(INTERVAL)).await;
    for qps in 1..=15 {
        metrics.set_qps(f64::from(qps));
        quick.next().await.expect("a report");
    }
    slow.body.flow_control().release_capacity(first.len()).expect("received");
    // HTTP/2 held one report, or two that were due when it asked; not one of each interval.
    let mut old = 0;
    while slow.next().await.expect("a report").rps_fractional != 15.0 {
        old += 1;
    }
    assert!(old <= 3, "{old} old reports came first");
}

#[tokio::test]
async fn a_stream_of_reports_does_not_hold_the_drain() {
    let orca = Orca::new(&metrics()).out_of_band();
    let builder = Server::builder().orca(orca).drain_delay(Duration::ZERO);
    let server = Running::start(builder).await;
    let mut client = Client::connect(server.address).await;
    let mut reports = Reports::open(&mut client, None).await;
    reports.next().await.expect("a report");
    server.shutdown.drain();
    assert_eq!(reports.next().await, None);
    assert_eq!(reports.status().await, (Code::Unavailable as i32).to_string());
    drop(reports);
    let report = server.drain_with(client).await;
    assert_eq!((report.connections_cut, report.streams_cut), (0, 0));
}
