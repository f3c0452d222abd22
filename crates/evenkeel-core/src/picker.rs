//! Pickers: a policy's decision, frozen so that every call can use it without a lock.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{ConnectivityState, Nanos, Status, SubchannelId};

/// What a picker may look at.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PickArgs<'a> {
    /// The call's path, `/service/method`.
    pub path: &'a str,
    /// The call's request headers.
    pub headers: &'a HeaderMap,
    /// The time of the attempt.
    pub now: Nanos,
    /// Fresh random bits, drawn by the caller.
    pub random: u64,
    /// What the caller wants equal calls to be known by, if it said so.
    pub routing_key: Option<&'a str>,
}

impl<'a> PickArgs<'a> {
    /// The arguments of one pick, without a routing key.
    pub fn new(path: &'a str, headers: &'a HeaderMap, now: Nanos, random: u64) -> Self {
        Self { path, headers, now, random, routing_key: None }
    }
}

/// How an attempt ended, for [`CallSink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallOutcome {
    /// The server ended it; the number is the `grpc-status`, or `None` when it sent none.
    Finished(Option<u8>),
    /// The connection or stream broke, or the deadline passed.
    Failed,
    /// The caller dropped it.
    Cancelled,
    /// It never reached the server.
    NotSent,
    /// It was no attempt: the connection had no stream left or had just ended, and the call picks
    /// again. It never began.
    Void,
}

/// Receives the end of each attempt that a picker asked to hear of: exactly once, on the caller's
/// task. It must not block and should touch atomics only.
pub trait CallSink: Send + Sync {
    /// The attempt with this token is about to be sent; never told of a [`CallOutcome::Void`] one.
    fn begin(&self, token: u64) {
        let _ = token;
    }

    /// The attempt with this token ended.
    fn complete(&self, token: u64, outcome: CallOutcome);
}

/// A chosen subchannel.
pub struct Pick {
    /// Where the attempt goes.
    pub subchannel: SubchannelId,
    /// One header that the attempt carries.
    pub metadata: Option<(HeaderName, HeaderValue)>,
    /// Who wants to hear how it ended, and under which token.
    pub on_complete: Option<(Arc<dyn CallSink>, u64)>,
}

impl Pick {
    /// A pick without metadata or feedback.
    pub fn new(subchannel: SubchannelId) -> Self {
        Self { subchannel, metadata: None, on_complete: None }
    }
}

/// A picker's answer.
pub enum PickResult {
    /// Send it there.
    Complete(Pick),
    /// Wait for the next picker.
    Queue,
    /// Fail with this status, unless the call waits for ready.
    Fail(Status),
    /// Fail with this status, even if the call waits for ready.
    Drop(Dropped),
}

/// A call that is to fail because somebody decided so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// What the call fails with.
    pub status: Status,
    /// Under which name drops of this kind are counted: a balancer's token, say; may be empty.
    pub category: Arc<str>,
}

impl From<Status> for Dropped {
    /// A drop without a category.
    fn from(status: Status) -> Self {
        Self { status, category: "".into() }
    }
}

/// A policy's decision at one moment. It is shared by all calls and replaced, never changed.
pub trait Picker: Send + Sync {
    /// Chooses for one attempt. Takes no lock, allocates nothing in the usual case.
    fn pick(&self, args: &PickArgs<'_>) -> PickResult;
}

/// Always [`PickResult::Queue`].
pub struct QueuePicker;

impl Picker for QueuePicker {
    fn pick(&self, _args: &PickArgs<'_>) -> PickResult {
        PickResult::Queue
    }
}

/// Always [`PickResult::Fail`].
pub struct FailPicker(pub Status);

impl Picker for FailPicker {
    fn pick(&self, _args: &PickArgs<'_>) -> PickResult {
        PickResult::Fail(self.0.clone())
    }
}

/// The picker that fits a state in which no call can be sent.
pub fn waiting_picker(
    state: ConnectivityState,
    status: impl FnOnce() -> Status,
) -> Arc<dyn Picker> {
    match state {
        ConnectivityState::TransientFailure => Arc::new(FailPicker(status())),
        _ => Arc::new(QueuePicker),
    }
}
