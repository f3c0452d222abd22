//! Watches: long-lived streams that the channel runs on a subchannel's connection for whoever asks
//! in the core, so that policies learn what a server says of itself without knowing of streams or
//! protobuf.
//!
//! A policy calls [`Ctx::watch`](crate::Ctx::watch) on a READY subchannel of its own or of a child:
//! a backend, or a balancer whose address is in no list of backends. The engine puts out
//! [`Output::Watch`](crate::Output::Watch); what the server sends comes back in order as
//! [`Input::WatchEvent`](crate::Input::WatchEvent), already decoded. A watch is never repeated by
//! itself: who asked knows whether and when another attempt makes sense
//! ([`Ctx::backoff_ns`](crate::Ctx::backoff_ns) says how long to wait).
//!
//! Each kind of stream is a variant of [`Watch`], which has what the first message needs, and a
//! variant of [`WatchEvent`], which has what one message of the server says. Health checking
//! ([`Ctx::check_health`](crate::Ctx::check_health)) is built on it inside the engine. A watch on
//! which the policy talks too has a variant of [`WatchMessage`], sent by
//! [`Ctx::send`](crate::Ctx::send).

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{Nanos, Status};

/// Names a watch; never given out twice by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub(crate) u64);

/// What kind of stream to run, and what its first message says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watch {
    /// `grpc.health.v1.Health/Watch` (gRFC A17).
    Health {
        /// The service whose health is asked for; the empty name is the server as a whole.
        service: Arc<str>,
    },
    /// `grpc.lb.v1.LoadBalancer/BalanceLoad`: the lists of a balancer, and our reports to it.
    Balancer {
        /// The name of the service for which backends are wanted.
        service: Arc<str>,
        /// The `:authority` of the stream, if it is not the channel's own.
        authority: Option<Arc<str>>,
    },
}

/// What a policy says on a watch after its first message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchMessage {
    /// A report on [`Watch::Balancer`]. The transport may add up reports that the balancer is too
    /// slow to take.
    ClientStats(ClientStats),
}

/// Calls since the report before, as `grpc.lb.v1.ClientStats` has them; each attempt of a call
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Attempts that began, dropped ones included.
    pub started: u64,
    /// Attempts that ended, dropped ones included.
    pub finished: u64,
    /// Those of `finished` that reached no server, without dropped ones.
    pub failed_to_send: u64,
    /// Those of `finished` that a server is known to have got.
    pub known_received: u64,
    /// Those of `finished` that were dropped, by token; no number is 0.
    pub drops: BTreeMap<Arc<str>, u64>,
}

impl ClientStats {
    /// True when there is nothing to report.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Adds a later report to this one.
    pub fn add(&mut self, later: Self) {
        self.started = self.started.saturating_add(later.started);
        self.finished = self.finished.saturating_add(later.finished);
        self.failed_to_send = self.failed_to_send.saturating_add(later.failed_to_send);
        self.known_received = self.known_received.saturating_add(later.known_received);
        for (token, count) in later.drops {
            let sum = self.drops.entry(token).or_default();
            *sum = sum.saturating_add(count);
        }
    }
}

/// What came of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A message of [`Watch::Health`].
    Health(ServingStatus),
    /// A message of [`Watch::Balancer`].
    Balancer(BalancerMessage),
    /// The stream ended, with what `grpc-status` or the broken connection said; OK is an end like
    /// any other. The last event of a watch. It comes exactly once, unless the watch was taken
    /// back or its subchannel shut down.
    Ended(Status),
}

/// What a balancer says, as it came: whoever uses it judges addresses, ports and tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BalancerMessage {
    /// The stream was accepted.
    Initial {
        /// How often [`WatchMessage::ClientStats`] is wanted, in nanoseconds; `None`: never.
        report_interval_ns: Option<Nanos>,
    },
    /// The backends that are to be used from now on, in order.
    List(Vec<ServerEntry>),
    /// The resolver's own backends are to be used until the next list.
    Fallback,
}

/// One entry of a balancer's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEntry {
    /// The bytes of an IPv4 or IPv6 address in network order.
    pub address: Vec<u8>,
    /// The port, unchecked.
    pub port: i32,
    /// What calls to this backend carry, and what a drop is counted by.
    pub token: String,
    /// No backend: the call whose turn this is fails.
    pub drop: bool,
}

/// What a server says of a service's health, by the names of `grpc.health.v1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServingStatus {
    /// The server does not know; also any number that this version of the protocol lacks.
    Unknown,
    /// Calls are welcome.
    Serving,
    /// Calls are to go elsewhere.
    NotServing,
    /// The server has no service of that name.
    ServiceUnknown,
}

impl fmt::Display for ServingStatus {
    /// The name in the protocol, e.g. `NOT_SERVING`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
        })
    }
}
