//! What a proxy must leave alone: `:authority`, trace context, deadlines, statuses, metadata of
//! both kinds, long headers. A backend that mirrors what it got answers a client that says what it
//! sent, and everything between them is real: the examples' own Envoys with their own files.
//!
//! Both ends speak raw gRPC over our channel and our server. A generated client would hide what
//! matters here: whether a status came in trailers or alone, and which headers came beside it.

use http::HeaderName;

mod call;
mod harm;
mod mirror;
mod probes;
#[cfg(test)]
mod tests;

pub(crate) use mirror::Mirror;
pub(crate) use probes::{Ids, arrived, probe};

/// What the mirror is asked to do.
const ASK: HeaderName = HeaderName::from_static("x-mirror-do");
/// A value of ASCII text, as it stands.
const TEXT: &str = "x-text";
/// Two values of one name.
const TWO: &str = "x-two";
/// Any bytes.
const BYTES: &str = "x-bytes-bin";
/// A value longer than a proxy's buffers are by default.
const LONG: &str = "x-long";
/// What the mirror copies into its response's headers and trailers.
const COPIED: [&str; 4] = [TEXT, TWO, BYTES, LONG];
/// Stands before a name in the trailers.
const IN_TRAILERS: &str = "x-end-";
