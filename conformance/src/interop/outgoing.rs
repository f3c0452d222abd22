//! A request stream that tells when the channel began to read it, and when it was let go.
//!
//! In Rust a cancelled call has no status: its future is dropped. What can be seen is whether the
//! call had begun, and whether the channel kept anything of it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};

/// Requests that are written and not yet read; no case is more than one ahead.
const REQUESTS_WAITING_MAX: usize = 4;

/// The stream that goes into the call.
pub(super) struct Outgoing<T> {
    requests: mpsc::Receiver<T>,
    begun: Option<oneshot::Sender<()>>,
}

/// The caller's end. Dropping it half-closes the call.
pub(super) struct Requests<T> {
    requests: mpsc::Sender<T>,
    begun: oneshot::Receiver<()>,
}

/// Both ends.
pub(super) fn outgoing<T>() -> (Requests<T>, Outgoing<T>) {
    let (sender, receiver) = mpsc::channel(REQUESTS_WAITING_MAX);
    let (begin, begun) = oneshot::channel();
    (Requests { requests: sender, begun }, Outgoing { requests: receiver, begun: Some(begin) })
}

impl<T> Requests<T> {
    /// Whether it could be sent: the call has not ended.
    pub(super) async fn send(&self, request: T) -> bool {
        self.requests.send(request).await.is_ok()
    }

    /// Waits until the channel reads the stream; forever if it never does.
    pub(super) async fn begun(&mut self) {
        if (&mut self.begun).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the channel lets the stream go.
    pub(super) async fn let_go(&self) {
        self.requests.closed().await;
    }
}

impl<T> Stream for Outgoing<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(begun) = self.begun.take() {
            // Most cases do not wait for it.
            let _ = begun.send(());
        }
        self.requests.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;

    #[tokio::test]
    async fn tells_when_it_is_read_and_when_it_is_let_go() {
        let (mut requests, mut outgoing) = outgoing();
        assert!(requests.send(7).await);
        assert_eq!(outgoing.next().await, Some(7));
        requests.begun().await;
        drop(outgoing);
        requests.let_go().await;
        assert!(!requests.send(8).await);
    }
}
