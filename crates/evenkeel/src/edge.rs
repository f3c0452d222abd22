//! The one place where tonic's types meet ours. Everything else names them through this module, so
//! that a new tonic version is a change in one file.

use evenkeel_core as core;

/// The body of a request, as generated clients send it.
pub(crate) type RequestBody = tonic::body::Body;
/// The error of a call.
pub(crate) type Status = tonic::Status;
pub(crate) use tonic::{Code, Response, Streaming};

/// A core status with the target in front, as a caller sees it.
pub(crate) fn status_of_target(target: &str, status: &core::Status) -> Status {
    Status::new(code(status.code), format!("target {target}: {}", status.message))
}

/// Core's codes have the wire's numbers.
pub(crate) fn code(code: core::Code) -> Code {
    Code::from_i32(code as i32)
}

/// The code of a `grpc-status`, or of none.
pub(crate) fn code_of(grpc_status: Option<u8>) -> Code {
    grpc_status.map_or(Code::Unknown, |status| Code::from_i32(status.into()))
}

/// A status that came from a server, for core.
pub(crate) fn core_status(status: &Status) -> core::Status {
    // The numbers are the same, and tonic knows no others.
    let code = core::Code::ALL.get(status.code() as usize).copied().unwrap_or(core::Code::Unknown);
    core::Status::new(code, status.message())
}
