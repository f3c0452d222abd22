//! Accepts from several listeners and survives what `accept` can report. An accept loop that stops
//! at the first error, or spins on EMFILE, turns a passing shortage into an outage.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

/// The first pause after an error that is not the client's.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause; it doubles from the first.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Errors in a row, other than a shortage, after which the listener counts as broken (about 90 s).
pub(crate) const ERRORS_MAX: u32 = 100;
/// Connections taken from the kernel's queue at the start of a drain; tokio's listen backlog.
const SWEEP_MAX: usize = 1024;

/// Something that accepts; a trait, so that errors can be played in tests.
pub(crate) trait Source {
    type Connection;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Connection>>;
}

/// Several listeners as one source. The one asked first rotates, so that a busy one can't starve
/// the others.
pub(crate) struct Listeners {
    listeners: Vec<TcpListener>,
    first: usize,
}

impl Listeners {
    pub(crate) fn new(listeners: Vec<TcpListener>) -> Self {
        Self { listeners, first: 0 }
    }
}

impl Source for Listeners {
    type Connection = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let count = self.listeners.len();
        for offset in 0..count {
            let index = (self.first + offset) % count;
            if let Poll::Ready(result) = self.listeners[index].poll_accept(cx) {
                self.first = (index + 1) % count;
                return Poll::Ready(result.map(|(socket, _)| socket));
            }
        }
        Poll::Pending
    }
}

/// Accepts with pauses after errors. Every wait can be cancelled without losing a connection.
pub(crate) struct Acceptor<S> {
    source: S,
    errors: u32,
    pause_until: Option<Instant>,
}

impl<S: Source> Acceptor<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, errors: 0, pause_until: None }
    }

    /// The next connection, or the error of a listener that is broken for good.
    pub(crate) async fn accept(&mut self) -> io::Result<S::Connection> {
        loop {
            if let Some(until) = self.pause_until {
                sleep_until(until).await;
                self.pause_until = None;
            }
            match poll_fn(|cx| self.source.poll_accept(cx)).await {
                Ok(connection) => {
                    self.errors = 0;
                    return Ok(connection);
                }
                Err(error) => self.failed(error)?,
            }
        }
    }

    /// What the kernel has accepted already: closing the listener would reset these connections.
    pub(crate) fn sweep(&mut self) -> Vec<S::Connection> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut connections = Vec::new();
        while connections.len() < SWEEP_MAX {
            match self.source.poll_accept(&mut context) {
                Poll::Ready(Ok(connection)) => connections.push(connection),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        connections
    }

    fn failed(&mut self, error: io::Error) -> io::Result<()> {
        if is_the_clients(&error) {
            debug!(%error, "a connection ended before it was accepted");
            return Ok(());
        }
        self.errors = self.errors.saturating_add(1);
        if self.errors >= ERRORS_MAX && !is_shortage(&error) {
            return Err(error);
        }
        let doubled = PAUSE_MIN.saturating_mul(1 << (self.errors - 1).min(16));
        let pause = doubled.min(PAUSE_MAX);
        warn!(%error, errors = self.errors, ?pause, "could not accept; trying again");
        self.pause_until = Some(Instant::now() + pause);
        Ok(())
    }
}

/// Errors of one connection that accept(2) passes on; the next one may be fine.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::Interrupted
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::PermissionDenied
            | Kind::TimedOut
    )
}

/// Too few file descriptors or too little memory: passes by itself, so it never counts as broken.
fn is_shortage(error: &io::Error) -> bool {
    // ENFILE and EMFILE have no stable ErrorKind; they have these numbers on Linux and on macOS.
    matches!(error.raw_os_error(), Some(23 | 24)) || error.kind() == io::ErrorKind::OutOfMemory
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    const EMFILE: Errno = Errno::MFILE;
    const EBADF: Errno = Errno::BADF;
    const ECONNABORTED: Errno = Errno::CONNABORTED;

    /// Plays the errors, then one connection, and remembers when it was asked.
    struct Script {
        errors: Vec<Errno>,
        asked: Vec<Instant>,
    }

    impl Source for Script {
        type Connection = ();

        fn poll_accept(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.asked.push(Instant::now());
            Poll::Ready(match self.errors.pop() {
                Some(code) => Err(code.into()),
                None => Ok(()),
            })
        }
    }

    async fn play(errors: Vec<Errno>) -> (io::Result<()>, Vec<Duration>) {
        let mut acceptor = Acceptor::new(Script { errors, asked: Vec::new() });
        let result = acceptor.accept().await;
        let asked = &acceptor.source.asked;
        (result, asked.windows(2).map(|pair| pair[1] - pair[0]).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortage_pauses_longer_and_longer_and_never_gives_up() {
        let (result, pauses) = play(vec![EMFILE; 300]).await;
        result.expect("the shortage ended");
        let start: Vec<_> = pauses[..4].iter().map(Duration::as_millis).collect();
        assert_eq!(start, [5, 10, 20, 40]);
        assert_eq!(pauses[299], PAUSE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_went_away_costs_no_pause() {
        let (result, pauses) = play(vec![ECONNABORTED; 300]).await;
        result.expect("the next client stayed");
        assert!(pauses.iter().all(Duration::is_zero));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_listener_is_reported_in_the_end() {
        let (result, pauses) = play(vec![EBADF; 300]).await;
        assert_eq!(result.expect_err("it is broken").raw_os_error(), Some(EBADF.raw_os_error()));
        assert_eq!(pauses.len() as u32, ERRORS_MAX - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_a_row_of_errors() {
        let mut acceptor = Acceptor::new(Script { errors: vec![EBADF; 3], asked: Vec::new() });
        acceptor.accept().await.expect("accepted");
        assert_eq!(acceptor.errors, 0);
    }
}
