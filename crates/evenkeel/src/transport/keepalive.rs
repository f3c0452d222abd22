//! Keepalive (gRFC A8): a ping when nothing was received for some time, and the end of the
//! connection when nothing follows it. Any byte counts as a sign of life.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::tap::Seen;
use crate::builder::Keepalive;

/// The pings of one connection. Without HTTP/2's own connection, so that one poll after the other
/// serves both.
pub(crate) struct Pings {
    ping_pong: h2::PingPong,
    keepalive: Keepalive,
    timer: Pin<Box<Sleep>>,
    read_count: u64,
    /// When the latest bytes came.
    heard_at: Instant,
    /// A ping was sent and nothing came since.
    waits: bool,
}

impl Pings {
    pub(crate) fn new(ping_pong: h2::PingPong, keepalive: Keepalive, seen: &Seen) -> Self {
        let now = Instant::now();
        Self {
            ping_pong,
            keepalive,
            timer: Box::pin(sleep_until(now + keepalive.time)),
            read_count: seen.read_count(),
            heard_at: now,
            waits: false,
        }
    }

    /// Ready when the peer is to be given up. Called after each poll of the connection, as that is
    /// what reads.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, seen: &Seen) -> Poll<()> {
        if self.waits {
            // An error here is the connection's own and comes up there.
            let _ = self.ping_pong.poll_pong(cx);
        }
        if self.read_count != seen.read_count() {
            self.read_count = seen.read_count();
            self.heard_at = Instant::now();
            if std::mem::take(&mut self.waits) {
                self.timer.as_mut().reset(self.heard_at + self.keepalive.time);
            }
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.waits {
                let limit = self.keepalive.timeout;
                seen.end(|| format!("keepalive: nothing came within {limit:?} after a ping"));
                return Poll::Ready(());
            }
            let now = Instant::now();
            // The timer is not moved with each byte; it is late by what was heard since.
            let due = self.heard_at + self.keepalive.time;
            let wanted = self.keepalive.permit_without_calls || seen.open() > 0;
            let next = if now < due {
                due
            } else if wanted {
                // Fails when an earlier ping is still without its answer, though other frames came
                // since: then that one's answer will do.
                let _ = self.ping_pong.send_ping(h2::Ping::opaque());
                self.waits = true;
                cx.waker().wake_by_ref(); // so that the connection writes the ping
                now + self.keepalive.timeout
            } else {
                now + self.keepalive.time
            };
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}
