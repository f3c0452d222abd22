//! How a connection's bytes get to an address. The channel needs a stream and nothing else, so a
//! test can give it a pipe in memory (and then pause time), and a user a tunnel of their own.

use std::{future::Future, io, path::Path, pin::Pin, sync::Arc, time::Duration};

use evenkeel_core::Address;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// What HTTP/2 runs over.
pub trait IoStream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> IoStream for T {}

/// A connected stream, its type erased.
pub type BoxedIo = Pin<Box<dyn IoStream>>;

/// An attempt to connect. Dropping it gives it up.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxedIo>> + Send>>;

/// Connects to one address. The channel's connect timeout bounds each attempt.
pub trait Connector: Send + Sync + 'static {
    /// Starts an attempt.
    fn connect(&self, address: &Address) -> Connecting;
}

/// A stream on its way to be secure, or why it can't be.
pub(crate) type Securing = Pin<Box<dyn Future<Output = Result<BoxedIo, String>> + Send>>;

/// Puts a secure stream over a connected one. Only the feature `tls` has one.
pub(crate) trait Secure: Send + Sync + 'static {
    /// Starts a handshake.
    fn secure(&self, socket: BoxedIo) -> Securing;

    /// The same for a server of another name: a balancer.
    fn named(&self, name: &str) -> Result<Arc<dyn Secure>, String>;

    /// Adds to an error of HTTP/2's beginning what it means for this layer.
    fn explain(&self, error: String) -> String;
}

/// TCP and Unix sockets.
pub(crate) struct SocketConnector {
    /// Unacknowledged data ends a TCP connection after this time (gRFC A18).
    pub(crate) tcp_user_timeout: Duration,
}

impl Connector for SocketConnector {
    fn connect(&self, address: &Address) -> Connecting {
        let (address, tcp_user_timeout) = (address.clone(), self.tcp_user_timeout);
        Box::pin(async move {
            match &address {
                Address::Tcp(address) => {
                    let socket = TcpStream::connect(address).await?;
                    socket.set_nodelay(true)?;
                    #[cfg(target_os = "linux")]
                    socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(tcp_user_timeout))?;
                    Ok(Box::pin(socket) as BoxedIo)
                }
                Address::Unix(path) => Ok(Box::pin(UnixStream::connect(path).await?) as BoxedIo),
                Address::UnixAbstract(name) => {
                    // tokio's spelling of an abstract name, as in unix(7).
                    let path = format!("\0{name}");
                    Ok(Box::pin(UnixStream::connect(Path::new(&path)).await?) as BoxedIo)
                }
                other => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("{other} needs a connector of its own; see ChannelBuilder::connector"),
                )),
            }
        })
    }
}
