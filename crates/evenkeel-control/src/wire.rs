//! gRPC's framing and statuses, for services that are mounted below tonic's codec: it would copy
//! each message for each stream, where one encoded message is for all of them.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use tonic::{Status, body::Body};

/// A length as gRPC frames messages, and whether it is compressed.
pub(crate) const FRAME_HEAD_LEN: usize = 5;

/// A whole message in gRPC's framing.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    framed_before(message, 0)
}

/// The beginning of a message that has `rest_len` bytes more.
pub(crate) fn framed_before(message: &impl prost::Message, rest_len: usize) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(FRAME_HEAD_LEN + len);
    bytes.put_u8(0);
    bytes.put_u32((len + rest_len) as u32);
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The end of a stream.
pub(crate) fn trailers(status: &Status) -> Frame<Bytes> {
    let mut headers = HeaderMap::new();
    // Messages are percent-encoded; if it could fail, an empty trailer is what a client reads as
    // UNKNOWN.
    let _ = status.add_header(&mut headers);
    Frame::trailers(headers)
}

/// The beginning of a stream.
pub(crate) fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let value = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// The method that a request calls.
pub(crate) fn method(request: &Request<Body>) -> &str {
    request.uri().path().rsplit('/').next().unwrap_or_default()
}

/// Whether its messages are compressed, which is not read here.
pub(crate) fn is_compressed(request: &Request<Body>) -> bool {
    let encoding = request.headers().get("grpc-encoding");
    encoding.is_some_and(|encoding| encoding != "identity")
}
