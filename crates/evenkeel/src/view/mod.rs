//! What there is to see of a channel, for people and tools that ask why calls are slow or fail: a
//! snapshot as a value ([`Channel::snapshot`](crate::Channel::snapshot)), as JSON over HTTP
//! ([`JsonService`]) and, through the crate `evenkeel-channelz`, by gRPC's own protocol.
//!
//! Calls do nothing for it that they would not do anyway, but for one relaxed addition on their
//! connection's counters when they end with OK. The driver notes what changes on a board of its
//! own; a snapshot reads that, and the connections' counters. Asking the driver instead would show
//! nothing of a channel whose runtime stands still, which is when one looks.
//!
//! Field names are a public interface: they don't change their meaning, and new ones may come.

mod board;
mod channels;
mod counts;
mod json;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use board::Board;
pub use channels::{ChannelView, PAGE_MAX, Page};
pub(crate) use counts::{Counts, InBackoff};
use evenkeel_core::{Address, ConnectivityState, Endpoint, service_config::RetryThrottling};
pub use json::JsonService;
use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use crate::channel::Shared;

/// Everything about one channel at one moment. Ages are in seconds before that moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ChannelSnapshot {
    /// Unique in the process, also among subchannels and connections; never used again.
    pub id: u64,
    /// As it was given to the builder.
    pub target: String,
    /// The `:authority` of its calls.
    pub authority: String,
    /// The channel's state.
    #[serde(serialize_with = "as_text")]
    pub state: ConnectivityState,
    /// How long ago it was built.
    pub age_s: f64,
    /// The load-balancing policy in use; none before the resolver's first answer.
    pub policy: Option<String>,
    /// Where its endpoints come from.
    pub resolver: ResolverSnapshot,
    /// The settings in use.
    pub service_config: ServiceConfigSnapshot,
    /// The resolver's latest list.
    #[serde(serialize_with = "as_address_lists")]
    pub endpoints: Vec<Endpoint>,
    /// All subchannels that were ever asked to connect and are still there.
    pub subchannels: Vec<SubchannelSnapshot>,
    /// Connections that run on although their subchannel is gone, until their last call ends.
    pub draining: Vec<ConnectionSnapshot>,
    /// The calls that are not on a connection.
    pub waiting: WaitingSnapshot,
    /// What became of its calls.
    pub calls: CallCounts,
    /// When it goes IDLE for want of calls.
    pub idleness: IdlenessSnapshot,
    /// Request bytes that are kept to be sent again.
    pub replay_bytes: usize,
}

/// A resolver's reports.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ResolverSnapshot {
    /// The target's scheme.
    pub scheme: String,
    /// Answers that were taken.
    pub updates: u64,
    /// Failures that were reported.
    pub errors: u64,
    /// The latest answer's age.
    pub last_update_age_s: Option<f64>,
    /// The latest failure, until an answer follows it.
    pub last_error: Option<ErrorSnapshot>,
}

/// An error and its age.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ErrorSnapshot {
    /// The status code's name, e.g. `UNAVAILABLE`.
    pub code: String,
    /// What went wrong.
    pub message: String,
    /// How long ago.
    pub age_s: f64,
}

/// A service config in short.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServiceConfigSnapshot {
    /// `resolver`, or `channel` for the builder's own.
    pub source: &'static str,
    /// Entries of `methodConfig`.
    pub method_configs: usize,
    /// The throttle of retries (gRFC A6), if there is one.
    pub retry_throttling: Option<ThrottlingSnapshot>,
}

/// The throttle of retries (gRFC A6).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ThrottlingSnapshot {
    /// Tokens that are left; retries stop at half of `max_tokens` and below.
    pub tokens: f64,
    /// The bucket's size.
    pub max_tokens: f64,
    /// What a success gives back.
    pub token_ratio: f64,
}

/// One address and its connections.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SubchannelSnapshot {
    /// Unique in the process.
    pub id: u64,
    /// Where it connects to.
    #[serde(serialize_with = "as_text")]
    pub address: Address,
    /// Its state.
    #[serde(serialize_with = "as_text")]
    pub state: ConnectivityState,
    /// How long it has been in that state.
    pub state_age_s: f64,
    /// Why its latest attempt failed, until it is READY.
    pub last_error: Option<ErrorSnapshot>,
    /// The present connection and older ones that still drain.
    pub connections: Vec<ConnectionSnapshot>,
    /// Streams of all its connections, also of those that are gone.
    pub streams: StreamCounts,
}

/// One HTTP/2 connection.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ConnectionSnapshot {
    /// Unique in the process.
    pub id: u64,
    /// The address that it was made to.
    #[serde(serialize_with = "as_text")]
    pub address: Address,
    /// How long ago the server's first SETTINGS came.
    pub age_s: f64,
    /// It takes no new streams: GOAWAY came, or nobody wants it any more.
    pub draining: bool,
    /// Streams that calls hold.
    pub streams_open: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS; none when the server sets no limit.
    pub streams_max: Option<u32>,
    /// Its streams so far.
    pub streams: StreamCounts,
}

/// Streams, each of which is one attempt of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamCounts {
    /// Requests that were written to the socket.
    pub started: u64,
    /// Those whose status was OK.
    pub succeeded: u64,
    /// Those that ended otherwise: another status, a broken stream, a caller that gave up.
    pub failed: u64,
}

/// Calls of a channel. Exact when no call is under way; meanwhile they may lag behind by those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CallCounts {
    /// Calls that ended, run or wait. Calls whose caller gave up before they were sent are not
    /// counted, here and in `failed`.
    pub started: u64,
    /// Ended with OK.
    pub succeeded: u64,
    /// Ended otherwise, also those that never got a connection.
    pub failed: u64,
    /// Attempts that the service config's policy repeated (gRFC A6).
    pub retries: u64,
    /// Attempts that were sent again because no server had processed them.
    pub transparent_retries: u64,
}

/// Calls that wait.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WaitingSnapshot {
    /// For any of the reasons below.
    pub calls: usize,
    /// For a connection that a picker offers.
    pub for_connection: usize,
    /// What keeps those, when there are any.
    pub for_connection_because: Option<String>,
    /// For a free stream: all connections are at their servers' limits.
    pub for_stream: usize,
    /// For the end of the backoff before another attempt.
    pub for_retry: usize,
}

/// When the channel goes IDLE (gRFC A9).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct IdlenessSnapshot {
    /// The setting; none: never.
    pub timeout_s: Option<f64>,
    /// How long it has been without calls: 0 while one is open, else as far as the last look
    /// tells, of which there are eight per time-out. None while it is IDLE.
    pub quiet_s: Option<f64>,
}

impl StreamCounts {
    pub(crate) fn add(&mut self, other: Self) {
        self.started += other.started;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
    }
}

/// A number that nothing else in this process has. It is no registry: nobody can be found by it.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn snapshot(shared: &Shared) -> ChannelSnapshot {
    let state = shared.state();
    let now = tokio::time::Instant::now();
    let noted = shared.board.read(now, shared);
    let config = &shared.snapshot.load().config;
    let retry_throttling = config.throttle().map(|throttle| {
        let tokens = |milli: u64| milli as f64 / 1000.0;
        let (RetryThrottling { max_millitokens, ratio_millitokens }, left) = throttle.level();
        let (max_tokens, token_ratio) = (tokens(max_millitokens), tokens(ratio_millitokens));
        ThrottlingSnapshot { tokens: tokens(left), max_tokens, token_ratio }
    });
    ChannelSnapshot {
        id: shared.id,
        target: shared.target.clone(),
        authority: shared.defaults.authority.to_string(),
        state,
        age_s: now.saturating_duration_since(shared.epoch).as_secs_f64(),
        policy: noted.policy,
        resolver: noted.resolver,
        service_config: ServiceConfigSnapshot {
            source: if noted.config_from_resolver { "resolver" } else { "channel" },
            method_configs: config.methods_len(),
            retry_throttling,
        },
        endpoints: noted.endpoints,
        subchannels: noted.subchannels,
        draining: noted.draining,
        waiting: noted.waiting,
        calls: noted.calls,
        idleness: IdlenessSnapshot {
            timeout_s: shared.idle_timeout.map(|timeout| timeout.as_secs_f64()),
            quiet_s: noted.quiet_s.filter(|_| state != ConnectivityState::Idle),
        },
        replay_bytes: shared.replay.bytes(),
    }
}

fn as_text<S: Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Each endpoint as the list of its addresses.
fn as_address_lists<S: Serializer>(list: &[Endpoint], serializer: S) -> Result<S::Ok, S::Error> {
    let mut out = serializer.serialize_seq(Some(list.len()))?;
    for endpoint in list {
        let addresses: Vec<String> = endpoint.addresses().iter().map(Address::to_string).collect();
        out.serialize_element(&addresses)?;
    }
    out.end()
}
