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
//! ([`Ctx::check_health`](crate::Ctx::check_health)) is built on it inside the engine.

use std::{fmt, sync::Arc};

use crate::Status;

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
}

/// What came of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A message of [`Watch::Health`].
    Health(ServingStatus),
    /// The stream ended, with what `grpc-status` or the broken connection said; OK is an end like
    /// any other. The last event of a watch. It comes exactly once, unless the watch was taken
    /// back or its subchannel shut down.
    Ended(Status),
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
