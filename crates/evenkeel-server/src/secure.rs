//! The bytes under the socket: TCP, or a secure stream over it. Without the feature `tls` there is
//! no secure one, and nothing of it is compiled but these traits.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::Extensions;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A handshake on its way, or why it failed.
pub(crate) type Securing = Pin<Box<dyn Future<Output = Result<Secured, String>> + Send>>;

/// Secures accepted connections.
pub(crate) trait Secure: Send + Sync {
    /// Starts a handshake.
    fn secure(self: Arc<Self>, tcp: TcpStream) -> Securing;
}

/// A connection after its handshake.
pub(crate) struct Secured {
    pub(crate) stream: Pin<Box<dyn SecureStream>>,
    /// What each of its requests has in its extensions, beside the addresses.
    pub(crate) extensions: Extensions,
}

/// Keeps bytes of its own between writer and TCP.
pub(crate) trait SecureStream: AsyncRead + AsyncWrite + Send {
    /// Bytes that TCP took so far.
    fn written(&self) -> u64;
}

/// See the module's head.
pub(crate) enum Transport {
    Plain(TcpStream),
    Secure(Pin<Box<dyn SecureStream>>),
}

impl Transport {
    /// Whether what is written may wait here.
    pub(crate) fn keeps_bytes(&self) -> bool {
        matches!(self, Self::Secure(_))
    }

    /// Changes whenever TCP takes something of what waits here.
    pub(crate) fn written(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Secure(stream) => stream.written(),
        }
    }

    /// Writes as much as there is room for; nobody waits for the rest.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) {
        match self {
            // A client that leaves no room for it does not read anyway.
            Self::Plain(tcp) => drop(tcp.try_write(bytes)),
            Self::Secure(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                if stream.as_mut().poll_write(&mut cx, bytes).is_ready() {
                    let _ = stream.as_mut().poll_flush(&mut cx);
                }
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Secure(stream) => stream.as_mut().poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Secure(stream) => stream.as_mut().poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Secure(stream) => stream.as_mut().poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Secure(stream) => stream.as_mut().poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Secure(stream) => stream.as_mut().poll_shutdown(cx),
        }
    }
}
