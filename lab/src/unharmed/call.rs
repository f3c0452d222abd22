//! One raw call, and everything that came back.

use bytes::{Buf as _, Bytes};
use evenkeel::Channel;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Version,
    header::{CONTENT_TYPE, TE},
};
use http_body_util::{BodyExt as _, Full};
use tonic::{Status, body::Body, codegen::Service as _};

use super::{ASK, mirror::Arrived};

/// An empty message.
const EMPTY: &[u8] = &[0; 5];

/// What came back of a call.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    /// What the mirror says arrived; `None` without a message.
    pub(super) arrived: Option<Arrived>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Answer {
    /// The status, and whether it came in trailers.
    pub(super) fn status(&self) -> (Option<Status>, bool) {
        match self.trailers.as_ref().and_then(Status::from_header_map) {
            Some(status) => (Some(status), true),
            None => (Status::from_header_map(&self.headers), false),
        }
    }
}

/// Asks the mirror behind `channel` to do `what`, with `headers`.
///
/// # Errors
///
/// The status with which the channel ended the call.
pub(super) async fn call(
    channel: &Channel,
    what: &str,
    headers: &[(&'static str, HeaderValue)],
) -> Result<Answer, Status> {
    let mut request = Request::new(Body::new(Full::new(Bytes::from_static(EMPTY))));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static("/helloworld.Greeter/SayHello");
    let own = request.headers_mut();
    own.insert(TE, HeaderValue::from_static("trailers"));
    own.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let asked = HeaderValue::from_str(what);
    own.insert(ASK, asked.map_err(|error| Status::internal(error.to_string()))?);
    for (name, value) in headers {
        own.append(HeaderName::from_static(name), value.clone());
    }
    let response = channel.clone().call(request).await?;
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let arrived = read(collected.to_bytes())?;
    Ok(Answer { headers: head.headers, arrived, trailers })
}

/// The mirror's message, if there is one.
fn read(mut bytes: Bytes) -> Result<Option<Arrived>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let odd = |what: String| Status::internal(format!("expected the mirror's message: {what}"));
    if bytes.len() < EMPTY.len() {
        return Err(odd(format!("got {} bytes", bytes.len())));
    }
    bytes.advance(EMPTY.len());
    serde_json::from_slice(&bytes).map(Some).map_err(|error| odd(error.to_string()))
}
