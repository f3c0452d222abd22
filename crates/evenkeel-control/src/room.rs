//! How many streams there may be, in all and from one address. Each protocol has a room of its own,
//! so that clients of one do not shut out those of another.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use tonic::Status;

use crate::{
    config::Limits,
    control::{Control, lock},
    observe::Refusal,
};

/// Streams in one process, unless set.
pub const DEFAULT_STREAMS_MAX: usize = 10_000;
/// Streams from one address, unless set.
pub const DEFAULT_STREAMS_PER_PEER_MAX: usize = 1_000;

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room(Arc<Mutex<Streams>>);

#[derive(Debug, Default)]
struct Streams {
    all: usize,
    by_peer: BTreeMap<IpAddr, usize>,
}

impl Room {
    /// Room for one more stream.
    pub(crate) fn permit(&self, control: &Control, ip: IpAddr) -> Result<Permit, Status> {
        self.enter(control.directory().limits(), ip).map_err(|(why, what, max)| {
            control.inner.refusals.add(why);
            Status::resource_exhausted(format!(
                "expected at most {max} {what} on this balancer; try another, or raise its limits"
            ))
        })
    }

    fn enter(&self, limits: Limits, ip: IpAddr) -> Result<Permit, (Refusal, &'static str, usize)> {
        let all_max = limits.streams_max.unwrap_or(DEFAULT_STREAMS_MAX);
        let peer_max = limits.streams_per_peer_max.unwrap_or(DEFAULT_STREAMS_PER_PEER_MAX);
        let mut streams = lock(&self.0);
        let of_peer = streams.by_peer.get(&ip).copied().unwrap_or_default();
        if streams.all >= all_max {
            return Err((Refusal::StreamsMax, "streams", all_max));
        }
        if of_peer >= peer_max {
            return Err((Refusal::StreamsPerPeerMax, "streams from one address", peer_max));
        }
        streams.all += 1;
        *streams.by_peer.entry(ip).or_default() += 1;
        Ok(Permit { room: self.clone(), ip })
    }

    /// Open streams.
    pub(crate) fn open(&self) -> usize {
        lock(&self.0).all
    }
}

/// Room for a stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    room: Room,
    ip: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut streams = lock(&self.room.0);
        streams.all -= 1;
        if let Some(of_peer) = streams.by_peer.get_mut(&self.ip) {
            *of_peer -= 1;
            if *of_peer == 0 {
                streams.by_peer.remove(&self.ip);
            }
        }
    }
}
