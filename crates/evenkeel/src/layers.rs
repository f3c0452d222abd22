//! What a user runs around every call and around every attempt of a channel: credentials, tracing,
//! counters of one's own. A tower layer or a tonic interceptor around the channel sees calls as
//! well, but neither the attempts inside (retries, which backend) nor how a stream ended.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{Address, CallOutcome, SubchannelId};
use http::{Extensions, HeaderMap};

use crate::edge::{Code, Status};

/// Told once how a call ended: its status, or `None` when the caller dropped it before its end.
pub type OnCallEnd = Box<dyn FnOnce(Option<Code>) + Send>;
/// Told once how an attempt ended.
pub type OnAttemptEnd = Box<dyn FnOnce(CallOutcome) + Send>;

/// Runs once for each call, on the caller's task; see [`crate::ChannelBuilder::call_layer`]. It
/// must not block.
pub trait CallLayer: Send + Sync + 'static {
    /// The call begins. Changes of the headers are seen by all attempts.
    ///
    /// # Errors
    ///
    /// The status with which the call ends, before anything is sent.
    fn start(&self, call: &mut CallStart<'_>) -> Result<Option<OnCallEnd>, Status>;
}

/// Runs for each attempt that is sent: once for most calls, more often when one is repeated. See
/// [`crate::ChannelBuilder::attempt_layer`]. It must not block.
pub trait AttemptLayer: Send + Sync + 'static {
    /// The attempt is about to be sent. Changes of the headers are seen by this attempt only.
    ///
    /// # Errors
    ///
    /// The status with which the call ends; the attempt counts as not sent.
    fn start(&self, attempt: &mut AttemptStart<'_>) -> Result<Option<OnAttemptEnd>, Status>;
}

/// A call that begins.
#[non_exhaustive]
pub struct CallStart<'a> {
    /// Its path, `/service/method`.
    pub path: &'a str,
    /// Its request headers, with `grpc-timeout` if it has a deadline.
    pub headers: &'a mut HeaderMap,
    /// What the caller put there, [`crate::CallOptions`] for one.
    pub extensions: &'a mut Extensions,
    /// Layers of this call's attempts, which run behind the channel's: for who looks at some calls
    /// only.
    pub attempt_layers: &'a mut Vec<Arc<dyn AttemptLayer>>,
}

/// An attempt that is about to be sent.
#[non_exhaustive]
pub struct AttemptStart<'a> {
    /// The call's path, `/service/method`.
    pub path: &'a str,
    /// The headers that are sent.
    pub headers: &'a mut HeaderMap,
    /// Where it goes.
    pub backend: &'a Address,
    /// Attempts of the same call that the server may have seen before.
    pub retries: u32,
    /// Why it is sent.
    pub kind: AttemptKind,
    /// What the call carries: what a [`CallLayer`] put there, say.
    pub extensions: &'a Extensions,
    /// The subchannel that was picked.
    pub subchannel: SubchannelId,
    /// The name of the policy that picked it.
    pub policy: &'a str,
    /// How long the call waited for a pick or a stream before this attempt.
    pub queued: Duration,
}

/// Why an attempt is sent (gRFC A6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptKind {
    /// The call's first.
    #[default]
    First,
    /// The server never processed the one before.
    TransparentRetry,
    /// The service config's retry policy repeats the one before.
    Retry,
}
