//! One good backend and one bad peer in the endpoint list, for each kind of bad that is met in the
//! wild: how many calls that costs. `connecting.rs` asks what a bad peer alone is told as; here the
//! channel has somewhere else to go, and has to go there.
//!
//! `cargo test -p evenkeel --test bad_peers -- --nocapture` prints the counts.

mod fixture;

use std::{
    any::Any,
    future::{Future, pending},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use evenkeel::{Backoff, Channel, Keepalive};
use fixture::{
    Backend,
    bytes::{Echo, unary},
    events::Events,
    frames::{self, Frames, NO_ERROR},
    peer::{self, Peer},
    soon,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};
use tonic::{Code, Request, Status, service::Routes};

const CALLERS: usize = 10;
const BACKOFF: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);
/// A good backend answers within it on a busy machine, too.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A bad peer that is there.
struct Bad {
    address: SocketAddr,
    /// Ends it when dropped.
    _holds: Box<dyn Any>,
}

impl Bad {
    fn new(address: SocketAddr, holds: impl Any) -> Self {
        Self { address, _holds: Box::new(holds) }
    }

    /// Every connection is the script's.
    async fn scripted<F>(script: impl Fn(usize, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let peer = Peer::start(script).await;
        Self::new(peer.address, peer)
    }
}

type Starting = Pin<Box<dyn Future<Output = Bad>>>;

/// One kind of bad peer.
struct Kind {
    name: &'static str,
    start: fn() -> Starting,
    /// The event that each bad thing it does ends in, after its address.
    event: &'static str,
    /// How often that has to happen while calls run.
    times: usize,
    /// How many calls run at least.
    calls: usize,
    /// How long a connection may take until it is READY.
    connect_timeout: Duration,
}

/// What became of the calls beside one peer.
#[derive(Default)]
struct Outcome {
    calls: usize,
    failures: Vec<Status>,
}

/// Runs calls until there were enough and the peer was bad often enough.
async fn run(kind: &Kind) -> (Outcome, Events, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let good = Backend::with_routes(listener, Routes::new(Echo::default()), |b| b);
    let bad = (kind.start)().await;
    let events = Events::default();
    let channel = Channel::builder(fixture::target(&[bad.address, good.address]))
        .backoff(Backoff { initial: BACKOFF, multiplier: 1.0, jitter: 0.0, max: BACKOFF })
        .connect_timeout(kind.connect_timeout)
        .keepalive(Keepalive {
            time: Duration::from_millis(100),
            timeout: KEEPALIVE_TIMEOUT,
            permit_without_calls: false,
        })
        .allow_aggressive_keepalive(true)
        .recorder(events.recorder())
        .build()
        .unwrap();
    fixture::ready(&channel).await;
    let started = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    let (wanted, times) = (kind.calls, kind.times);
    for _ in 0..CALLERS {
        let (channel, events, started) = (channel.clone(), events.clone(), started.clone());
        let was_bad = format!("{} {}", bad.address, kind.event);
        callers.spawn(async move {
            let mut seen = Outcome::default();
            while started.load(Ordering::Relaxed) < wanted || events.count(&was_bad) < times {
                started.fetch_add(1, Ordering::Relaxed);
                let mut request = Request::new(Bytes::from_static(b"hello"));
                request.set_timeout(fixture::PATIENCE);
                seen.calls += 1;
                match unary(&channel, request).await {
                    Ok(answer) => assert_eq!(answer.into_inner(), "hello"),
                    Err(status) => seen.failures.push(status),
                }
            }
            seen
        });
    }
    let mut all = Outcome::default();
    while let Some(seen) = soon(kind.name, callers.join_next()).await {
        let seen = seen.unwrap();
        all.calls += seen.calls;
        all.failures.extend(seen.failures);
    }
    drop(channel);
    good.stop().await;
    (all, events, bad.address)
}

/// The counts, printed as one at the end: tests run side by side.
struct Table(String);

impl Table {
    fn new() -> Self {
        let (peer, times) = ("beside a peer that", "bad times");
        Self(format!("\n{peer:<30} {:>7} {:>7} {times:>9}\n", "calls", "failed"))
    }

    fn add(&mut self, kind: &Kind, outcome: &Outcome, events: &Events, bad: SocketAddr) {
        let times = events.count(&format!("{bad} {}", kind.event));
        let failed = outcome.failures.len();
        self.0 += &format!("{:<30} {:>7} {failed:>7} {times:>9}\n", kind.name, outcome.calls);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

async fn swallow(mut socket: TcpStream) {
    let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
}

async fn say(mut socket: TcpStream, text: &[u8]) {
    // A client that has closed already is no matter.
    let _ = socket.write_all(text).await;
    swallow(socket).await;
}

/// The kernel drops what comes to a queue that is full, as a firewall does.
async fn black_hole() -> Bad {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fills = soon("a place in the queue", TcpStream::connect(address)).await.unwrap();
    Bad::new(address, (listener, fills))
}

async fn refuses() -> Bad {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    Bad::new(listener.local_addr().unwrap(), ())
}

/// A SETTINGS frame that comes, but not in this life.
async fn loris(mut socket: TcpStream) {
    let head = [0, 0x3f, 0xfc, frames::SETTINGS, 0, 0, 0, 0, 0];
    for byte in head.into_iter().chain(std::iter::repeat(0)) {
        if socket.write_all(&[byte]).await.is_err() {
            return;
        }
        // To be slow is what makes it one.
        tokio::time::sleep(CONNECT_TIMEOUT / 20).await;
    }
}

const NO_CONNECTION: &str = "TRANSIENT_FAILURE: cannot connect";

/// Kinds that never get READY, so no call is sent to them.
const NEVER_READY: [Kind; 9] = [
    never("refuses", || Box::pin(refuses())),
    never("resets at accept", || {
        Box::pin(Bad::scripted(|_, socket| async move { peer::reset(socket) }))
    }),
    never("is a black hole", || Box::pin(black_hole())),
    never("accepts and says nothing", || Box::pin(Bad::scripted(|_, socket| swallow(socket)))),
    never("greets byte by byte for ever", || Box::pin(Bad::scripted(|_, socket| loris(socket)))),
    never("speaks HTTP/1", || {
        let text = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
        Box::pin(Bad::scripted(|_, socket| say(socket, text)))
    }),
    never("speaks TLS", || {
        let alert = &[0x15, 3, 3, 0, 2, 2, 70, 0x15, 3, 3, 0, 2, 2, 70];
        Box::pin(Bad::scripted(|_, socket| say(socket, alert)))
    }),
    never("sends garbage", || {
        Box::pin(Bad::scripted(|_, socket| say(socket, b"220 mail.example ESMTP ready\r\n")))
    }),
    never("greets and resets at once", || {
        Box::pin(Bad::scripted(|_, mut socket| async move {
            let _ = socket.write_all(&[0, 0, 0, frames::SETTINGS, 0, 0, 0, 0, 0]).await;
            peer::reset(socket);
        }))
    }),
];

const fn never(name: &'static str, start: fn() -> Starting) -> Kind {
    let (event, connect_timeout) = (NO_CONNECTION, CONNECT_TIMEOUT);
    Kind { name, start, event, times: 3, calls: 1_000, connect_timeout }
}

#[tokio::test]
async fn peer_that_never_gets_ready_costs_no_call() {
    let mut table = Table::new();
    for kind in NEVER_READY {
        let (outcome, events, bad) = run(&kind).await;
        table.add(&kind, &outcome, &events, bad);
        assert!(outcome.failures.is_empty(), "{}: {:?}", kind.name, outcome.failures[0]);
        assert_eq!(events.count(&format!("{bad} READY")), 0, "{}", kind.name);
    }
}

/// Passes on one byte at a time, as it reads.
async fn one_by_one(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    while let Ok(byte) = from.read_u8().await {
        if to.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A good server behind a wire that carries one byte at a time, in both directions.
async fn byte_by_byte() -> Bad {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = Backend::with_routes(listener, Routes::new(Echo::default()), |b| b);
    let address = server.address;
    let wire = Peer::start(move |_, client| async move {
        let server = TcpStream::connect(address).await.unwrap();
        server.set_nodelay(true).unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(one_by_one(from_client, to_server), one_by_one(from_server, to_client));
    })
    .await;
    Bad::new(wire.address, (wire, server))
}

/// Kinds that take calls, and tell what became of each.
const HONEST: [Kind; 2] = [
    Kind {
        name: "answers all calls with GOAWAY",
        start: || {
            Box::pin(Bad::scripted(|_, socket| async move {
                let mut frames = Frames::greet(socket, &[]).await;
                if frames.request().await.is_some() {
                    frames.goaway(0, NO_ERROR, b"").await;
                    frames.drain().await;
                }
            }))
        },
        event: "ended",
        times: 5,
        calls: 1_000,
        connect_timeout: CONNECT_TIMEOUT,
    },
    Kind {
        name: "reads and writes byte by byte",
        start: || Box::pin(byte_by_byte()),
        event: "READY",
        times: 1,
        calls: 200,
        // A hundred bytes take their time.
        connect_timeout: fixture::PATIENCE,
    },
];

#[tokio::test]
async fn peer_that_tells_what_it_did_not_process_costs_no_call() {
    let mut table = Table::new();
    for kind in HONEST {
        let (outcome, events, bad) = run(&kind).await;
        table.add(&kind, &outcome, &events, bad);
        assert!(outcome.failures.is_empty(), "{}: {:?}", kind.name, outcome.failures[0]);
    }
}

/// Kinds that leave calls without a word about them.
const SILENT: [Kind; 2] = [
    Kind {
        name: "resets under its calls",
        start: || {
            Box::pin(Bad::scripted(|_, socket| async move {
                let mut frames = Frames::greet(socket, &[]).await;
                for _ in 0..20 {
                    let Some(stream) = frames.request().await else { return };
                    frames.answer(stream, b"hello").await;
                }
                frames.request().await;
                peer::reset(frames.socket);
            }))
        },
        event: "ended",
        times: 5,
        calls: 1_000,
        connect_timeout: CONNECT_TIMEOUT,
    },
    Kind {
        name: "vanishes without FIN",
        start: || {
            Box::pin(Bad::scripted(|number, socket| async move {
                // The kernel goes on accepting; nobody is behind it.
                let half_open = if number == 0 {
                    let mut frames = Frames::greet(socket, &[]).await;
                    frames.request().await;
                    frames.socket
                } else {
                    socket
                };
                pending::<()>().await;
                drop(half_open);
            }))
        },
        event: NO_CONNECTION,
        times: 3,
        calls: 1_000,
        connect_timeout: CONNECT_TIMEOUT,
    },
];

#[tokio::test]
async fn peer_that_vanishes_costs_the_calls_in_flight_and_no_other() {
    let mut table = Table::new();
    for kind in SILENT {
        let (outcome, events, bad) = run(&kind).await;
        table.add(&kind, &outcome, &events, bad);
        let in_flight: usize = events
            .list()
            .iter()
            .filter_map(|event| event.strip_prefix(&format!("{bad} ended with ")))
            .map(|rest| rest.split(':').next().unwrap().parse::<usize>().unwrap())
            .sum();
        let failed = outcome.failures.len();
        assert!((1..=in_flight).contains(&failed), "{}: {failed} of {in_flight}", kind.name);
        for status in outcome.failures {
            assert_eq!(status.code(), Code::Unavailable, "{}: {status}", kind.name);
            assert!(status.message().contains(&bad.to_string()), "{}: {status}", kind.name);
        }
    }
}
