//! Streams as a resource: nobody gets more than there are, and nobody waits while one is free.
//! Where a caller waits for ever, loom reports a deadlock.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Waker},
};

use loom::{
    future::block_on,
    model::Builder,
    thread::{self, JoinHandle},
};

use crate::transport::{Place, SlotQueue, StreamSlot, Transport};

/// Tries the orders with at most this many switches that no thread asked for: with three threads
/// there are too many to try all, and nearly every fault needs two.
fn preemptions(max: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(max);
    builder.check(model);
}

/// One connection, and how many hold a stream of it. The count is std's: loom runs its threads in
/// turn, so it is exact at each moment.
#[derive(Clone)]
struct Server {
    queue: Arc<SlotQueue>,
    transport: Arc<Transport>,
    held: Arc<AtomicU32>,
}

impl Server {
    fn new(name: &'static str, queue: &Arc<SlotQueue>, streams_max: u32) -> Self {
        let transport = Transport::new(name, queue, streams_max);
        Self { queue: queue.clone(), transport, held: Arc::default() }
    }

    fn only(streams_max: u32) -> Self {
        Self::new("only", &Arc::default(), streams_max)
    }

    fn take(&self) -> Option<StreamSlot> {
        StreamSlot::take(&self.transport)
    }

    /// A call, from the moment when it looks for a stream: it tries, stands in line, tries again,
    /// and waits; it declines what it has no use for (`call/mod.rs`).
    fn slot(&self) -> StreamSlot {
        if let Some(slot) = self.take() {
            return slot;
        }
        let place = self.queue.join();
        self.take().unwrap_or_else(|| self.wait(&place))
    }

    fn wait(&self, place: &Place) -> StreamSlot {
        loop {
            let offered = block_on(poll_fn(|cx| place.poll_offer(cx)));
            if Arc::ptr_eq(&offered.transport, &self.transport) {
                return offered;
            }
            let own = self.take();
            place.decline(offered);
            if let Some(own) = own {
                return own;
            }
        }
    }

    /// Holds a stream for a moment.
    fn hold(&self, slot: StreamSlot, streams_max: u32) {
        assert_eq!(slot.transport.name, self.transport.name);
        let held = self.held.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(held <= streams_max, "{held} streams of {streams_max}");
        // A look at loom's count lets others come in between.
        let open = self.transport.seen.open();
        assert!((1..=streams_max).contains(&open), "{open} streams of {streams_max} are open");
        self.held.fetch_sub(1, Ordering::SeqCst);
        drop(slot);
    }

    /// A call on a thread of its own.
    fn call(&self, streams_max: u32) -> JoinHandle<()> {
        let server = self.clone();
        thread::spawn(move || server.hold(server.slot(), streams_max))
    }

    /// Everything is as it was: so many streams, all free.
    fn all_free(&self, streams_max: usize) {
        assert_eq!(self.transport.seen.open(), 0);
        let all: Vec<_> = std::iter::from_fn(|| self.take()).collect();
        assert_eq!(all.len(), streams_max);
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

/// Three calls that would rather fail than wait, and two streams.
pub fn a_stream_is_never_held_twice() {
    preemptions(3, || {
        let server = Server::only(2);
        let try_it = |server: &Server| {
            if let Some(slot) = server.take() {
                server.hold(slot, 2);
            }
        };
        let threads = [(); 2].map(|()| {
            let server = server.clone();
            thread::spawn(move || try_it(&server))
        });
        try_it(&server);
        join(threads);
        server.all_free(2);
    });
}

/// Calls that wait for the one stream, two under every order and three under nearly every one.
pub fn a_full_connection_serves_whoever_waits() {
    loom::model(|| {
        let server = Server::only(1);
        let other = server.call(1);
        server.hold(server.slot(), 1);
        join([other]);
        server.all_free(1);
    });
    preemptions(3, || {
        let server = Server::only(1);
        let others = [server.call(1), server.call(1)];
        server.hold(server.slot(), 1);
        join(others);
        server.all_free(1);
    });
}

/// A call is cancelled while it waits, perhaps at the moment when it is offered a stream.
pub fn who_leaves_the_line_passes_the_stream_on() {
    preemptions(3, || {
        let server = Server::only(1);
        let first = server.take().expect("all are free");
        let leaves = thread::spawn({
            let queue = server.queue.clone();
            move || {
                let place = queue.join();
                drop(place.poll_offer(&mut Context::from_waker(Waker::noop())));
            }
        });
        let stays = server.call(1);
        drop(first);
        join([leaves, stays]);
        server.all_free(1);
    });
}

/// Two connections and a call for each; the first in line is offered the other one's stream.
pub fn who_declines_lets_those_behind_have_it() {
    preemptions(2, || {
        let queue = Arc::default();
        let (one, other) = (Server::new("one", &queue, 1), Server::new("other", &queue, 1));
        let full = [one.take().expect("all are free"), other.take().expect("all are free")];
        let threads = [one.call(1), other.call(1)];
        full.into_iter().for_each(drop);
        join(threads);
        one.all_free(1);
        other.all_free(1);
    });
}

/// The server allows its first stream when a call waits, or is about to.
pub fn a_raised_limit_reaches_who_waits() {
    loom::model(|| {
        let server = Server::only(0);
        let connection = thread::spawn({
            let transport = server.transport.clone();
            move || {
                transport.settings(1);
                transport.after_reading();
            }
        });
        server.hold(server.slot(), 1);
        join([connection]);
        server.all_free(1);
    });
}

/// Two streams are open when the server says that one is enough, and a call waits for it.
pub fn a_lowered_limit_loses_no_stream() {
    preemptions(3, || {
        let server = Server::only(2);
        let full = [server.take().expect("all are free"), server.take().expect("all are free")];
        server.transport.settings(1);
        let waits = server.call(1);
        let [first, second] = full;
        let ends = thread::spawn(move || drop(first));
        drop(second);
        join([ends, waits]);
        server.all_free(1);
    });
}
