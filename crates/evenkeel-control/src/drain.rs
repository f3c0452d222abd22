//! How the streams of a balancer that goes end: one after the other within a second, so that its
//! clients do not turn to the other balancers all at once.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::Status;

/// Over which time the streams of a balancer that ends are ended.
pub const DRAIN_SPREAD: Duration = Duration::from_secs(1);
/// The part of that time in which none ends, so that GOAWAY is there before.
const DRAIN_FIRST: f64 = 0.1;

/// The signal to all streams of a service.
#[derive(Debug)]
pub(crate) struct Drain(watch::Sender<bool>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Drain {
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn turn(&self) -> Turn {
        Turn { draining: self.0.subscribe(), ends_at: None }
    }
}

/// One stream's turn in a drain.
#[derive(Debug)]
pub(crate) struct Turn {
    draining: watch::Receiver<bool>,
    /// Set when the balancer drains.
    ends_at: Option<Instant>,
}

impl Turn {
    /// Waits for it. What it has waited for is kept, so that it can be dropped and called again.
    pub(crate) async fn comes(&mut self) {
        if self.ends_at.is_none() {
            // Its sender is in what the stream shares, so it can't fail.
            let _ = self.draining.wait_for(|draining| *draining).await;
            let part = fastrand::f64().max(DRAIN_FIRST);
            self.ends_at = Some(Instant::now() + DRAIN_SPREAD.mul_f64(part));
        }
        if let Some(at) = self.ends_at {
            sleep_until(at).await;
        }
    }
}

/// What a stream that the drain ends ends with.
pub(crate) fn drained() -> Status {
    Status::unavailable("this balancer is going; keep what you have and ask another one")
}
