//! What to ask the API server next, and what its answers mean. No socket, no clock, no randomness
//! of its own: the rules are about versions, orders and minutes, and are tested with values.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use evenkeel_core::{Backoff, Nanos};

use crate::{
    ENDPOINTS_MAX, SLICES_MAX, ServiceKey, Slices, WatchError, WatchErrorKind, api,
    error::{Refusal, refused},
    slices::Slice,
};

/// A watch ends after this time, so that a connection that died unnoticed is replaced; a third
/// more or less, so that watches that began together do not go on together.
const WATCH_S: (u32, u32) = (24, 36);
/// Waits between failures: 0.8 to 2.4 s, doubled each time, up to 10 to 30 s. Wide, because all
/// watches of a cluster lose their connections at one moment when an API server ends.
const BACKOFF: Backoff =
    Backoff { initial_ns: 1_600_000_000, multiplier: 2.0, jitter: 0.5, max_ns: 20_000_000_000 };
/// The first list after a version was gone comes within this time: all watches of a cluster lose
/// theirs at once.
const GONE_WAIT_NS: u64 = 800_000_000;

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// All slices and then the changes, in one answer (KEP-3157).
    StreamingList { timeout_s: u32 },
    /// All slices.
    List,
    /// The changes since.
    Watch { version: String, timeout_s: u32 },
}

impl Request {
    pub(crate) fn path(&self, key: &ServiceKey) -> String {
        let Path { prefix, namespace, selector } = Path::new(key);
        let common = format!("{prefix}{namespace}/endpointslices?labelSelector={selector}");
        match self {
            Self::StreamingList { timeout_s } => format!(
                "{common}&watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
                 &resourceVersionMatch=NotOlderThan&timeoutSeconds={timeout_s}"
            ),
            Self::List => common,
            // Versions are opaque, so nothing says that they are plain digits.
            Self::Watch { version, timeout_s } => format!(
                "{common}&watch=true&allowWatchBookmarks=true&resourceVersion={}\
                 &timeoutSeconds={timeout_s}",
                Escaped(version)
            ),
        }
    }

    /// After how many seconds the server ends it.
    pub(crate) fn timeout_s(&self) -> Option<u32> {
        match self {
            Self::StreamingList { timeout_s } | Self::Watch { timeout_s, .. } => Some(*timeout_s),
            Self::List => None,
        }
    }
}

struct Path<'a> {
    prefix: &'static str,
    namespace: &'a str,
    selector: String,
}

impl<'a> Path<'a> {
    fn new(key: &'a ServiceKey) -> Self {
        let selector = format!("kubernetes.io%2Fservice-name%3D{}", key.name());
        Self { prefix: api::PATH_PREFIX, namespace: key.namespace(), selector }
    }
}

/// For a query.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// How an answer ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The list is there, or the watch's time was over.
    InTime,
    /// The server ended a watch before its time.
    Early,
    /// The connection failed, or what came can't be used.
    Failed(WatchError),
    /// The server answered with an error status.
    Refused(Refusal),
    /// A streaming list's initial events did not end.
    NoInitialEventsEnd,
}

/// What an event changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    /// The set is complete again, and may be the same.
    Complete,
    /// The complete set is another one.
    Changed,
}

type ByName = BTreeMap<Arc<str>, Arc<Slice>>;

/// Follows the slices of one Service.
pub(crate) struct Follower {
    key: ServiceKey,
    server: String,
    slices: ByName,
    /// What a streaming list has brought so far.
    arriving: Option<ByName>,
    /// Where the next watch goes on; `None`: a list is needed.
    version: Option<String>,
    /// False when the server was seen not to have them.
    has_streaming_lists: bool,
    /// The set was complete once.
    complete: bool,
    /// In a row.
    failures: u32,
    changes: u64,
}

impl Follower {
    pub(crate) fn new(key: ServiceKey, server: String) -> Self {
        Self {
            key,
            server,
            slices: BTreeMap::new(),
            arriving: None,
            version: None,
            has_streaming_lists: true,
            complete: false,
            failures: 0,
            changes: 0,
        }
    }

    /// What to ask next; what an earlier streaming list left unfinished is forgotten.
    pub(crate) fn request(&mut self, rng: &mut fastrand::Rng) -> Request {
        self.arriving = None;
        let timeout_s = rng.u32(WATCH_S.0..=WATCH_S.1);
        match &self.version {
            Some(version) => Request::Watch { version: version.clone(), timeout_s },
            None if self.has_streaming_lists => {
                self.arriving = Some(BTreeMap::new());
                Request::StreamingList { timeout_s }
            }
            None => Request::List,
        }
    }

    /// Takes a whole list.
    pub(crate) fn list(&mut self, body: &[u8]) -> Result<Heard, WatchError> {
        let list: api::List = serde_json::from_slice(body).map_err(|e| self.unreadable(&e))?;
        let mut slices = BTreeMap::new();
        for slice in list.items {
            self.insert(&mut slices, slice)?;
        }
        self.version = Some(list.metadata.resource_version);
        Ok(self.replace(slices))
    }

    /// Takes a line of a watch.
    pub(crate) fn line(&mut self, line: &[u8]) -> Result<Heard, Refusal> {
        let fail = |error| Refusal { error, retry_after: None };
        let event = serde_json::from_slice(line).map_err(|e| fail(self.unreadable(&e)))?;
        self.event(event).map_err(fail)
    }

    fn event(&mut self, event: api::Event) -> Result<Heard, WatchError> {
        match event {
            api::Event::Added(slice) | api::Event::Modified(slice) => {
                let version = slice.metadata.resource_version.clone();
                if let Some(mut arriving) = self.arriving.take() {
                    let inserted = self.insert(&mut arriving, slice);
                    self.arriving = Some(arriving);
                    return inserted.map(|_| Heard::Nothing);
                }
                let mut slices = std::mem::take(&mut self.slices);
                let inserted = self.insert(&mut slices, slice);
                self.slices = slices;
                let changed = inserted?;
                Ok(self.went_on(version, changed))
            }
            api::Event::Deleted(slice) => {
                let api::Metadata { name, resource_version, .. } = slice.metadata;
                if let Some(arriving) = &mut self.arriving {
                    arriving.remove(name.as_str());
                    return Ok(Heard::Nothing);
                }
                let changed = self.slices.remove(name.as_str()).is_some();
                Ok(self.went_on(resource_version, changed))
            }
            api::Event::Bookmark(bookmark) => {
                let ends = bookmark.ends_initial_events();
                match self.arriving.take_if(|_| ends) {
                    Some(arrived) => {
                        self.version = Some(bookmark.metadata.resource_version);
                        Ok(self.replace(arrived))
                    }
                    None if self.arriving.is_some() => Ok(Heard::Nothing),
                    None => Ok(self.went_on(bookmark.metadata.resource_version, false)),
                }
            }
            api::Event::Error(status) => Err(refused(&self.server, &self.key, &status)),
        }
    }

    /// The answer to a request is over: how long to wait for the next one.
    pub(crate) fn ended(
        &mut self,
        request: &Request,
        ended: &Ended,
        rng: &mut fastrand::Rng,
    ) -> Nanos {
        self.arriving = None;
        let is_streaming_list = matches!(request, Request::StreamingList { .. });
        let mut retry_after_ns = 0;
        match ended {
            Ended::InTime => {
                self.failures = 0;
                return 0;
            }
            Ended::NoInitialEventsEnd => {
                self.has_streaming_lists = false;
                return 0;
            }
            Ended::Refused(refusal) => match refusal.error.kind {
                WatchErrorKind::Status(400 | 404 | 405 | 422) if is_streaming_list => {
                    self.has_streaming_lists = false;
                    return 0;
                }
                WatchErrorKind::Gone => {
                    self.version = None;
                    self.failures = self.failures.saturating_add(1);
                    if self.failures == 1 {
                        return rng.u64(0..GONE_WAIT_NS);
                    }
                    return BACKOFF.wait_ns(self.failures, rng);
                }
                _ => retry_after_ns = refusal.retry_after.map_or(0, |after| nanos(after, rng)),
            },
            // An event that can't be read may have been a change.
            Ended::Failed(error) if error.kind == WatchErrorKind::Unreadable => self.version = None,
            Ended::Failed(_) | Ended::Early => {}
        }
        self.failures = self.failures.saturating_add(1);
        BACKOFF.wait_ns(self.failures, rng).max(retry_after_ns)
    }

    /// The complete set, if there ever was one.
    pub(crate) fn slices(&self) -> Option<Slices> {
        self.complete.then(|| Slices {
            version: self.changes,
            by_name: self.slices.clone(),
            ..Slices::new(self.key.clone())
        })
    }

    /// True when it is another one than before.
    fn insert(&self, slices: &mut ByName, slice: api::EndpointSlice) -> Result<bool, WatchError> {
        let name: Arc<str> = slice.metadata.name.as_str().into();
        let slice = Slice::read(slice);
        let key = &self.key;
        if slice.ignored > 0 && slices.get(&name).is_none_or(|s| s.ignored != slice.ignored) {
            let ignored = slice.ignored;
            tracing::warn!(
                service = %key, slice = %name, ignored,
                "addresses that are neither IPv4 nor IPv6 are ignored"
            );
        }
        if slices.get(&name).is_some_and(|before| **before == slice) {
            return Ok(false);
        }
        slices.insert(name, Arc::new(slice));
        let endpoints: usize = slices.values().map(|slice| slice.endpoints.len()).sum();
        if slices.len() > SLICES_MAX || endpoints > ENDPOINTS_MAX {
            let message = format!(
                "{key} has more than {SLICES_MAX} EndpointSlices or {ENDPOINTS_MAX} endpoints"
            );
            return Err(WatchError::new(WatchErrorKind::Unreadable, message));
        }
        Ok(true)
    }

    fn replace(&mut self, slices: ByName) -> Heard {
        self.failures = 0;
        let changed = !self.complete || self.slices != slices;
        self.slices = slices;
        self.complete = true;
        if !changed {
            return Heard::Complete;
        }
        self.changes += 1;
        Heard::Changed
    }

    fn went_on(&mut self, version: String, changed: bool) -> Heard {
        self.failures = 0;
        if !version.is_empty() {
            self.version = Some(version);
        }
        if !changed {
            return Heard::Nothing;
        }
        self.changes += 1;
        Heard::Changed
    }

    fn unreadable(&self, error: &serde_json::Error) -> WatchError {
        let message = format!(
            "the API server {} sent something that is no EndpointSlice of {}: {error}",
            self.server, self.key
        );
        WatchError::new(WatchErrorKind::Unreadable, message)
    }
}

/// Up to a fifth more than the server asked for, because it asks all for the same.
fn nanos(after: Duration, rng: &mut fastrand::Rng) -> Nanos {
    let after = after.mul_f64(1.0 + 0.2 * rng.f64());
    Nanos::try_from(after.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
#[path = "tests/follow.rs"]
mod tests;
