//! What a broken stream means for a call: the status that gRPC gives it, and whether the server
//! can have seen the request (gRFC A6, transparent retry).

use evenkeel_core::Address;
use h2::Reason;

use crate::{
    edge::{Code, Status},
    transport::Transport,
};

/// How an attempt was lost.
pub(crate) enum Lost {
    /// The request never reached the socket: sending it again is safe, any number of times.
    NeverWritten,
    /// The server refused the stream before it processed it: sending it again once is safe. Not
    /// more often, as a server that refuses may have too much to do.
    Refused,
    /// GOAWAY says that it was not processed: sending it again is safe, a few times.
    Unprocessed,
    /// The server may have processed it.
    Failed(Status),
}

/// Sorts an error of a stream that got no response headers yet.
pub(crate) fn classify(error: &h2::Error, transport: &Transport, stream_id: u32) -> Lost {
    let refused = error.is_reset() && error.is_remote();
    if refused && error.reason() == Some(Reason::REFUSED_STREAM) {
        return Lost::Refused;
    }
    if !error.is_reset() {
        if transport.seen.never_written(stream_id) {
            return Lost::NeverWritten;
        }
        if transport.seen.unprocessed(stream_id) {
            return Lost::Unprocessed;
        }
    }
    Lost::Failed(status(error, transport))
}

/// The status of a call whose stream broke.
pub(crate) fn status(error: &h2::Error, transport: &Transport) -> Status {
    let address = &transport.address;
    if !error.is_reset() {
        // Whatever h2 makes of it, the connection is gone.
        let why = transport.seen.end_reason().map_or_else(|| error.to_string(), str::to_owned);
        return Status::unavailable(format!("{address}: {why}"));
    }
    let reason = error.reason().unwrap_or(Reason::INTERNAL_ERROR);
    let who = if error.is_remote() { "the server" } else { "we" };
    Status::new(code(reason), format!("{address}: {who} reset the stream: {reason}"))
}

/// The table in <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "Errors".
fn code(reason: Reason) -> Code {
    match reason {
        Reason::REFUSED_STREAM => Code::Unavailable,
        Reason::CANCEL => Code::Cancelled,
        Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

/// The deadline passed; `waited_for` says where the call stood.
pub(crate) fn deadline_exceeded(timeout: std::time::Duration, waited_for: &str) -> Status {
    Status::deadline_exceeded(format!("deadline of {timeout:?} exceeded {waited_for}"))
}

/// The words for a call that was sent and got no answer.
pub(crate) fn waiting_for(address: &Address) -> String {
    format!("while waiting for {address}")
}
