//! One connection's handshake. When it fails, the client is to learn why: closing a socket with
//! unread bytes in it resets the connection, and the alert is lost on the way.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_tls::{ALPN_H2, Rotating};
use http::Extensions;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::TlsConnectInfo;
use crate::secure::{Secure, SecureStream, Secured, Securing};

/// How long a client that was refused may take to close.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// What is read of it in that time, in bytes.
const LINGER_BYTES_MAX: u64 = 64 * 1024;

/// All handshakes of a server.
pub(super) struct Handshakes {
    pub(super) configs: Rotating<ServerConfig>,
}

impl Secure for Handshakes {
    fn secure(self: Arc<Self>, tcp: TcpStream) -> Securing {
        Box::pin(async move {
            let acceptor = TlsAcceptor::from(self.configs.current().await);
            let tcp = Counted { tcp, written: 0 };
            let stream = match acceptor.accept(tcp).into_fallible().await {
                Ok(stream) => stream,
                Err((error, counted)) => {
                    linger(counted.tcp).await;
                    return Err(format!("TLS handshake: {error}"));
                }
            };
            // rustls refuses who offers other protocols, but not who offers none.
            if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
                linger(stream).await;
                return Err("expected a client that offers HTTP/2 (ALPN h2), got none".into());
            }
            let mut extensions = Extensions::new();
            extensions.insert(TlsConnectInfo::new(stream.get_ref().1.peer_certificates()));
            Ok(Secured { stream: Box::pin(stream), extensions })
        })
    }
}

/// Ends our direction, and waits a little for the end of the other one.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let last = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // However it ends, it has ended.
    let _ = timeout(LINGER_MAX, last).await;
}

/// TCP under TLS; it counts, because what TLS took over says nothing about what the client reads.
struct Counted {
    tcp: TcpStream,
    written: u64,
}

impl Counted {
    fn count(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = result {
            self.written += bytes as u64;
        }
        result
    }
}

impl SecureStream for TlsStream<Counted> {
    fn written(&self) -> u64 {
        self.get_ref().0.written
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.count(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
