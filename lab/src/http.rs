//! `GET` from the admin port of a child. hyper and not lines over a socket: Envoy refuses HTTP/1.0
//! and answers in chunks.

use std::{io, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// From the connect to the last byte.
const LIMIT: Duration = Duration::from_secs(5);
/// Envoy's statistics are 100 KiB or so.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The body of `http://address/path`, when the status is 200.
///
/// # Errors
///
/// When nobody answers within 5 s, or not with 200, or not with text.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {LIMIT:?}"));
    timeout(LIMIT, fetch(address, path)).await.map_err(late)?
}

async fn fetch(address: SocketAddr, path: &str) -> io::Result<String> {
    let socket = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok((status, body))
    };
    tokio::pin!(connection, exchange);
    // The connection moves the bytes; nothing else would while the exchange waits.
    let (status, body) = tokio::select! {
        done = &mut exchange => done,
        ended = &mut connection => match ended {
            // The last bytes may be in the exchange's hands already.
            Ok(()) => exchange.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }?;
    let text = String::from_utf8(body.into()).map_err(io::Error::other)?;
    if status.is_success() {
        return Ok(text);
    }
    let shown: String = text.chars().take(200).collect();
    Err(io::Error::other(format!("expected status 200, got {status}: {shown}")))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request with `answer` and closes. Returns what was asked.
    async fn answering(answer: &str) -> (io::Result<String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let read = socket.read(&mut asked).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        };
        tokio::join!(get(address, "/ready?x=1"), serve)
    }

    #[tokio::test]
    async fn reads_chunks_and_names_the_host() {
        let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                      3\r\nLIV\r\n2\r\nE\n\r\n0\r\n\r\n";
        let (body, asked) = answering(chunks).await;
        assert_eq!(body.unwrap(), "LIVE\n");
        assert!(asked.starts_with("GET /ready?x=1 HTTP/1.1\r\nhost: 127.0.0.1:"), "{asked}");
    }

    #[tokio::test]
    async fn another_status_is_an_error_that_shows_the_body() {
        let refused = "HTTP/1.1 503 Unavailable\r\ncontent-length: 13\r\n\r\nINITIALIZING\n";
        let message = answering(refused).await.0.expect_err("503").to_string();
        assert!(message.contains("503"), "{message}");
        assert!(message.contains("INITIALIZING"), "{message}");
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error() {
        let broken = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
        assert!(answering(broken).await.0.is_err());
    }
}
