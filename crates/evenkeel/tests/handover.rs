//! Servers that restart on one and the same address under a channel's calls: with the listening
//! socket handed over nobody notices, and without it calls that wait for ready lose nothing either.

mod fixture;

use std::{
    net,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use evenkeel::{Backoff, Channel};
use fixture::{
    Backend,
    bytes::{Echo, unary},
    events::Events,
    soon, until,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};
use tonic::{Request, service::Routes};

const RESTARTS: usize = 10;
const CALLERS: usize = 4;
/// Answers that must come from each server before the next one takes over.
const CALLS_EACH: u64 = 100;
const BACKOFF: Duration = Duration::from_millis(20);

fn server(socket: net::TcpListener) -> Backend {
    socket.set_nonblocking(true).expect("a socket");
    let listener = TcpListener::from_std(socket).expect("a listener");
    Backend::with_routes(listener, Routes::new(Echo::default()), |b| b)
}

/// What the connections of an old server left behind would forbid the address otherwise.
fn reusing() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket
}

/// Callers in a loop; each call must be answered.
struct Callers {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    events: Events,
}

impl Callers {
    async fn start(address: net::SocketAddr, wait_for_ready: bool) -> Self {
        let events = Events::default();
        let channel = Channel::builder(fixture::target(&[address]))
            .backoff(Backoff { initial: BACKOFF, multiplier: 1.0, jitter: 0.0, max: BACKOFF })
            .wait_for_ready(wait_for_ready)
            .recorder(events.recorder())
            .build()
            .unwrap();
        fixture::ready(&channel).await;
        let (answered, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            let (channel, answered, stop) = (channel.clone(), answered.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut request = Request::new(Bytes::from_static(b"hello"));
                    request.set_timeout(fixture::PATIENCE);
                    let answer = unary(&channel, request).await.expect("no call is lost");
                    assert_eq!(answer.into_inner(), "hello");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { answered, stop, tasks, events }
    }

    /// Waits until the server that is there has answered its part.
    async fn are_served(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let enough = || self.answered.load(Ordering::Relaxed) >= before + CALLS_EACH;
        until("answers", || enough() || self.tasks.is_empty()).await;
    }

    /// Ends them all and tells how many calls were answered.
    async fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(caller) = soon("a caller's end", self.tasks.join_next()).await {
            caller.expect("no call was lost");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listening_socket_that_is_handed_over_loses_no_call() {
    let socket = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut old = server(socket.try_clone().unwrap());
    let callers = Callers::start(old.address, false).await;
    for _ in 0..RESTARTS {
        callers.are_served().await;
        let new = server(socket.try_clone().unwrap());
        old.stop().await;
        old = new;
    }
    callers.are_served().await;
    let events = callers.events.clone();
    let answered = callers.end().await;
    println!("{RESTARTS} restarts by hand-over: 0 lost of {answered} calls");
    assert!(events.count("READY") > RESTARTS, "{:?}", events.list());
    assert_eq!(events.count("TRANSIENT_FAILURE"), 0, "{:?}", events.list());
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_ready_survive_the_time_without_a_server() {
    // Bound and not listening: nobody else gets the port while no server is there.
    let held = reusing();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap();
    let start = || {
        let socket = reusing();
        socket.bind(address).unwrap();
        let listener = socket.listen(128).unwrap();
        Backend::with_routes(listener, Routes::new(Echo::default()), |b| b)
    };
    let mut old = start();
    let callers = Callers::start(address, true).await;
    let refused = format!("{address} TRANSIENT_FAILURE: cannot connect");
    for _ in 0..RESTARTS {
        callers.are_served().await;
        let before = callers.events.count(&refused);
        old.stop().await;
        callers.events.wait_for(before + 1, &refused).await;
        old = start();
    }
    callers.are_served().await;
    let answered = callers.end().await;
    println!("{RESTARTS} restarts with a gap: 0 lost of {answered} calls");
    old.stop().await;
}
