//! OTLP over HTTP/1.1, OpenTelemetry's default. One connection by hyper, which is here anyway; what
//! reqwest would add is what a collector in the same cluster does not need.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
    uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};

use super::{ExportError, Signal, tls::Handshakes};
use crate::settings::Place;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
/// A response is a few bytes, or an error's text.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Http {
    authority: String,
    path: PathAndQuery,
    headers: Vec<(HeaderName, HeaderValue)>,
    secure: Option<Handshakes>,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// The connection's task: it ends with this.
    task: JoinSet<()>,
}

impl Http {
    pub(super) fn new(place: &Place) -> Result<Self, String> {
        let Place { authority, path, headers, tls, .. } = place.clone();
        let host = authority.rsplit_once(':').map_or(&*authority, |(host, _)| host);
        let secure = tls.map(|tls| Handshakes::new(&tls, host)).transpose()?;
        let (connection, task) = (None, JoinSet::new());
        Ok(Self { authority, path, headers, secure, connection, task })
    }

    pub(super) async fn send<S: Signal>(
        &mut self,
        message: Bytes,
    ) -> Result<S::Response, ExportError> {
        // Not put back unless the response was read to its end: what is left of it would be taken
        // for the next one's.
        let mut connection = self.connect().await?;
        let request = self.request(message)?;
        let failed = |error: hyper::Error| ExportError::passing(chain(&error));
        let (head, body) = connection.send_request(request).await.map_err(failed)?.into_parts();
        let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| ExportError::passing(error.to_string()))?.to_bytes();
        self.connection = Some(connection);
        judge::<S>(head.status, &body)
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, ExportError> {
        if let Some(mut connection) = self.connection.take()
            && connection.ready().await.is_ok()
        {
            return Ok(connection);
        }
        self.task = JoinSet::new();
        let failed = |error: std::io::Error| ExportError::passing(error.to_string());
        let socket = TcpStream::connect(&self.authority).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        if let Some(secure) = &self.secure {
            let socket = secure.shake(socket).await.map_err(failed)?;
            return self.begin(socket).await;
        }
        self.begin(socket).await
    }

    async fn begin<S>(&mut self, socket: S) -> Result<SendRequest<Full<Bytes>>, ExportError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shaken = http1::handshake(TokioIo::new(socket)).await;
        let (connection, driver) = shaken.map_err(|e| ExportError::passing(chain(&e)))?;
        self.task.spawn(async move {
            // Its error comes with the request that it fails, too.
            let _ = driver.await;
        });
        Ok(connection)
    }

    fn request(&self, message: Bytes) -> Result<Request<Full<Bytes>>, ExportError> {
        let bad = |error: http::Error| ExportError::lasting(error.to_string());
        let body = Full::new(message);
        let request = Request::post(self.path.as_str()).header(HOST, &self.authority);
        let mut request = request.body(body).map_err(bad)?;
        let headers: &mut HeaderMap = request.headers_mut();
        let agent = concat!("evenkeel-telemetry/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.extend(self.headers.iter().cloned());
        headers.insert(CONTENT_TYPE, PROTOBUF);
        Ok(request)
    }
}

/// The specification's list (OTLP, "Retryable response codes").
fn judge<S: Signal>(status: StatusCode, body: &[u8]) -> Result<S::Response, ExportError> {
    if status.is_success() {
        let decoded = S::Response::decode(body);
        // Taken is taken, however it is said.
        return Ok(decoded.unwrap_or_default());
    }
    let is_passing = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    Err(ExportError { why: format!("HTTP status {status}"), is_passing })
}

/// hyper's errors keep their reasons one below the other.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{export::Traces, otlp::ExportTraceServiceResponse};

    #[test]
    fn a_status_says_whether_another_try_is_worth_it() {
        let cases = [(429, true), (503, true), (500, false), (400, false), (302, false)];
        for (status, passing) in cases {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = judge::<Traces>(status, b"").expect_err("no success");
            assert_eq!(error.is_passing, passing, "{status}");
        }
        let taken = judge::<Traces>(StatusCode::OK, b"").expect("taken");
        assert_eq!(taken, ExportTraceServiceResponse::default());
    }
}
