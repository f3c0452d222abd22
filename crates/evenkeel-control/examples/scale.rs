//! What many clients cost the balancer: how long a change takes to reach all of them, memory of a
//! stream that waits, and memory of a client that does not read. Nothing is asserted but that lists
//! arrive; `met` and `NOT MET` stand beside what is aimed at. On a machine that does nothing else:
//!
//! ```text
//! cargo run --release -p evenkeel-control --example scale [STREAMS ENDPOINTS]
//! ```
//!
//! The balancer is this process, with one service from a watch; the clients are another one, each
//! with a connection of its own over h2 and the flow-control windows of HTTP/2's defaults, so that
//! memory is the balancer's alone.

use std::{
    net::SocketAddr,
    process::{ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use evenkeel_control::{
    Control, ServiceKey,
    config::Config,
    grpclb::{Grpclb, GrpclbSettings},
    merge::Change,
    names::NameRules,
    snapshot::Endpoint,
};
use evenkeel_proto::grpc::lb::v1::{
    InitialLoadBalanceRequest, LoadBalanceRequest,
    load_balance_request::LoadBalanceRequestType as Asked,
};
use evenkeel_server::Server;
use h2::{RecvStream, client};
use prost::Message as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Notify,
    time::timeout,
};
use tonic::service::Routes;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const STREAMS: usize = 500;
const ENDPOINTS: usize = 10_000;
/// Changes that are measured, after two that warm up.
const CHANGES: usize = 11;
const WARM_UP: usize = 2;
/// Clients that do not read, each of which begins another list.
const STALLED: usize = 20;
const WAIT_MAX: Duration = Duration::from_secs(60);
const AIM_CHANGE_S: f64 = 1.0;
const AIM_STREAM_KIB: f64 = 50.0;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["clients", address] => clients(address).await,
        [] => balancer(STREAMS, ENDPOINTS).await,
        [streams, endpoints] => match (streams.parse(), endpoints.parse()) {
            (Ok(streams), Ok(endpoints @ 1..=20_000)) => balancer(streams, endpoints).await,
            _ => Err("expected a number of streams and one of endpoints, up to 20000".into()),
        },
        _ => Err("expected STREAMS and ENDPOINTS, or nothing".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A balancer with one service, whose endpoints change on demand.
struct Stage {
    control: Control,
    key: ServiceKey,
    clients: Clients,
    /// Lists that there were.
    lists: u64,
}

async fn balancer(streams: usize, endpoints: usize) -> Result<()> {
    let limits = "limits: {streams_max: 100000, streams_per_peer_max: 100000}";
    let yaml = format!("services: [{{name: greeter, port: 8000}}]\n{limits}");
    let control = Control::new(NameRules::default(), Config::default());
    control.configure(&Config::from_yaml(&yaml, "scale", "default")?);
    let key = ServiceKey::parse("greeter:8000", "default")?;
    let address = |n: usize| SocketAddr::from(((0x0a00_0000 + n as u32).to_be_bytes(), 8000));
    let all = (0..endpoints).map(|n| Endpoint::new(address(n))).collect();
    control.watched(&key, Change::Replace(all));
    let grpclb = Grpclb::new(control.clone(), GrpclbSettings::default());
    let server = Server::builder().max_connections(200_000).build(Routes::new(grpclb))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let clients = Clients::start(listener.local_addr()?).await?;
    tokio::spawn(server.serve([listener]));
    let mut stage = Stage { control, key, clients, lists: 1 };

    println!("{streams} streams, {endpoints} endpoints, 1 process; medians of {CHANGES} changes");
    stage.clients.ask("open 1").await?;
    let one = stage.changes(endpoints).await?;
    let before = resident_kib()?;
    stage.clients.ask(&format!("open {}", streams.saturating_sub(1))).await?;
    let grown = resident_kib()?.saturating_sub(before) as f64 / streams.max(2) as f64;
    let all = stage.changes(endpoints).await?;
    let (small, large) = (median(&one), median(&all));
    println!("one change reaches 1 stream:      {small:.4} s");
    println!("one change reaches all streams:   {large:.4} s, {}", met(large, AIM_CHANGE_S));
    println!("  the slowest of them:            {:.4} s", all[all.len() - 1]);
    println!("  ratio:                          {:.1} ({streams} streams)", large / small);
    let after = resident_kib()?.saturating_sub(before) as f64 / streams.max(2) as f64;
    println!("memory of a stream that waits:    {grown:.1} KiB, {}", met(grown, AIM_STREAM_KIB));
    println!("  after {CHANGES} changes more:         {after:.1} KiB");
    stage.stalled(endpoints).await?;
    stage.clients.end().await
}

impl Stage {
    /// Takes one endpoint out and puts it back, in turn.
    fn change(&mut self, endpoints: usize) {
        self.lists += 1;
        let last = SocketAddr::from(((0x0a00_0000 + endpoints as u32).to_be_bytes(), 8000));
        let (put, remove) = match self.lists % 2 {
            0 => (vec![Endpoint::new(last)], Vec::new()),
            _ => (Vec::new(), vec![last]),
        };
        self.control.watched(&self.key, Change::Patch { put, remove });
    }

    /// How long each change takes to be at every client, in seconds and in order.
    async fn changes(&mut self, endpoints: usize) -> Result<Vec<f64>> {
        let mut took = Vec::new();
        for number in 0..WARM_UP + CHANGES {
            let wanted = if self.lists.is_multiple_of(2) { endpoints } else { endpoints + 1 };
            let begun = Instant::now();
            self.change(endpoints);
            self.clients.ask(&format!("entries {wanted}")).await?;
            if number >= WARM_UP {
                took.push(begun.elapsed().as_secs_f64());
            }
        }
        took.sort_by(f64::total_cmp);
        Ok(took)
    }

    /// Clients that begin a list each and read no more, with changes between them.
    async fn stalled(&mut self, endpoints: usize) -> Result<()> {
        let before = resident_kib()?;
        for _ in 0..STALLED {
            self.clients.ask("stall").await?;
            self.change(endpoints);
        }
        let wanted = if self.lists.is_multiple_of(2) { endpoints + 1 } else { endpoints };
        self.clients.ask(&format!("entries {wanted}")).await?;
        let begun = resident_kib()?.saturating_sub(before) as f64 / STALLED as f64;
        for _ in 0..CHANGES {
            self.change(endpoints);
        }
        let wanted = if self.lists.is_multiple_of(2) { endpoints + 1 } else { endpoints };
        self.clients.ask(&format!("entries {wanted}")).await?;
        let later = resident_kib()?.saturating_sub(before) as f64 / STALLED as f64;
        let list = self.control.follow(&self.key).and_then(|receiver| {
            let snapshot = receiver.borrow().snapshot()?.clone();
            let serving: Vec<_> = snapshot.serving().collect();
            Some(evenkeel_control::grpclb::EncodedList::new(&serving, &[]).bytes())
        });
        let list = list.unwrap_or_default() as f64 / 1024.0;
        println!("a list:                           {list:.1} KiB");
        println!("memory of a client that stalls:   {begun:.1} KiB, {:.2} lists", begun / list);
        println!("  after {CHANGES} changes more:         {later:.1} KiB");
        Ok(())
    }
}

fn met(value: f64, aim: f64) -> String {
    format!("aim ≤ {aim} {}", if value <= aim { "met" } else { "NOT MET" })
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn resident_kib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    Ok(number.ok_or("expected a line VmRSS: N kB in /proc/self/status")?)
}

/// The other process.
struct Clients {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Clients {
    async fn start(address: SocketAddr) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["clients", &address.to_string()]).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        Ok(Self { child, input, output })
    }

    /// Gives an order and waits until it is done.
    async fn ask(&mut self, order: &str) -> Result<()> {
        self.input.write_all(format!("{order}\n").as_bytes()).await?;
        let done = timeout(WAIT_MAX, self.output.next_line()).await;
        match done.map_err(|_| format!("{order}: not done within {WAIT_MAX:?}"))?? {
            Some(line) if line == "done" => Ok(()),
            other => Err(format!("{order}: {other:?}").into()),
        }
    }

    async fn end(mut self) -> Result<()> {
        drop(self.input);
        timeout(WAIT_MAX, self.child.wait()).await??;
        Ok(())
    }
}

/// What a client has.
#[derive(Default)]
struct Seen {
    entries: AtomicU64,
}

/// The other process's work: orders on the input, `done` on the output.
async fn clients(address: &str) -> Result<()> {
    let (mut clients, mut stalled) = (Vec::new(), Vec::new());
    let news = Arc::new(Notify::new());
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        let (what, number) = order.split_once(' ').unwrap_or((&order, "0"));
        let number: u64 = number.parse()?;
        match what {
            "open" => {
                for _ in 0..number {
                    let seen = Arc::new(Seen::default());
                    let body = open(address).await?;
                    tokio::spawn(read(body, seen.clone(), news.clone()));
                    clients.push(seen);
                }
                all(&clients, &news, |entries| entries > 0).await;
            }
            "entries" => all(&clients, &news, |entries| entries == number).await,
            "stall" => {
                let mut body = open(address).await?;
                // The initial response; the list comes behind it until the window is full.
                let _ = body.data().await.ok_or("no initial response")??;
                stalled.push(body);
            }
            other => return Err(format!("no order {other:?}").into()),
        }
        println!("done");
    }
    Ok(())
}

async fn all(clients: &[Arc<Seen>], news: &Notify, is_so: impl Fn(u64) -> bool) {
    loop {
        let heard = news.notified();
        if clients.iter().all(|seen| is_so(seen.entries.load(Ordering::Relaxed))) {
            return;
        }
        heard.await;
    }
}

async fn open(address: &str) -> Result<RecvStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (send, connection) = client::handshake(socket).await?;
    tokio::spawn(connection);
    let request = http::Request::post("http://lb.test/grpc.lb.v1.LoadBalancer/BalanceLoad")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = send.ready().await?.send_request(request, false)?;
    let initial = InitialLoadBalanceRequest { name: "greeter".into() };
    let message =
        LoadBalanceRequest { load_balance_request_type: Some(Asked::InitialRequest(initial)) };
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes)?;
    body.send_data(bytes.freeze(), false)?;
    let received = response.await?.into_body();
    // Its end would be the request's.
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(body);
    });
    Ok(received)
}

/// Counts the entries of each list: fields of the same number and kind, one after the other.
async fn read(mut body: RecvStream, seen: Arc<Seen>, news: Arc<Notify>) {
    let mut bytes = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
        while let Some(message) = message(&mut bytes) {
            if let Some(entries) = entries(&message) {
                seen.entries.store(entries, Ordering::Relaxed);
                news.notify_waiters();
            }
        }
    }
}

fn message(bytes: &mut BytesMut) -> Option<Bytes> {
    let head = bytes.first_chunk::<5>()?;
    let len = 5 + u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    (bytes.len() >= len).then(|| bytes.split_to(len).freeze().slice(5..))
}

/// `None` for the initial response.
fn entries(message: &Bytes) -> Option<u64> {
    const SERVER_LIST: u8 = 0x12;
    if message.first() != Some(&SERVER_LIST) {
        return None;
    }
    let mut rest = &message[1..];
    prost::encoding::decode_varint(&mut rest).ok()?;
    let mut count = 0;
    while !rest.is_empty() {
        prost::encoding::decode_key(&mut rest).ok()?;
        let len = prost::encoding::decode_varint(&mut rest).ok()? as usize;
        rest = rest.get(len..)?;
        count += 1;
    }
    Some(count)
}
