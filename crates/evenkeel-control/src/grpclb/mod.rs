//! `grpc.lb.v1.LoadBalancer` (grpclb): what a snapshot becomes on the wire, and the streams that
//! bring it to clients.
//!
//! A list is encoded once per snapshot; each client gets it rotated, as pieces of that one buffer
//! (`encode`). tonic's codec would copy it for each client, which is why the service is mounted
//! below the codec (`service`).

mod encode;
mod entries;
mod rate;
mod reports;
mod service;
mod slots;
mod stream;
mod subset;
mod token;

pub use crate::{
    drain::DRAIN_SPREAD,
    room::{DEFAULT_STREAMS_MAX, DEFAULT_STREAMS_PER_PEER_MAX},
    stream::FIRST_REQUEST_WAIT as FIRST_MESSAGE_WAIT,
};
pub use encode::EncodedList;
#[cfg(test)]
pub(crate) use entries::{Entry, entries};
pub use entries::{LIST_ENTRIES_MAX, LIST_ENTRIES_SOFT_MAX};
pub(crate) use rate::{Bucket, Pace};
pub use rate::{STATS_BURST, STATS_RATE_FACTOR_MAX};
pub use reports::{CALLS_PER_REPORT_MAX, ClientTotals, DROP_TOKENS_MAX};
pub use service::{DEFAULT_CLIENT_STATS_INTERVAL, Grpclb, GrpclbSettings, SERVICE_NAME};
pub(crate) use slots::Slots;
pub use stream::MESSAGE_BYTES_MAX;
pub(crate) use subset::Ring;
pub use token::{decode as decode_token, of_drop as drop_token, of_endpoint as endpoint_token};
