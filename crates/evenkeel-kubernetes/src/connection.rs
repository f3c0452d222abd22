//! One HTTP/1.1 connection to the API server, and what it answers, line by line. It has no task of
//! its own: whoever waits for an answer drives it, so that it ends with its user, on its runtime.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Cluster, ServiceKey, WatchError, WatchErrorKind, api,
    error::{Refusal, refused},
};

/// From the look-up of the server's name to the end of the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the headers of its answer.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(15);
/// For the rest of an answer that is not a watch.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection is replaced when it is older, so that watches spread over API servers again after
/// one was away. Up to as much again is added.
const AGE_MAX: Duration = Duration::from_secs(600);
/// The longest line of a watch, in bytes: an object has at most 1.5 MiB in etcd.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest list, in bytes.
const LIST_BYTES_MAX: usize = 128 * 1024 * 1024;
/// How much of a refusal is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// The longest wait that a server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// See the module's head.
pub(crate) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// `None`: it is over.
    driver: Option<Driver>,
    replaced_at: Instant,
}

/// The answer to a request, with what has come of it.
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    /// Up to here the buffer has no line's end.
    searched: usize,
}

impl Connection {
    pub(crate) async fn open(cluster: &Cluster) -> Result<Self, WatchError> {
        let opened = timeout(CONNECT_TIMEOUT, Self::connect(cluster)).await;
        let failed = match opened {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(reason)) => WatchError::new(
                WatchErrorKind::Connection,
                format!("no connection to the API server {}: {reason}", cluster.server()),
            ),
            Err(_) => WatchError::new(
                WatchErrorKind::Timeout,
                format!(
                    "no connection to the API server {} within {CONNECT_TIMEOUT:?}",
                    cluster.server()
                ),
            ),
        };
        Err(failed)
    }

    async fn connect(cluster: &Cluster) -> Result<Self, String> {
        let server = &cluster.settings().server;
        let socket = TcpStream::connect((server.host.as_str(), server.port));
        let socket = socket.await.map_err(|e| e.to_string())?;
        // One short request at a time: nothing to collect.
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        match cluster.tls() {
            Some(tls) => {
                let secured = tls.connect(socket).await;
                Self::start(secured.map_err(|e| format!("TLS handshake: {e}"))?).await
            }
            None => Self::start(socket).await,
        }
    }

    async fn start<S>(socket: S) -> Result<Self, String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let shaken = http1::handshake(TokioIo::new(socket)).await;
        let (sender, driver) = shaken.map_err(|e| e.to_string())?;
        let age = AGE_MAX.mul_f64(1.0 + fastrand::f64());
        let replaced_at = Instant::now() + age;
        Ok(Self { sender, driver: Some(Box::pin(driver)), replaced_at })
    }

    /// Whether another request may be tried on it.
    pub(crate) fn is_usable(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready() && Instant::now() < self.replaced_at
    }

    /// Asks for `path`, and waits for the headers of the answer.
    pub(crate) async fn get(
        &mut self,
        cluster: &Cluster,
        authorization: Option<HeaderValue>,
        path: &str,
    ) -> Result<Answer, WatchError> {
        let server = &cluster.settings().server;
        let request = Request::get(format!("{}{path}", server.prefix))
            .header(header::HOST, server.authority())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("evenkeel/", env!("CARGO_PKG_VERSION")));
        let request = match authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        };
        let request = request.body(Empty::new()).map_err(|e| {
            WatchError::new(WatchErrorKind::Connection, format!("no request can be made: {e}"))
        })?;
        let answer = self.sender.send_request(request);
        let answer = timeout(HEADERS_TIMEOUT, driven(&mut self.driver, answer)).await;
        match answer {
            Ok(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                let (buffer, searched) = (BytesMut::new(), 0);
                Ok(Answer { status: head.status, headers: head.headers, body, buffer, searched })
            }
            Ok(Err(e)) => Err(lost(cluster, &e)),
            Err(_) => Err(WatchError::new(
                WatchErrorKind::Timeout,
                format!("no answer of the API server {server} within {HEADERS_TIMEOUT:?}"),
            )),
        }
    }

    /// The next line of a watch; `None` when the server has ended it. Cancelling loses nothing.
    pub(crate) async fn line(
        &mut self,
        cluster: &Cluster,
        answer: &mut Answer,
        until: Instant,
    ) -> Result<Option<Bytes>, WatchError> {
        loop {
            if let Some(line) = answer.split() {
                return Ok(Some(line));
            }
            if answer.buffer.len() > LINE_BYTES_MAX {
                return Err(too_long(cluster, "a line", LINE_BYTES_MAX));
            }
            if !self.read_more(cluster, answer, until).await? {
                return Ok(None);
            }
        }
    }

    /// All of an answer.
    pub(crate) async fn whole(
        &mut self,
        cluster: &Cluster,
        answer: &mut Answer,
    ) -> Result<Bytes, WatchError> {
        let until = Instant::now() + BODY_TIMEOUT;
        while self.read_more(cluster, answer, until).await? {
            if answer.buffer.len() > LIST_BYTES_MAX {
                return Err(too_long(cluster, "a list", LIST_BYTES_MAX));
            }
        }
        Ok(answer.buffer.split().freeze())
    }

    /// Why the server refused.
    pub(crate) async fn refusal(
        &mut self,
        cluster: &Cluster,
        key: &ServiceKey,
        mut answer: Answer,
    ) -> Refusal {
        let until = Instant::now() + BODY_TIMEOUT;
        while answer.buffer.len() < REFUSAL_BYTES_MAX {
            if !matches!(self.read_more(cluster, &mut answer, until).await, Ok(true)) {
                break;
            }
        }
        let mut status: api::Status = serde_json::from_slice(&answer.buffer).unwrap_or_default();
        if status.message.is_empty() {
            let text = String::from_utf8_lossy(&answer.buffer);
            status.message = text.trim().chars().take(200).collect();
        }
        status.code = answer.status.as_u16();
        Refusal {
            error: refused(&cluster.server(), key, &status),
            retry_after: answer.retry_after(),
        }
    }

    /// False at the end.
    async fn read_more(
        &mut self,
        cluster: &Cluster,
        answer: &mut Answer,
        until: Instant,
    ) -> Result<bool, WatchError> {
        let frame = timeout_at(until, driven(&mut self.driver, answer.body.frame())).await;
        match frame {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    answer.buffer.extend_from_slice(&data);
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Ok(Some(Err(e))) => Err(lost(cluster, &e)),
            Err(_) => Err(WatchError::new(
                WatchErrorKind::Timeout,
                format!("the API server {} fell silent", cluster.server()),
            )),
        }
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
    }

    /// A whole line, without its end.
    fn split(&mut self) -> Option<Bytes> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|b| *b == b'\n');
            let Some(at) = found.map(|at| at + self.searched) else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(at).freeze();
            self.buffer.advance(1);
            self.searched = 0;
            if !line.is_empty() {
                return Some(line);
            }
        }
    }
}

/// Drives the connection while `future` waits for it.
async fn driven<T>(driver: &mut Option<Driver>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(value);
        }
        let Some(running) = driver else { return Poll::Pending };
        if running.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        *driver = None;
        // How the connection ended, the request or its body hears as well.
        future.as_mut().poll(cx)
    })
    .await
}

fn lost(cluster: &Cluster, error: &hyper::Error) -> WatchError {
    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        text = format!("{text}: {cause}");
    }
    let message = format!("the connection to the API server {} broke: {text}", cluster.server());
    WatchError::new(WatchErrorKind::Connection, message)
}

fn too_long(cluster: &Cluster, what: &str, max: usize) -> WatchError {
    let message =
        format!("{what} of the API server {} has more than {max} bytes", cluster.server());
    WatchError::new(WatchErrorKind::Unreadable, message)
}
