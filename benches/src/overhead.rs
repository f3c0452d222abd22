//! What telemetry costs: the same channel without it, once more without it, and with metrics and
//! spans of one call in a hundred. The second one without says how far two that are equal are apart
//! on this machine; without it nobody could say what a ratio near 1 means.

use std::{net::SocketAddr, time::Duration};

use clap::{Parser, ValueEnum};
use evenkeel_telemetry::{
    MetricsSettings, Settings, Telemetry,
    otlp::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse, ExportTraceServiceRequest,
        ExportTraceServiceResponse, MetricsService, MetricsServiceServer, TraceService,
        TraceServiceServer,
    },
};
use helloworld::greeter_client::GreeterClient;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    callers::{Caller, evenkeel_channel_with},
    candidate,
    clock::Slice,
    cores::Side,
    ratios::{BACKENDS, Output},
    statistics::{Estimate, median},
    subprocess::Subprocess,
    table,
};

/// What a slice may take beyond its length.
const EXTRA: Duration = Duration::from_secs(30);

/// Kinds of one run. A prime, for [`order`].
const KINDS: usize = 5;

/// Measures what metrics and spans cost a channel's calls.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Rounds; each gives one process of every kind a slice. Six are the least for an interval of
    /// 95 %.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// Processes of each kind, which take turns: two of one kind differ for as long as they live,
    /// as their memory lies elsewhere.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub processes: u32,
    /// Callers at once, in a closed loop.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub callers: u32,
    /// Lets the client have all cores, as the servers have; else it has one, and they the others.
    #[arg(long)]
    pub shared: bool,
    /// Length of one slice, in milliseconds.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=60_000))]
    pub slice_ms: u32,
    /// Tables for people or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Without telemetry.
    Off,
    /// The same once more.
    OffAgain,
    /// Metrics alone.
    Metrics,
    /// Metrics, and spans of one call in a hundred.
    On,
    /// The same, but contexts do not go along with calls.
    Apart,
    /// Metrics that are kept and sent nowhere; for `costs`.
    Kept,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::OffAgain => "off-again",
            Self::Metrics => "metrics",
            Self::On => "on",
            Self::Apart => "apart",
            Self::Kept => "kept",
        }
    }
}

/// One kind over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    kind: Kind,
    rate: f64,
    cpu_us: f64,
    failed: u64,
    slices: Vec<Slice>,
}

/// One kind in relation to `off`.
#[derive(Debug, Serialize)]
struct Comparison {
    kind: Kind,
    what: &'static str,
    #[serde(flatten)]
    estimate: Estimate,
    aim: &'static str,
    is_met: bool,
}

/// Everything measured.
#[derive(Debug, Serialize)]
struct Report {
    rounds: u32,
    processes: u32,
    shared: bool,
    slice_ms: u32,
    callers: u32,
    rows: Vec<Row>,
    comparisons: Vec<Comparison>,
}

/// Takes what is sent and counts requests. Ends with its input.
///
/// # Errors
///
/// A listener can't be opened.
pub async fn sink() -> Result<(), String> {
    let failed = |error: std::io::Error| format!("sink: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .add_service(TraceServiceServer::new(Sink))
        .add_service(MetricsServiceServer::new(Sink));
    tokio::spawn(server.serve_with_incoming(incoming));
    println!("{}", serde_json::json!(address));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await.map_err(failed)?.is_some() {}
    Ok(())
}

struct Sink;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// The telemetry of one kind, by the variables that a user would set.
///
/// # Errors
///
/// A variable can't be meant.
pub fn telemetry(kind: Kind, sink: SocketAddr) -> Result<Telemetry, String> {
    let variable = |name: &str| {
        Some(match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => format!("http://{sink}"),
            "OTEL_EXPORTER_OTLP_PROTOCOL" => "grpc".into(),
            "OTEL_METRICS_EXPORTER" if kind == Kind::Kept => "prometheus".into(),
            "OTEL_PROPAGATORS" if kind == Kind::Apart => "none".into(),
            "OTEL_TRACES_SAMPLER" => "parentbased_traceidratio".into(),
            "OTEL_TRACES_SAMPLER_ARG" => "0.01".into(),
            // So often that it would show.
            "OTEL_METRIC_EXPORT_INTERVAL" => "1000".into(),
            _ => return None,
        })
    };
    let text = |error: evenkeel_telemetry::SettingsError| error.to_string();
    let mut telemetry = Telemetry::off();
    if matches!(kind, Kind::On | Kind::Apart)
        && let Some(spans) = Settings::read("overhead", &variable).map_err(text)?
    {
        telemetry = Telemetry::start(&spans).map_err(text)?;
    }
    if !matches!(kind, Kind::Off | Kind::OffAgain)
        && let Some(metrics) = MetricsSettings::read("overhead", &variable).map_err(text)?
    {
        telemetry = telemetry.with_metrics(&metrics).map_err(text)?;
    }
    Ok(telemetry)
}

/// A process that does slices of one kind.
///
/// # Errors
///
/// It can't connect, or a request can't be read.
pub async fn worker(kind: Kind, sink: SocketAddr, backends: &[SocketAddr]) -> Result<(), String> {
    let telemetry = telemetry(kind, sink)?;
    let tune = |builder| telemetry.channel(builder, "fixed:///backends");
    let channel = evenkeel_channel_with(backends, tune).await?;
    candidate::serve(Caller::Evenkeel(GreeterClient::new(channel.clone()), channel)).await
}

/// The whole run.
///
/// # Errors
///
/// A process can't be started, or a call failed.
pub async fn run(options: Options) -> Result<(), String> {
    let start = async |arguments: &[&str], side: Side| {
        let side = ["--side", side.name()].into_iter().filter(|_| !options.shared);
        Subprocess::start(arguments.iter().copied().chain(side)).await
    };
    let servers = start(&["server", &BACKENDS.to_string()], Side::Servers).await?;
    let sink = start(&["sink"], Side::Servers).await?;
    let backends: Vec<SocketAddr> =
        serde_json::from_str(&servers.greeting).map_err(|e| format!("the servers: {e}"))?;
    let at: SocketAddr =
        serde_json::from_str(&sink.greeting).map_err(|e| format!("the sink: {e}"))?;
    let at = at.to_string();
    let list = backends.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
    let kinds = [Kind::Off, Kind::OffAgain, Kind::Metrics, Kind::On, Kind::Apart];
    let mut teams = Vec::new();
    for _ in 0..options.processes {
        let mut team = Vec::new();
        for kind in kinds {
            team.push(start(&["worker", kind.name(), &at, &list], Side::Client).await?);
        }
        teams.push(team);
    }
    let mut slices: [Vec<Slice>; KINDS] = Default::default();
    let length = Duration::from_millis(options.slice_ms.into());
    let line = format!("unary {} {}", options.callers, options.slice_ms);
    // One more for each process before them warms up.
    let (rounds, processes) = (options.rounds as usize, teams.len());
    for round in 0..rounds + processes {
        let team = &mut teams[round % processes];
        for which in order(round / processes) {
            let slice: Slice = team[which].ask(&line, length + EXTRA).await?;
            if round >= processes {
                slices[which].push(slice);
            }
        }
        eprintln!("round {} of {}", round + 1, rounds + processes);
    }
    for process in teams.into_iter().flatten().chain([servers, sink]) {
        process.end().await?;
    }
    let report = report(&options, kinds, slices);
    match options.output {
        Output::Json => println!("{}", serde_json::json!(report)),
        Output::Text => print(&report),
    }
    let failed: u64 = report.rows.iter().map(|row| row.failed).sum();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} calls failed")) }
}

/// The kinds of one round in turn. Who came before leaves its caches behind; over 20 rounds each
/// kind comes after each other one as often.
fn order(round: usize) -> [usize; KINDS] {
    let stride = 1 + round % (KINDS - 1);
    std::array::from_fn(|step| (round + step * stride) % KINDS)
}

fn report(options: &Options, kinds: [Kind; KINDS], slices: [Vec<Slice>; KINDS]) -> Report {
    let values = |slices: &[Slice], value: fn(&Slice) -> f64| -> Vec<f64> {
        slices.iter().map(value).collect()
    };
    let mut comparisons = Vec::new();
    let (off_rate, off_cpu) = (values(&slices[0], Slice::rate), values(&slices[0], Slice::cpu_us));
    for (kind, slices) in kinds.into_iter().zip(&slices).skip(1) {
        let (rate, cpu) = (values(slices, Slice::rate), values(slices, Slice::cpu_us));
        let added: Vec<f64> = cpu.iter().zip(&off_cpu).map(|(on, off)| on - off).collect();
        let is_equal = |e: &Estimate| e.low <= 1.0 && 1.0 <= e.high && e.high - e.low <= 0.03;
        let is_cheap = |e: &Estimate| e.median >= 0.95;
        let mut push = |what, estimate: Option<Estimate>, aim, met: &dyn Fn(&Estimate) -> bool| {
            comparisons.extend(estimate.map(|estimate| Comparison {
                kind,
                what,
                estimate,
                aim,
                is_met: met(&estimate),
            }));
        };
        let ratio = Estimate::of_ratios(&rate, &off_rate);
        if kind == Kind::OffAgain {
            push("rate / off", ratio, "holds 1.00, ≤ 0.03 wide", &is_equal);
        } else {
            push("rate / off", ratio, "≥ 0.95", &is_cheap);
        }
        push("CPU µs − off", Estimate::of(&added), "≤ 1", &|e| e.median <= 1.0);
    }
    let rows = kinds.into_iter().zip(slices).map(|(kind, slices)| Row {
        kind,
        rate: median(&values(&slices, Slice::rate)),
        cpu_us: median(&values(&slices, Slice::cpu_us)),
        failed: slices.iter().map(|slice| slice.failed).sum(),
        slices,
    });
    let Options { rounds, processes, shared, slice_ms, callers, .. } = *options;
    Report { rounds, processes, shared, slice_ms, callers, rows: rows.collect(), comparisons }
}

fn print(report: &Report) {
    let Report { rounds, processes, shared, slice_ms, callers, rows, comparisons } = report;
    let cells = rows.iter().map(|row| {
        let (rate, cpu) = (format!("{:.0}", row.rate), format!("{:.2}", row.cpu_us));
        vec![row.kind.name().to_owned(), rate, cpu, row.failed.to_string()]
    });
    let title = format!(
        "{callers} callers, {rounds} rounds of {slice_ms} ms over {processes} processes each, \
         interleaved, {}",
        if *shared { "on shared cores" } else { "the client on a core of its own" }
    );
    table::print(&title, &["telemetry", "calls/s", "CPU µs", "failed"], &cells.collect::<Vec<_>>());
    let cells = comparisons.iter().map(|one| {
        let Estimate { median, low, high, confidence } = one.estimate;
        vec![
            format!("{} {}", one.kind.name(), one.what),
            format!("{median:.3}"),
            format!("{low:.3} to {high:.3}"),
            format!("{:.1} %", confidence * 100.0),
            format!("{} {}", one.aim, if one.is_met { "met" } else { "NOT MET" }),
        ]
    });
    let head = ["in the same round", "median", "interval", "confidence", "aim"];
    table::print("", &head, &cells.collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_comes_after_each_other_one_as_often() {
        let mut after = [[0; KINDS]; KINDS];
        for round in 0..KINDS * (KINDS - 1) {
            let order = order(round);
            let mut sorted = order;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            for pair in order.windows(2) {
                after[pair[0]][pair[1]] += 1;
            }
        }
        for (first, after) in after.iter().enumerate() {
            let others: Vec<i32> =
                (0..KINDS).filter(|kind| *kind != first).map(|kind| after[kind]).collect();
            assert_eq!(others, [KINDS as i32 - 1; KINDS - 1], "{first}");
        }
    }
}
