//! HTTP/2 connections, one task each, and what a call needs of them.

mod connection;
mod frames;
mod keepalive;
mod names;
mod slots;
mod tap;

use std::sync::Arc;

use bytes::Bytes;
pub(crate) use connection::{Connection, ConnectionEvent, End, EventKind, TransportOptions};
use evenkeel_core::Address;
use h2::client::SendRequest;
pub(crate) use names::Names;
pub(crate) use slots::{Place, SlotQueue, StreamSlot};
pub(crate) use tap::Seen;

/// A connection that became READY, as calls see it.
pub(crate) struct Transport {
    pub(crate) address: Address,
    pub(crate) seen: Arc<Seen>,
    pub(crate) names: Names,
    send: SendRequest<Bytes>,
    /// One for the whole channel, as waiting calls pick anew.
    queue: Arc<SlotQueue>,
}

impl Transport {
    /// A handle to open one stream with.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.send.clone()
    }
}
