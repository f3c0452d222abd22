//! What a server tells about itself: every event has a name and is counted, and whoever exports,
//! logs or alerts implements [`Observer`]. The counts are there without any set-up, because a limit
//! that nobody sees hit is found out by its victims.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Something that happened in a server. More events may come.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Event {
            $($(#[$doc])* $variant,)*
        }

        impl Event {
            /// All events, in the order of [`ServerStats::counters`].
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The event's name as a counter, in snake case.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

events! {
    /// A connection was accepted and is served.
    ConnectionAccepted => "connections_accepted",
    /// A connection was closed when accepted: there are `max_connections` already.
    ConnectionRefused => "connections_refused",
    /// A connection that was served ended, however it did.
    ConnectionEnded => "connections_ended",
    /// A connection got GOAWAY because it reached `max_connection_age`.
    ConnectionAged => "connections_aged",
    /// A connection got GOAWAY because it had no call for `max_connection_idle`.
    ConnectionIdle => "connections_idle",
    /// A connection was closed with calls running or GOAWAY unanswered: a grace was over.
    ConnectionCut => "connections_cut",
    /// A client did not end its TLS handshake, or not send HTTP/2's preface, within the handshake
    /// timeout.
    HandshakeTimeout => "handshake_timeouts",
    /// A TLS handshake failed: the client speaks no TLS or offers no HTTP/2, or one side did not
    /// accept the other's certificate.
    TlsHandshakeFailed => "tls_handshakes_failed",
    /// A client did not finish a frame or a header block within the handshake timeout (slow-loris).
    FrameStalled => "frames_stalled",
    /// A client did not read for `max_write_stall`, and the socket was full.
    WriteStalled => "writes_stalled",
    /// A client gave a response no flow-control window for `max_response_stall`.
    ResponseStalled => "responses_stalled",
    /// A client asked for a stream.
    StreamRequested => "streams_requested",
    /// No handler saw a stream that a client asked for: it was over the limit of the header list
    /// (answered 431), over the limit of streams, or malformed.
    StreamRefused => "streams_refused",
    /// A call reached the routes.
    StreamOpened => "streams_opened",
    /// A client reset a stream.
    StreamReset => "streams_reset",
    /// A call's `grpc-timeout` passed on the server.
    DeadlineExceeded => "deadlines_exceeded",
    /// A handler panicked; its call was answered INTERNAL.
    HandlerPanicked => "handlers_panicked",
    /// A connection was closed for too many resets (Rapid Reset, CVE-2023-44487).
    AbuseResets => "abuse_resets",
    /// A connection was closed for too many streams that had to be reset by the server: over the
    /// stream limit, or malformed (CVE-2025-8671 among them).
    AbuseErrorResets => "abuse_error_resets",
    /// A connection was closed for a header block of too many CONTINUATION frames (CVE-2024-27316
    /// is one of the names).
    AbuseContinuations => "abuse_continuations",
    /// A connection was closed for a header list that is many times over the limit.
    AbuseHeaderList => "abuse_header_list",
    /// A connection was closed for too many empty or tiny DATA frames.
    AbuseDataFrames => "abuse_data_frames",
    /// A connection was closed for too many PINGs (CVE-2019-9512).
    AbusePings => "abuse_pings",
    /// A connection was closed for too many SETTINGS (CVE-2019-9515).
    AbuseSettings => "abuse_settings",
    /// A connection was closed for too many WINDOW_UPDATEs.
    AbuseWindowUpdates => "abuse_window_updates",
    /// A connection was closed for too many PRIORITY, GOAWAY or unknown frames.
    AbuseOtherFrames => "abuse_other_frames",
    /// A connection was closed for another violation of HTTP/2.
    ProtocolError => "protocol_errors",
}

/// Receives a server's events, on the task where they happen: it must not block.
pub trait Observer: Send + Sync {
    /// Takes note of one event.
    fn record(&self, event: Event);
}

/// The counts of all events since the server was built. Clones read the same counts.
#[derive(Clone)]
pub struct ServerStats {
    counts: Arc<[AtomicU64]>,
}

impl ServerStats {
    fn new() -> Self {
        Self { counts: Event::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// How often this event happened.
    #[must_use]
    pub fn count(&self, event: Event) -> u64 {
        self.counts[event as usize].load(Ordering::Relaxed)
    }

    /// All names and counts, for an exporter.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Event::ALL.iter().map(|event| (event.name(), self.count(*event)))
    }
}

impl fmt::Debug for ServerStats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.counters()).finish()
    }
}

/// Counts events and passes them on; shared by all connections of a server.
#[derive(Clone)]
pub(crate) struct Reporter {
    stats: ServerStats,
    observer: Option<Arc<dyn Observer>>,
}

impl Reporter {
    pub(crate) fn new(observer: Option<Arc<dyn Observer>>) -> Self {
        Self { stats: ServerStats::new(), observer }
    }

    pub(crate) fn stats(&self) -> ServerStats {
        self.stats.clone()
    }

    pub(crate) fn record(&self, event: Event) {
        self.stats.counts[event as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &self.observer {
            observer.record(event);
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Reporter");
        debug.field("stats", &self.stats).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Mutex};

    use super::*;

    #[test]
    fn every_event_has_a_count_and_a_name_of_its_own() {
        let reporter = Reporter::new(None);
        for event in Event::ALL {
            reporter.record(*event);
            assert_eq!(reporter.stats().count(*event), 1, "{event:?}");
        }
        let names: HashSet<_> = reporter.stats().counters().collect();
        assert_eq!(names.len(), Event::ALL.len());
    }

    #[test]
    fn an_observer_sees_what_is_counted() {
        #[derive(Default)]
        struct Seen(Mutex<Vec<Event>>);
        impl Observer for Seen {
            fn record(&self, event: Event) {
                self.0.lock().expect("not poisoned").push(event);
            }
        }
        let seen = Arc::new(Seen::default());
        let reporter = Reporter::new(Some(Arc::clone(&seen) as Arc<dyn Observer>));
        reporter.record(Event::StreamOpened);
        assert_eq!(*seen.0.lock().expect("not poisoned"), [Event::StreamOpened]);
    }
}
