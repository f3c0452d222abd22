//! Whether a response is gRPC's at all. What answers in its place is a proxy or a web server, and
//! its error page must not be read as a message
//! (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).

use evenkeel_core::Address;
use http::{StatusCode, header::CONTENT_TYPE, response::Parts};

use crate::edge::{Code, Status};

const CONTENT_TYPE_GRPC: &str = "application/grpc";

/// The status of a call whose response has no `grpc-status` in its head and is not gRPC's.
pub(crate) fn refuse(parts: &Parts, address: &Address) -> Option<Status> {
    let content_type = parts.headers.get(CONTENT_TYPE).map(|v| v.as_bytes());
    let is_grpc = content_type.is_some_and(|v| v.starts_with(CONTENT_TYPE_GRPC.as_bytes()));
    if parts.status == StatusCode::OK && is_grpc {
        return None;
    }
    let got = match content_type {
        Some(value) => format!("content-type {:?}", String::from_utf8_lossy(value)),
        None => "no content-type".to_owned(),
    };
    let http = parts.status.as_u16();
    let text = format!("{address}: expected a gRPC response, got HTTP status {http} with {got}");
    Some(Status::new(code(parts.status), text))
}

fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    }
}
