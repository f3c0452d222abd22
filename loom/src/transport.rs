//! The files of evenkeel's `transport` under proof, and what they need around them.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead as _, ReadBuf};

#[path = "../../crates/evenkeel/src/transport/frames.rs"]
#[allow(dead_code, reason = "the models call a part of it")]
mod frames;
#[path = "../../crates/evenkeel/src/transport/slots.rs"]
#[allow(dead_code, reason = "the models call a part of it")]
mod slots;
#[path = "../../crates/evenkeel/src/transport/tap.rs"]
#[allow(dead_code, reason = "the models call a part of it")]
mod tap;

pub(crate) use slots::{Place, SlotQueue, StreamSlot};
use tap::{Seen, Tap};

/// A connection without its h2.
pub(crate) struct Transport {
    pub(crate) name: &'static str,
    pub(crate) seen: Arc<Seen>,
    queue: Arc<SlotQueue>,
}

impl Transport {
    /// A connection whose server allows this many streams at once.
    pub(crate) fn new(name: &'static str, queue: &Arc<SlotQueue>, streams_max: u32) -> Arc<Self> {
        let transport = Self { name, seen: Arc::default(), queue: queue.clone() };
        transport.settings(streams_max);
        transport.seen.take_max_streams_changed();
        Arc::new(transport)
    }

    /// SETTINGS come, and pass through the tap: the server allows so many streams from now on.
    pub(crate) fn settings(&self, streams_max: u32) {
        let mut frame = vec![0, 0, 6, frames::SETTINGS, 0, 0, 0, 0, 0, 0, 3];
        frame.extend(streams_max.to_be_bytes());
        let mut tap = pin!(Tap::new(&frame[..], self.seen.clone()));
        let mut buf = [0; 32];
        let mut buf = ReadBuf::new(&mut buf);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(tap.as_mut().poll_read(&mut cx, &mut buf), Poll::Ready(Ok(()))));
    }

    /// What the connection's task does after it read something.
    pub(crate) fn after_reading(self: &Arc<Self>) {
        if self.seen.take_max_streams_changed() {
            self.queue.offer_free(self);
        }
    }
}
