//! Attacks a server on loopback and prints what it cost: memory of the server, calls of clients
//! that behave, and which limit was counted. The tests prove each defence; this shows its price,
//! beside tonic's own server on the same libraries. Stops by itself after some minutes at most:
//!
//! ```text
//! cargo run -p evenkeel-server --example attack [evenkeel|tonic [NAME]]
//! ```
//!
//! Server, attackers and good clients are processes of their own, so that memory is the server's
//! alone. Good clients call at a steady rate (an open loop), half of the time under attack.

#[path = "../tests/wire/mod.rs"]
mod wire;

use std::{
    net::SocketAddr,
    process::{ExitCode, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel_server::Server;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until, timeout, timeout_at},
};
use wire::{
    BoxError, Client,
    attacks::{Flood, flood_counted},
    frames::{self, Frames},
    probe::Probe,
};

type Result<T> = std::result::Result<T, BoxError>;

const GOOD_CLIENTS: usize = 8;
/// Of each client: together 1,000 calls a second.
const CALL_INTERVAL: Duration = Duration::from_millis(8);
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
const ATTACKERS: usize = 4;
const LOWEST_PRIORITY: i32 = 19;
const IDLE_CONNECTIONS: usize = 10_000;
/// Bytes of a response that a stalling attacker asks for.
const REPLY: &str = "big 65536";
/// Short, so that a run sees them pass.
const STALL_MAX: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(4);

/// One line of the table.
#[derive(Clone, Copy)]
enum Attack {
    Flood(Flood),
    /// Connections that greet and then do nothing.
    Idle,
    /// Calls whose answers get no flow-control window.
    ZeroWindow,
    /// Calls with all the window there is, and nobody reads the socket.
    Unread,
    /// Header blocks byte by byte.
    SlowLoris,
}

impl Attack {
    fn all() -> Vec<Self> {
        let holds = [Self::Idle, Self::ZeroWindow, Self::Unread, Self::SlowLoris];
        Flood::ALL.into_iter().map(Self::Flood).chain(holds).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Flood(flood) => format!("{flood:?}"),
            Self::Idle => format!("{IDLE_CONNECTIONS} idle"),
            Self::ZeroWindow => "ZeroWindow".to_owned(),
            Self::Unread => "UnreadSocket".to_owned(),
            Self::SlowLoris => "SlowLoris".to_owned(),
        }
    }

    /// Rounds of quiet and attack, and the time of each half.
    fn rounds(self) -> (u32, Duration) {
        match self {
            Self::Flood(_) => (3, Duration::from_millis(500)),
            Self::Idle => (1, Duration::from_secs(10)),
            _ => (1, Duration::from_secs(3)),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let limit = getrlimit(Resource::Nofile);
    // 10,000 connections need as many descriptors.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let result = match (raised, args.as_slice()) {
        (Err(error), _) => Err(error.into()),
        (_, ["server", kind]) => serve(kind).await,
        (_, ["attacker", index, address, ms]) => attacker(index, address, ms).await,
        (_, []) => table("evenkeel", "").await,
        (_, [kind @ ("evenkeel" | "tonic")]) => table(kind, "").await,
        (_, [kind @ ("evenkeel" | "tonic"), only]) => table(kind, only).await,
        _ => Err("expected nothing, or `evenkeel` or `tonic` and an attack's name".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The server's process: says its address, then its counters whenever a line comes in.
async fn serve(kind: &str) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let routes = Probe::default().routes();
    let server = Server::builder()
        .handshake_timeout(STALL_MAX)
        .max_write_stall(STALL_MAX)
        .max_response_stall(STALL_MAX)
        .max_connection_idle(IDLE_MAX)
        .build(routes.clone())?;
    let stats = server.stats();
    let mut serving = JoinSet::new();
    if kind == "tonic" {
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_routes(routes);
        serving.spawn(async { server.serve_with_incoming(incoming).await.map_err(BoxError::from) });
    } else {
        serving.spawn(async { Ok(server.serve([listener]).await.map(|_| ())?) });
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        let counted = stats.counters().filter(|(name, count)| *count > 0 && is_limit(name));
        let text: Vec<_> = counted.map(|(name, count)| format!("{name}={count}")).collect();
        println!("{}", text.join(" "));
    }
    Ok(())
}

fn is_limit(name: &str) -> bool {
    let limits =
        ["abuse_", "protocol_", "frames_stalled", "writes_", "responses_", "streams_refused"];
    let connections = ["connections_refused", "connections_idle"];
    limits.iter().chain(&connections).any(|prefix| name.starts_with(prefix))
}

/// The attackers' process: attacks for a time and says what it sent.
async fn attacker(index: &str, address: &str, ms: &str) -> Result<()> {
    // A real attacker has processors of its own; here it gets what server and clients leave.
    setpriority_process(None, LOWEST_PRIORITY)?;
    let attack = Attack::all()[index.parse::<usize>()?];
    let address: SocketAddr = address.parse()?;
    let until = tokio::time::Instant::now() + Duration::from_millis(ms.parse()?);
    let sent = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..ATTACKERS {
        let (sent, ended) = (Arc::clone(&sent), Arc::clone(&ended));
        tasks.spawn(timeout_at(until, async move {
            match attack {
                Attack::Flood(kind) => floods(address, kind, &sent, &ended).await,
                _ => hold(address, attack, &sent, &ended).await,
            }
        }));
    }
    while tasks.join_next().await.is_some() {}
    println!("{} {}", sent.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
    Ok(())
}

/// Floods one connection after the other.
async fn floods(address: SocketAddr, kind: Flood, sent: &AtomicU64, ended: &AtomicU64) {
    loop {
        let outcome = flood_counted(address, kind, u64::MAX, sent).await;
        ended.fetch_add(u64::from(outcome.is_ok_and(|outcome| outcome.ended)), Ordering::Relaxed);
    }
}

/// Opens this attacker's share of connections and keeps them until the server ends them.
async fn hold(address: SocketAddr, attack: Attack, sent: &AtomicU64, ended: &Arc<AtomicU64>) {
    let (connections, calls) = match attack {
        Attack::Idle => (IDLE_CONNECTIONS / ATTACKERS, 0),
        Attack::SlowLoris => (250, 0),
        _ => (1, 1_000),
    };
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let Ok(mut socket) = TcpStream::connect(address).await else { continue };
        let window = if matches!(attack, Attack::Unread) { u32::MAX >> 1 } else { 0 };
        let mut bytes = [frames::PREFACE, &frames::settings(&[(4, window)])].concat();
        let increment = (u32::MAX >> 1) - 65_535;
        bytes.extend(frames::frame(frames::WINDOW_UPDATE, 0, 0, &increment.to_be_bytes()));
        for stream in (1..).step_by(2).take(calls) {
            bytes.extend(frames::request_headers(stream));
            bytes.extend(frames::request_data(stream, REPLY));
        }
        if socket.write_all(&bytes).await.is_err() {
            ended.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        sent.fetch_add(3 + 2 * calls as u64, Ordering::Relaxed);
        tasks.spawn(stay(Frames { socket }, attack, Arc::clone(ended)));
    }
    while tasks.join_next().await.is_some() {}
}

/// Keeps a connection in the way of its attack until the server ends it.
async fn stay(mut connection: Frames, attack: Attack, ended: Arc<AtomicU64>) {
    match attack {
        Attack::Unread => std::future::pending().await,
        Attack::SlowLoris => {
            let mut tick = interval(Duration::from_millis(100));
            for byte in frames::request_headers(1) {
                tick.tick().await;
                if connection.socket.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
        }
        _ => {
            let mut bytes = [0; 4096];
            while matches!(connection.socket.read(&mut bytes).await, Ok(1..)) {}
        }
    }
    ended.fetch_add(1, Ordering::Relaxed);
}

/// A server's process as the table sees it.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Process {
    async fn start(kind: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["server", kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().ok_or("its input is piped")?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("it is piped")?).lines();
        let address = stdout.next_line().await?.ok_or("the server did not start")?.parse()?;
        Ok(Self { child, stdin, stdout, address })
    }

    /// A size from the kernel, in MiB.
    fn mib(&self, field: &str) -> Result<f64> {
        let id = self.child.id().ok_or("the server ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find(|line| line.starts_with(field)).ok_or("no such field")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
        Ok(kib / 1024.0)
    }

    async fn counters(&mut self) -> Result<String> {
        self.stdin.write_all(b"\n").await?;
        Ok(self.stdout.next_line().await?.ok_or("the server ended")?)
    }
}

/// What good clients got done, quiet and under attack.
#[derive(Default)]
struct Tally {
    answered: [AtomicU64; 2],
    failed: AtomicU64,
    latencies: [Mutex<Vec<Duration>>; 2],
    attacked: AtomicU64,
}

impl Tally {
    fn rate(&self, attacked: usize, time: Duration) -> f64 {
        self.answered[attacked].load(Ordering::Relaxed) as f64 / time.as_secs_f64()
    }

    fn p99_ms(&self, attacked: usize) -> f64 {
        let mut latencies = self.latencies[attacked].lock().expect("not poisoned");
        latencies.sort_unstable();
        let at = latencies.len() * 99 / 100;
        latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }
}

/// Starts calls at a steady rate, whatever became of the last; one connection as long as it lives.
async fn good_client(address: SocketAddr, tally: Arc<Tally>) {
    let mut tick = interval(CALL_INTERVAL);
    // What an attack held up is not made up for when it is over.
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut calls = JoinSet::new();
    loop {
        let Ok(Ok(mut client)) = timeout(CALL_TIMEOUT, Client::try_connect(address)).await else {
            tally.failed.fetch_add(1, Ordering::Relaxed);
            tick.tick().await;
            continue;
        };
        while client.takes_calls().await {
            tick.tick().await;
            while calls.try_join_next().is_some() {}
            let attacked = tally.attacked.load(Ordering::Relaxed) as usize;
            let sent = client.start(wire::SAY_HELLO, &[], &wire::hello("you")).await;
            calls.spawn(good_call(sent, Arc::clone(&tally), attacked));
        }
    }
}

/// Counts one call for the phase in which it began.
async fn good_call(
    sent: std::result::Result<h2::client::ResponseFuture, h2::Error>,
    tally: Arc<Tally>,
    attacked: usize,
) {
    let started = Instant::now();
    let call = async { wire::finish(sent?).await };
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) if answer.grpc_status == Some(0) => {
            tally.answered[attacked].fetch_add(1, Ordering::Relaxed);
            let mut latencies = tally.latencies[attacked].lock().expect("not poisoned");
            latencies.push(started.elapsed());
        }
        _ => {
            tally.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn table(kind: &str, only: &str) -> Result<()> {
    println!(
        "{kind}: {GOOD_CLIENTS} good clients, {} calls/s; {ATTACKERS} attackers reconnect at once; \
         RSS in MiB; stalls {STALL_MAX:?}, idle {IDLE_MAX:?}",
        GOOD_CLIENTS as u128 * 1000 / CALL_INTERVAL.as_millis()
    );
    println!(
        "{:<14} {:>9} {:>6} {:>6} {:>6} {:>8} {:>8} {:>5} {:>6} {:>7} {:>7}  limits counted",
        "attack",
        "frames",
        "ended",
        "before",
        "peak",
        "quiet/s",
        "attack/s",
        "ratio",
        "failed",
        "p99 ms",
        "p99 ms"
    );
    for (index, attack) in Attack::all().into_iter().enumerate() {
        if attack.name().contains(only) {
            row(kind, index, attack).await?;
        }
    }
    Ok(())
}

async fn row(kind: &str, index: usize, attack: Attack) -> Result<()> {
    let mut server = Process::start(kind).await?;
    let tally = Arc::<Tally>::default();
    let mut good = JoinSet::new();
    for _ in 0..GOOD_CLIENTS {
        good.spawn(good_client(server.address, Arc::clone(&tally)));
    }
    let (rounds, half) = attack.rounds();
    let (mut frames_sent, mut ended, mut before) = (0, 0, None);
    let mut times = [Duration::ZERO; 2];
    for _ in 0..rounds {
        let started = Instant::now();
        sleep_until(tokio::time::Instant::now() + half).await;
        times[0] += started.elapsed();
        let started = Instant::now();
        before.get_or_insert(server.mib("VmRSS")?);
        tally.attacked.store(1, Ordering::Relaxed);
        let output = Command::new(std::env::current_exe()?)
            .args(["attacker", &index.to_string(), &server.address.to_string()])
            .arg(half.as_millis().to_string())
            .kill_on_drop(true)
            .output()
            .await?;
        times[1] += started.elapsed();
        tally.attacked.store(0, Ordering::Relaxed);
        let text = String::from_utf8(output.stdout)?;
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        frames_sent += numbers.next().ok_or("the attacker failed")??;
        ended += numbers.next().ok_or("the attacker failed")??;
    }
    let (quiet, attacked) = (tally.rate(0, times[0]), tally.rate(1, times[1]));
    good.shutdown().await;
    println!(
        "{:<14} {frames_sent:>9} {ended:>6} {:>6.1} {:>6.1} {quiet:>8.0} {attacked:>8.0} \
         {:>5.2} {:>6} {:>7.2} {:>7.2}  {}",
        attack.name(),
        before.unwrap_or(f64::NAN),
        server.mib("VmHWM")?,
        attacked / quiet,
        tally.failed.load(Ordering::Relaxed),
        tally.p99_ms(0),
        tally.p99_ms(1),
        server.counters().await?,
    );
    server.child.kill().await?;
    Ok(())
}
