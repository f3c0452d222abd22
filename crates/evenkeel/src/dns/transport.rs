//! The sockets of a look-up. hickory's own UDP sockets are not connected, so that the kernel's
//! "nothing listens there" never reaches them and a dead DNS server costs the whole time-out. These
//! are connected: the refusal arrives at once, and nobody but the server can send to them.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use tokio::{
    io::{Interest, ReadBuf},
    net::UdpSocket,
};

/// tokio, with connected UDP sockets. What hickory spawns on it ends when the last resolver that
/// was built with it is dropped.
#[derive(Clone, Default)]
pub(super) struct Sockets {
    tokio: TokioRuntimeProvider,
    /// hickory reports a socket's error as "no connections available"; here is what it was.
    last_error: LastError,
}

type LastError = Arc<Mutex<Option<io::Error>>>;

impl Sockets {
    /// The last error of a socket, once.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Keeps a copy of an error.
fn note(last: &LastError, error: &io::Error) {
    let copy = match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    };
    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = ConnectedUdp;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let connect = self.tokio.connect_tcp(server, local, timeout);
        let last_error = self.last_error.clone();
        Box::pin(async move { connect.await.inspect_err(|e| note(&last_error, e)) })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let last_error = self.last_error.clone();
        Box::pin(async move {
            let socket = Arc::new(UdpSocket::bind(local).await?);
            socket.connect(server).await.inspect_err(|e| note(&last_error, e))?;
            let refusal = Mutex::new(Box::pin(refusal(socket.clone())) as Refusal);
            Ok(ConnectedUdp { socket, server, refusal, last_error })
        })
    }
}

/// Ends with the error that the network reported for a socket.
type Refusal = Pin<Box<dyn Future<Output = io::Error> + Send>>;

/// A UDP socket that only talks to one DNS server.
pub(super) struct ConnectedUdp {
    socket: Arc<UdpSocket>,
    server: SocketAddr,
    refusal: Mutex<Refusal>,
    last_error: LastError,
}

/// Linux announces an error of a UDP socket without calling it readable, so tokio's `recv` sleeps
/// on; it has to be awaited by itself.
async fn refusal(socket: Arc<UdpSocket>) -> io::Error {
    loop {
        if let Err(error) = socket.ready(Interest::ERROR).await {
            return error;
        }
        if let Some(error) = socket.take_error().unwrap_or_else(Some) {
            return error;
        }
        // Somebody else took the error. This is how tokio is told to wait for the next one.
        let again = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = socket.try_io(Interest::ERROR, again);
    }
}

impl DnsUdpSocket for ConnectedUdp {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buf = ReadBuf::new(buf);
        let error = match self.socket.poll_recv(cx, &mut buf) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok((buf.filled().len(), self.server))),
            Poll::Ready(Err(error)) => error,
            Poll::Pending => {
                let mut waiting = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
                let error = ready!(waiting.as_mut().poll(cx));
                *waiting = Box::pin(refusal(self.socket.clone()));
                error
            }
        };
        note(&self.last_error, &error);
        Poll::Ready(Err(error))
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        _server: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, buf)
    }
}
