//! The interleaved run: every round gives each candidate one slice, and what is compared is always
//! of the same round.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::{
    callers::Candidate,
    clock::Slice,
    peer,
    statistics::{Estimate, median},
    subprocess::Subprocess,
    table,
};

/// Backends that all candidates call.
pub const BACKENDS: usize = 3;
/// What a slice may take beyond its length.
const EXTRA: Duration = Duration::from_secs(30);
/// Rounds that count, unless told otherwise; below 6 there is no interval of 95 %.
const ROUNDS: u32 = 7;

/// Measures `evenkeel` against tonic, grpc-go and raw h2.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Rounds; each gives every candidate one slice. Six are the least for an interval of 95 %.
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Callers at once, in a closed loop.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64],
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub callers: Vec<u32>,
    /// Message sizes of the streams, in bytes, at most 2 MiB; 0 leaves the streams out.
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 1_048_576],
        value_parser = clap::value_parser!(u32).range(0..=2_097_152))]
    pub sizes: Vec<u32>,
    /// Length of one slice, in milliseconds.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=60_000))]
    pub slice_ms: u32,
    /// Leaves candidates out.
    #[arg(long, value_delimiter = ',')]
    pub without: Vec<Candidate>,
    /// A look: slices of 200 ms, 3 rounds. Too few for an interval of 95 %.
    #[arg(long)]
    pub quick: bool,
    /// Tables for people or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How results are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// Tables.
    Text,
    /// One object on one line.
    Json,
}

/// One candidate under one load.
#[derive(Debug, Serialize)]
pub struct Row {
    candidate: Candidate,
    /// Calls or messages a second, the median of the rounds.
    rate: f64,
    /// CPU of the client's process for each call or message, in µs, the median of the rounds.
    cpu_us: f64,
    /// The backend that got most in relation to the one that got least, over all rounds.
    uneven: Option<f64>,
    failed: u64,
    slices: Vec<Slice>,
}

/// Our median in relation to somebody's, by rounds.
#[derive(Debug, Serialize)]
pub struct Ratio {
    /// `cpu` or `rate`.
    what: &'static str,
    to: String,
    #[serde(flatten)]
    estimate: Estimate,
    /// What it should be at most (`cpu`) or at least (`rate`).
    aim: Option<f64>,
}

/// One load.
#[derive(Debug, Serialize)]
pub struct Load {
    /// The command that a candidate got.
    load: String,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
}

/// Everything measured.
#[derive(Debug, Serialize)]
pub struct Report {
    cores: usize,
    rounds: u32,
    slice_ms: u32,
    server: &'static str,
    interval: &'static str,
    skipped: Vec<String>,
    loads: Vec<Load>,
}

/// Who does a slice.
enum Worker {
    Process(Box<Subprocess>),
    Peer(PathBuf),
}

struct Runner {
    servers: Subprocess,
    backends: Vec<SocketAddr>,
    workers: Vec<(Candidate, Worker)>,
    slice: Duration,
}

/// Measures and prints.
///
/// # Errors
///
/// A process can't be started or breaks, or a call failed.
pub async fn run(mut options: Options) -> Result<(), String> {
    if options.quick {
        (options.rounds, options.slice_ms) = (3, 200);
    }
    let (mut runner, skipped) = Runner::start(&options).await?;
    let mut loads = Vec::new();
    for callers in &options.callers {
        let load = format!("unary {callers} {}", options.slice_ms);
        loads.push(runner.load(load, options.rounds, |_| true).await?);
    }
    for size in options.sizes.iter().filter(|size| **size > 0) {
        for direction in ["up", "down"] {
            let load = format!("{direction} {size} {}", options.slice_ms);
            let streams = |c| matches!(c, Candidate::Evenkeel | Candidate::BalanceList);
            loads.push(runner.load(load, options.rounds, streams).await?);
        }
    }
    runner.end().await?;
    let report = Report {
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        rounds: options.rounds,
        slice_ms: options.slice_ms,
        server: "tonic::transport::Server, three listeners in one process on 127.0.0.1",
        interval: "sign test on the median of paired ratios (order statistics), at least 95 %",
        skipped,
        loads,
    };
    match options.output {
        Output::Json => println!("{}", serde_json::json!(report)),
        Output::Text => print(&report),
    }
    let failed: u64 = report.loads.iter().flat_map(|l| &l.rows).map(|r| r.failed).sum();
    if failed > 0 { Err(format!("expected no call to fail; {failed} did")) } else { Ok(()) }
}

impl Runner {
    async fn start(options: &Options) -> Result<(Self, Vec<String>), String> {
        let servers = Subprocess::start(["server".to_owned(), BACKENDS.to_string()]).await?;
        let backends: Vec<SocketAddr> = serde_json::from_str(&servers.greeting)
            .map_err(|e| format!("the servers' addresses: {e}"))?;
        let list = backends.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        let (mut workers, mut skipped) = (Vec::new(), Vec::new());
        for candidate in Candidate::value_variants() {
            if options.without.contains(candidate) {
                skipped.push(format!("{}: left out", candidate.name()));
            } else if *candidate != Candidate::GrpcGo {
                let process = Subprocess::start(["candidate", candidate.name(), &list]).await?;
                workers.push((*candidate, Worker::Process(Box::new(process))));
            } else if let Some(program) = peer::program() {
                workers.push((*candidate, Worker::Peer(program)));
            } else {
                skipped.push("grpc-go: no bin/peer in $CLUSTER_CACHE or ~/.cache/cluster".into());
            }
        }
        let slice = Duration::from_millis(u64::from(options.slice_ms));
        Ok((Self { servers, backends, workers, slice }, skipped))
    }

    /// All rounds of one load, with those whom it suits; a round before them that is not counted
    /// warms up what is to be warm.
    async fn load(
        &mut self,
        load: String,
        rounds: u32,
        suits: impl Fn(Candidate) -> bool,
    ) -> Result<Load, String> {
        let mut slices: BTreeMap<usize, Vec<Slice>> = BTreeMap::new();
        let mut calls: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for round in 0..=rounds {
            eprintln!("{load}: round {round} of {rounds}");
            for index in 0..self.workers.len() {
                if !suits(self.workers[index].0) {
                    continue;
                }
                let before = self.calls().await?;
                let slice = self.slice(index, &load).await?;
                let after = self.calls().await?;
                if round > 0 {
                    slices.entry(index).or_default().push(slice);
                    let sums = calls.entry(index).or_insert_with(|| vec![0; after.len()]);
                    for (sum, (after, before)) in sums.iter_mut().zip(after.iter().zip(&before)) {
                        *sum += after - before;
                    }
                }
            }
        }
        let rows: Vec<Row> = slices
            .into_iter()
            .map(|(index, slices)| Row::new(self.workers[index].0, slices, &calls[&index]))
            .collect();
        let ratios = ratios(&load, &rows);
        Ok(Load { load, rows, ratios })
    }

    /// What each backend was called so far.
    async fn calls(&mut self) -> Result<Vec<u64>, String> {
        self.servers.ask("calls", EXTRA).await
    }

    async fn slice(&mut self, index: usize, load: &str) -> Result<Slice, String> {
        match &mut self.workers[index].1 {
            Worker::Process(process) => process.ask(load, self.slice + EXTRA).await,
            Worker::Peer(program) => {
                let callers = load.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
                peer::load(program, &self.backends, callers, self.slice).await
            }
        }
    }

    async fn end(self) -> Result<(), String> {
        for (_, worker) in self.workers {
            if let Worker::Process(process) = worker {
                process.end().await?;
            }
        }
        self.servers.end().await
    }
}

impl Row {
    fn new(candidate: Candidate, slices: Vec<Slice>, calls: &[u64]) -> Self {
        let (most, least) = (calls.iter().max().copied(), calls.iter().min().copied());
        let uneven = most.zip(least).filter(|(_, least)| *least > 0);
        let all = |value: fn(&Slice) -> f64| slices.iter().map(value).collect::<Vec<_>>();
        Self {
            candidate,
            rate: median(&all(Slice::rate)),
            cpu_us: median(&all(Slice::cpu_us)),
            uneven: uneven.map(|(most, least)| most as f64 / least as f64),
            failed: slices.iter().map(|s| s.failed).sum(),
            slices,
        }
    }

    fn values(&self, value: fn(&Slice) -> f64) -> Vec<f64> {
        self.slices.iter().map(value).collect()
    }
}

/// Ours to each of the others, and to the better one of tonic's two ways.
fn ratios(load: &str, rows: &[Row]) -> Vec<Ratio> {
    let Some(ours) = rows.iter().find(|row| row.candidate == Candidate::Evenkeel) else {
        return Vec::new();
    };
    let unary = load.starts_with("unary");
    let one_caller = load.starts_with("unary 1 ");
    let mut ratios = Vec::new();
    let mut push = |what, to: String, theirs: &Row, value: fn(&Slice) -> f64, aim| {
        let estimate = Estimate::of_ratios(&ours.values(value), &theirs.values(value));
        ratios.extend(estimate.map(|estimate| Ratio { what, to, estimate, aim }));
    };
    let tonic = || {
        rows.iter()
            .filter(|r| [Candidate::BalanceList, Candidate::HandPicked].contains(&r.candidate))
    };
    if unary && tonic().count() == 2 {
        if let Some(better) = tonic().min_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us)) {
            let to = format!("better of tonic ({})", better.candidate.name());
            push("cpu", to, better, Slice::cpu_us, Some(0.78));
        }
        if let Some(better) = tonic().max_by(|a, b| a.rate.total_cmp(&b.rate)) {
            let to = format!("better of tonic ({})", better.candidate.name());
            let aim = if one_caller { 1.05 } else { 1.15 };
            push("rate", to, better, Slice::rate, Some(aim));
        }
    }
    for theirs in rows.iter().filter(|row| row.candidate != Candidate::Evenkeel) {
        let to = || theirs.candidate.name().to_owned();
        let cpu = (theirs.candidate == Candidate::GrpcGo).then_some(0.55);
        push("cpu", to(), theirs, Slice::cpu_us, cpu);
        push("rate", to(), theirs, Slice::rate, (!unary).then_some(1.0));
    }
    ratios
}

fn print(report: &Report) {
    println!("server: {}; {} cores", report.server, report.cores);
    println!("{} rounds of {} ms; interval: {}", report.rounds, report.slice_ms, report.interval);
    for line in &report.skipped {
        println!("skipped {line}");
    }
    for load in &report.loads {
        let what = if load.load.starts_with("unary") { "calls" } else { "messages" };
        let head = ["candidate", &format!("{what}/s"), "CPU µs", "max/min backend", "failed"];
        let rows = load.rows.iter().map(|row| {
            let uneven = row.uneven.map_or_else(|| "-".into(), |u| format!("{u:.3}"));
            let (rate, cpu) = (format!("{:.0}", row.rate), format!("{:.2}", row.cpu_us));
            vec![row.candidate.name().into(), rate, cpu, uneven, row.failed.to_string()]
        });
        table::print(&load.load, &head, &rows.collect::<Vec<_>>());
        let rows = load.ratios.iter().map(|ratio| {
            let Estimate { median, low, high, confidence } = ratio.estimate;
            let sign = if ratio.what == "cpu" { "≤" } else { "≥" };
            let met = |aim: f64| if ratio.what == "cpu" { median <= aim } else { median >= aim };
            let aim = ratio.aim.map_or_else(String::new, |aim| {
                format!("{sign} {aim} {}", if met(aim) { "met" } else { "NOT MET" })
            });
            let interval = format!("{low:.3} to {high:.3}");
            let confidence = format!("{:.1} %", confidence * 100.0);
            let name = format!("evenkeel {} / {}", ratio.what, ratio.to);
            vec![name, format!("{median:.3}"), interval, confidence, aim]
        });
        let head = ["paired ratio", "median", "interval", "confidence", "aim"];
        table::print("", &head, &rows.collect::<Vec<_>>());
    }
}
