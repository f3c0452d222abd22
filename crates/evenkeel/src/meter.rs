//! What counts every call of a channel: metrics, say (gRFC A66). Layers could, for each call with a
//! closure or two in boxes; a meter is told numbers and allocates nothing, so that it may be on
//! wherever calls are. It also hears what layers can't: an attempt's status and its bytes.

use std::time::Duration;

use crate::edge::Code;

/// Hears of every call and attempt, on the task where it happens; see
/// [`crate::ChannelBuilder::call_meter`]. It must not block.
///
/// A call that a layer refuses, or that can't be a call, is not told of.
pub trait CallMeter: Send + Sync + 'static {
    /// A call begins, with its path, `/service/method`. The number comes back with everything else
    /// that is told of the call, so that a path is looked up once.
    fn call_started(&self, path: &str) -> u32;

    /// An attempt of such a call begins: its first together with the call, before there is a pick.
    fn attempt_started(&self, method: u32);

    /// An attempt has ended; told once for each that began.
    fn attempt_ended(&self, method: u32, end: &AttemptEnd);

    /// The call has ended; told once, after its last attempt's end.
    fn call_ended(&self, method: u32, end: &CallEnd);

    /// The call has ended with its only attempt, as most do: told in the place of the two above,
    /// for a meter that has a shorter way.
    fn ended(&self, method: u32, end: &AttemptEnd) {
        self.attempt_ended(method, end);
        let AttemptEnd { code, took, .. } = *end;
        let (retries, transparent_retries, retry_delay) = (0, 0, Duration::ZERO);
        self.call_ended(method, &CallEnd { code, took, retries, transparent_retries, retry_delay });
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AttemptEnd {
    /// Its status: the server's, or what the channel makes of its loss.
    pub code: Code,
    /// From its beginning, with the time that it waited for a pick.
    pub took: Duration,
    /// Bytes of messages that were sent: compressed, without framing.
    pub sent_bytes: u64,
    /// Bytes of messages that were received: compressed, without framing.
    pub received_bytes: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallEnd {
    /// The status that the caller sees; CANCELLED when it dropped the call before its end.
    pub code: Code,
    /// From its first poll to its end.
    pub took: Duration,
    /// Attempts by the retry policy.
    pub retries: u32,
    /// Attempts because the server had never processed the one before.
    pub transparent_retries: u32,
    /// Time in which no attempt was under way.
    pub retry_delay: Duration,
}
