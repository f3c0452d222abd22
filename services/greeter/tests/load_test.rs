//! What the real binary reports of its load: measured, in trailers and out of band.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use evenkeel::Channel;
use evenkeel_proto::xds::{
    data::orca::v3::OrcaLoadReport,
    service::orca::v3::{OrcaLoadReportRequest, open_rca_service_client::OpenRcaServiceClient},
};
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use prost::Message as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};
use tonic::{Code, Status, Streaming};

async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(10), future).await.expect("within 10 s")
}

/// A greeter that accepts connections.
struct Greeter {
    _child: Child,
    channel: Channel,
}

impl Greeter {
    async fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greeter"));
        command.env_clear().args(["--listen", "127.0.0.1:0"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().expect("the binary");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = within(stdout.next_line()).await.expect("readable").expect("a line");
        let port = line.strip_prefix("Started server on port ").expect("the line of the contract");
        let address: SocketAddr = format!("127.0.0.1:{port}").parse().expect("a port");
        let channel = Channel::builder(format!("ipv4:{address}")).build().expect("a target");
        Self { _child: child, channel }
    }

    /// Calls without a pause, `callers` at a time, until it is dropped.
    fn load(&self, callers: usize) -> JoinSet<()> {
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let channel = self.channel.clone();
            set.spawn(async move {
                loop {
                    // Some fail on purpose.
                    let _ = hello(&channel).await;
                }
            });
        }
        set
    }

    async fn reports(&self) -> Result<Streaming<OrcaLoadReport>, Status> {
        let request = OrcaLoadReportRequest::default();
        let mut client = OpenRcaServiceClient::new(self.channel.clone());
        Ok(within(client.stream_core_metrics(request)).await?.into_inner())
    }
}

/// The report in the trailers of one call.
async fn hello(channel: &Channel) -> Result<Option<OrcaLoadReport>, Status> {
    let request = HelloRequest { name: "you".to_owned() };
    let response = within(GreeterClient::new(channel.clone()).say_hello(request)).await?;
    let report = response.metadata().get_bin("endpoint-load-metrics-bin");
    Ok(report.map(|report| {
        OrcaLoadReport::decode(report.to_bytes().expect("base64")).expect("a report")
    }))
}

/// Waits for a report that `wanted` accepts.
async fn until(
    reports: &mut Streaming<OrcaLoadReport>,
    wanted: impl Fn(&OrcaLoadReport) -> bool,
) -> OrcaLoadReport {
    let mut last = None;
    let search = async {
        loop {
            let report = reports.message().await.expect("no error").expect("no end");
            if wanted(&report) {
                return report;
            }
            last = Some(report);
        }
    };
    match timeout(Duration::from_secs(10), search).await {
        Ok(report) => report,
        Err(_) => panic!("the last report after 10 s: {last:?}"),
    }
}

#[tokio::test]
async fn reports_what_it_measures_of_calls_and_capacity() {
    // 2 calls at once, 50 ms each: 40 calls a second at most.
    let args = ["--orca", "--orca-oob-min", "50ms", "--capacity", "2", "--delay", "50ms"];
    let greeter = Greeter::start(&args).await;
    let mut reports = greeter.reports().await.expect("served");
    let load = greeter.load(6);
    let full = until(&mut reports, |report| report.rps_fractional > 25.0).await;
    // A busy machine makes it less, nothing makes it more.
    assert!(full.rps_fractional <= 44.0, "{full:?}");
    let full = until(&mut reports, |report| report.application_utilization > 0.9).await;
    assert!(full.application_utilization <= 1.001, "{full:?}");
    assert!(full.cpu_utilization > 0.0 && full.cpu_utilization <= 1.5, "{full:?}");
    assert_eq!(full.eps, 0.0);
    let inline = hello(&greeter.channel).await.expect("an answer").expect("a report");
    assert!(inline.application_utilization > 0.5 && inline.rps_fractional > 0.0, "{inline:?}");
    drop(load);
    until(&mut reports, |report| report.rps_fractional == 0.0).await;
}

#[tokio::test]
async fn reports_the_failures_among_the_calls() {
    let args = ["--orca", "--orca-oob-min", "50ms", "--error-rate", "0.5", "--delay", "1ms"];
    let greeter = Greeter::start(&args).await;
    let mut reports = greeter.reports().await.expect("served");
    let _load = greeter.load(4);
    let report = until(&mut reports, |report| report.rps_fractional > 200.0).await;
    let failed = report.eps / report.rps_fractional;
    assert!((0.3..0.7).contains(&failed), "{report:?}");
    assert_eq!(report.application_utilization, 0.0, "there is no capacity to be used");
}

#[tokio::test]
async fn reports_nothing_unless_it_is_asked_to() {
    let greeter = Greeter::start(&["--capacity", "2"]).await;
    assert_eq!(hello(&greeter.channel).await.expect("an answer"), None);
    let mut answer = greeter.reports().await;
    if let Ok(reports) = &mut answer {
        answer = Err(within(reports.message()).await.expect_err("nobody serves it"));
    }
    assert_eq!(answer.expect_err("nobody serves it").code(), Code::Unimplemented);
}
