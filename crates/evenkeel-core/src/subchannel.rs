//! One address and the machine that says when to connect to it.
//!
//! ```text
//!           connect            first SETTINGS
//!   IDLE ───────────▶ CONNECTING ───────────▶ READY
//!    ▲  ▲                  │                    │
//!    │  └── backoff ends   ▼ failed             │ GOAWAY, lost
//!    │            TRANSIENT_FAILURE             │
//!    └──────────────────────────────────────────┘
//! ```
//!
//! The machine knows nothing of sockets: the channel's transport tells it what happened.

use std::sync::Arc;

use crate::{Address, Backoff, ConnectivityState, Nanos, Status, TimerId, WatchId, health::Health};

/// Names a subchannel. The index is reused when it is gone, the generation is not, so a late event
/// about an old subchannel never touches a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubchannelId {
    /// Place in the channel's table.
    pub index: u32,
    /// How often that place was given out before.
    pub generation: u32,
}

pub(crate) struct Subchannel {
    pub(crate) address: Address,
    /// The server's own name, where it is not the channel's.
    pub(crate) server_name: Option<Arc<str>>,
    pub(crate) state: ConnectivityState,
    pub(crate) last_error: Option<Status>,
    pub(crate) backoff_timer: Option<TimerId>,
    /// Streams on its present connection.
    pub(crate) watches: Vec<WatchId>,
    /// While it is READY and its policy asked for it.
    pub(crate) health: Option<Health>,
    failures: u32,
    attempt_started_at: Nanos,
}

impl Subchannel {
    pub(crate) fn new(address: Address, server_name: Option<Arc<str>>) -> Self {
        Self {
            address,
            server_name,
            state: ConnectivityState::Idle,
            last_error: None,
            backoff_timer: None,
            watches: Vec::new(),
            health: None,
            failures: 0,
            attempt_started_at: 0,
        }
    }

    /// Somebody wants a connection. True when an attempt is to be started.
    pub(crate) fn start(&mut self, now: Nanos) -> bool {
        let start = self.state == ConnectivityState::Idle;
        if start {
            self.state = ConnectivityState::Connecting;
            self.attempt_started_at = now;
        }
        start
    }

    /// The server's first SETTINGS came.
    pub(crate) fn connected(&mut self) {
        self.state = ConnectivityState::Ready;
        self.failures = 0;
        self.last_error = None;
    }

    /// The attempt failed. Returns when the backoff ends: it counts from the attempt's start, as
    /// gRPC's document has it, but is never over at once.
    pub(crate) fn failed(
        &mut self,
        now: Nanos,
        error: Status,
        backoff: &Backoff,
        rng: &mut fastrand::Rng,
    ) -> Nanos {
        self.state = ConnectivityState::TransientFailure;
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error);
        let wait = backoff.wait_ns(self.failures, rng);
        self.attempt_started_at.saturating_add(wait).max(now.saturating_add(1))
    }

    /// The connection is gone or drains, or the backoff is over.
    pub(crate) fn idle(&mut self) {
        self.state = ConnectivityState::Idle;
        self.backoff_timer = None;
    }
}
