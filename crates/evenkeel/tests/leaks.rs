//! What is left when a channel's work is over: no task, no socket, no stream, no memory. A test
//! binary of its own whose tests run one after the other: sockets and bytes are the process's, and
//! a test beside would have some too.

mod fixture;

use std::{
    alloc::System,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use evenkeel::{
    Channel, ConnectivityState,
    core::observe::{Event, Recorder},
};
use fixture::{
    Backend as Server,
    bytes::{BytesCodec, Echo, Gauge, chat, client, hello, path, unary},
    manual::{Manual, Says},
    runtime::sockets,
    soon, until,
};
use futures_util::{StreamExt as _, stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle},
    sync::mpsc,
    task::{JoinSet, yield_now},
};
use tonic::{Request, service::Routes};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that may be held more after the same work again: buffers and tables whose size is that of
/// the most that there was at once. 14 bytes for each cancelled call, 132 for each channel or 2 for
/// each update are more.
const GROWTH_BYTES_MAX: usize = 64 * 1024;

/// Runs a test while no other test of this process does, on a runtime with one thread.
fn alone(test: impl Future<Output = ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn: MutexGuard<'_, ()> = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// What the process holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    tasks: usize,
    sockets: usize,
}

impl Holdings {
    fn now() -> Self {
        Self { tasks: Handle::current().metrics().num_alive_tasks(), sockets: sockets() }
    }

    /// Waits until nothing is held beyond this; returns the bytes that are.
    async fn settled(self) -> usize {
        until(&format!("{self:?}"), || Self::now() == self).await;
        let stats = INSTRUMENTED_SYSTEM.stats();
        stats.bytes_allocated - stats.bytes_deallocated
    }
}

/// Does a twentieth of the work, so that everything has its size, then one half and the other. The
/// second half must hold no more than the first.
async fn in_halves(what: &str, work: usize, start: Holdings, mut some: impl AsyncFnMut(usize)) {
    let mut held = Vec::new();
    for part in [work / 20, work / 2, work / 2] {
        some(part).await;
        held.push(start.settled().await);
    }
    println!("{work} {what}: {held:?} bytes live after a bit, half, all; {start:?}");
    let growth = held[2].saturating_sub(held[1]);
    assert!(growth <= GROWTH_BYTES_MAX, "{what}: {growth} bytes more after the same again");
}

async fn server(max_streams: u32) -> (Server, Gauge) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = Echo::default();
    let open = echo.open.clone();
    let tune = |b: evenkeel_server::Builder| b.max_concurrent_streams(max_streams);
    (Server::with_routes(listener, Routes::new(echo), tune), open)
}

async fn stop(servers: Vec<Server>) {
    for server in servers {
        server.stop().await;
    }
}

#[test]
fn a_thousand_channels_leave_nothing() {
    const CHANNELS: usize = 1_000;
    const AT_ONCE: usize = 25;
    alone(async {
        let before_all = Holdings::now();
        let (server, _) = server(100).await;
        // By a list, and by the look-ups that the channels of a process share.
        let port = server.address.port();
        let targets = [fixture::target(&[server.address]), format!("dns:///localhost:{port}")];
        let start = Holdings::now();
        in_halves("channels", CHANNELS, start, async |count| {
            for round in 0..count / AT_ONCE {
                let target = &targets[round % targets.len()];
                let channel = |_| Channel::builder(target).build().unwrap();
                let channels: Vec<_> = (0..AT_ONCE).map(channel).collect();
                for channel in &channels {
                    assert_eq!(soon("an answer", hello(channel)).await.unwrap(), "hello");
                }
                let open = sockets() - start.sockets;
                assert!(open >= 2 * AT_ONCE, "both ends are this process's: {open}");
            }
        })
        .await;
        stop(vec![server]).await;
        before_all.settled().await;
    });
}

/// Counts what the channel did.
#[derive(Default)]
struct Counts {
    updates: AtomicUsize,
    connects: AtomicUsize,
}

impl Recorder for Counts {
    fn record(&self, event: &Event<'_>) {
        let counter = match event {
            Event::ResolverUpdate { .. } => &self.updates,
            Event::SubchannelState { state: ConnectivityState::Ready, .. } => &self.connects,
            _ => return,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_hundred_thousand_updates_of_one_channel_leave_nothing() {
    const UPDATES: usize = 100_000;
    /// Updates with the same list, as most are.
    const SAME: usize = 50;
    const CALL_EACH: usize = 100;
    alone(async {
        let before_all = Holdings::now();
        let mut servers = Vec::new();
        for _ in 0..6 {
            servers.push(server(100).await.0);
        }
        let addresses: Vec<SocketAddr> = servers.iter().map(|s| s.address).collect();
        let counts = Arc::new(Counts::default());
        let manual = Manual::new(Says::Addresses(addresses.clone()));
        let start = Holdings::now();
        let channel = Channel::builder("manual:all")
            .register_resolver(manual.factory())
            .recorder(counts.clone())
            .build()
            .unwrap();
        let mut seen = BTreeSet::new();
        let (mut updates, mut backend) = (0, 0);
        soon("an answer", hello(&channel)).await.unwrap();
        // With all of them connected, the channel holds the same at the end of each round.
        let full = async |counts: &Counts| {
            let before = counts.updates.load(Ordering::SeqCst);
            manual.say(Says::Addresses(addresses.clone()));
            until("the list", || counts.updates.load(Ordering::SeqCst) > before).await;
            for _ in 0..100 {
                soon("an answer", hello(&channel)).await.unwrap();
            }
            until("both ends of six", || sockets() == start.sockets + 12).await;
        };
        full(&counts).await;
        let held = Holdings::now();
        in_halves("updates", UPDATES, held, async |count| {
            for _ in 0..count {
                let first = updates / SAME;
                let list = (0..3).map(|i| addresses[(first + i) % addresses.len()]).collect();
                let before = counts.updates.load(Ordering::SeqCst);
                manual.say(Says::Addresses(list));
                while counts.updates.load(Ordering::SeqCst) == before {
                    yield_now().await;
                }
                updates += 1;
                if updates.is_multiple_of(CALL_EACH) {
                    let request = Request::new(Bytes::from_static(b"hello"));
                    let answer = soon("an answer", unary(&channel, request)).await.unwrap();
                    let by = answer.extensions().get::<evenkeel::Backend>().unwrap();
                    seen.insert(by.address.clone());
                    backend += 1;
                }
            }
            full(&counts).await;
        })
        .await;
        assert_eq!(seen.len(), servers.len(), "{backend} calls went to {seen:?}");
        let connects = counts.connects.load(Ordering::SeqCst);
        println!("{updates} updates, {backend} calls, {connects} connections");
        assert!(connects > UPDATES / SAME / 2, "{connects} connections");
        drop(channel);
        start.settled().await;
        stop(servers).await;
        drop(manual);
        before_all.settled().await;
    });
}

/// How a call is left, and so where it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Answered soon: dropped before it is sent, in line for a stream, or in the middle.
    Unary,
    /// Its request never ends, so the response's head never comes.
    Headers,
    /// A long answer of which some is read.
    Reading,
    /// Messages to and fro without an end.
    Streaming,
}

const KINDS: [Kind; 4] = [Kind::Unary, Kind::Headers, Kind::Reading, Kind::Streaming];

/// One call that goes on until it is dropped, or is answered.
async fn call(channel: &Channel, kind: Kind) {
    let ping = Bytes::from_static(b"ping");
    match kind {
        Kind::Unary => drop(hello(channel).await.unwrap()),
        Kind::Headers => {
            let endless = stream::iter([ping]).chain(stream::pending());
            let mut client = client(channel);
            let answer = client.client_streaming(Request::new(endless), path("Count"), BytesCodec);
            let answer: tonic::Response<Bytes> = answer.await.unwrap();
            panic!("a request without an end was answered: {answer:?}");
        }
        Kind::Reading => {
            let request = Request::new(Bytes::from_static(b"1000 100"));
            let mut client = client(channel);
            let answer = client.server_streaming(request, path("Send"), BytesCodec);
            let mut messages = answer.await.unwrap().into_inner();
            while messages.message().await.unwrap().is_some() {
                yield_now().await;
            }
        }
        Kind::Streaming => {
            let (say, said) = mpsc::channel(1);
            say.send(ping).await.unwrap();
            let said = stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
            let mut messages = chat(channel, "Chat", said).await.unwrap().into_inner();
            while let Some(echo) = messages.message().await.unwrap() {
                say.send(echo).await.unwrap();
            }
        }
    }
}

/// Polls a call for some turns of the runtime and drops it. False when it was over before.
async fn cancelled(channel: Channel, kind: Kind, turns: u32) -> bool {
    let some_turns = async {
        for _ in 0..turns {
            yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = some_turns => true,
        () = call(&channel, kind) => false,
    }
}

#[test]
fn ten_thousand_cancelled_calls_leave_nothing() {
    const CANCELLED: usize = 10_000;
    const STREAMS_MAX: u32 = 8;
    const CALLERS: usize = 48;
    const TURNS_MAX: u32 = 40;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    alone(async {
        let before_all = Holdings::now();
        let ((one, open_of_one), (other, open_of_other)) =
            (server(STREAMS_MAX).await, server(STREAMS_MAX).await);
        let open = || open_of_one.now() + open_of_other.now();
        let slots = 2 * STREAMS_MAX as usize;
        let channel =
            Channel::builder(fixture::target(&[one.address, other.address])).build().unwrap();
        let start = Holdings::now();
        // The driver of the channel is there from its beginning, the connections are not.
        until("both connections", || {
            channel.connect();
            sockets() == start.sockets + 4
        })
        .await;
        for _ in 0..10 {
            soon("an answer", hello(&channel)).await.unwrap();
        }
        let connected = Holdings::now();
        let mut left = BTreeMap::<Kind, usize>::new();
        in_halves("cancelled calls", CANCELLED, connected, async |count| {
            let mut calls = JoinSet::new();
            let mut dropped = 0;
            while dropped < count {
                while calls.len() < CALLERS {
                    let kind = KINDS[rng.usize(..KINDS.len())];
                    let turns = rng.u32(..TURNS_MAX);
                    let call = cancelled(channel.clone(), kind, turns);
                    calls.spawn(async move { (kind, call.await) });
                }
                let next = soon("the next to go", calls.join_next()).await;
                let (kind, was_dropped) = next.expect("there are some").unwrap();
                dropped += usize::from(was_dropped);
                *left.entry(kind).or_default() += usize::from(was_dropped);
            }
            soon("all to go", calls.shutdown()).await;
            until("no call at the servers", || open() == 0).await;
            full_house(&channel, slots, &open).await;
        })
        .await;
        println!(
            "dropped: {left:?}; at once at the servers at most {} and {}",
            open_of_one.most(),
            open_of_other.most()
        );
        assert!(KINDS.iter().all(|kind| left[kind] > CANCELLED / 20), "{left:?}");
        let most = [open_of_one.most(), open_of_other.most()];
        assert_eq!(most, [slots / 2; 2], "calls had to wait for a stream");
        drop(channel);
        stop(vec![one, other]).await;
        before_all.settled().await;
    });
}

/// As many calls at once as there are streams get through, and not one more.
async fn full_house(channel: &Channel, slots: usize, open: impl Fn() -> usize) {
    let endless = || stream::iter([Bytes::from_static(b"ping")]).chain(stream::pending());
    let mut guests = Vec::new();
    for _ in 0..slots {
        let mut guest = soon("a free stream", chat(channel, "Chat", endless())).await.unwrap();
        let first = soon("a message", guest.get_mut().message()).await.unwrap();
        assert_eq!(first.unwrap(), "ping");
        guests.push(guest);
    }
    assert_eq!(open(), slots);
    let mut one_more = Box::pin(hello(channel));
    tokio::select! {
        biased;
        answer = &mut one_more => panic!("no stream is free, yet it got {answer:?}"),
        () = async { for _ in 0..1_000 { yield_now().await } } => {}
    }
    drop(guests.pop());
    assert_eq!(soon("the stream that became free", one_more).await.unwrap(), "hello");
    drop(guests);
    until("no guest", || open() == 0).await;
}
