//! What a test can break.

use std::time::Duration;

/// What happens to requests instead of an answer, or before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are answered with this status; 401, 403, 429 and 410 read as kube-apiserver's.
    Status {
        /// The code, 400 or more.
        code: u16,
        /// `Retry-After`, in seconds.
        retry_after_s: Option<u64>,
    },
    /// They are answered after this time.
    Slow(Duration),
    /// They are read and never answered.
    Hang,
    /// Their connection is closed without an answer.
    Close,
    /// Watches are answered and then ended at once.
    EndWatches,
    /// Watches are answered with an event that is no JSON.
    Garbage,
}

/// How streaming lists (`sendInitialEvents`) are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamingLists {
    /// As Kubernetes 1.34 does.
    #[default]
    Served,
    /// As with the feature gate `WatchList` off: 422.
    Refused,
    /// As before 1.27: the parameters are not known, and a plain watch begins.
    Unknown,
}
