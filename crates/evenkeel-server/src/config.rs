//! Settings and their limits. One builder holds them all, and `build` refuses what can't be meant,
//! so that a bad setting is seen at start and not at the first connection.

use std::{sync::Arc, time::Duration};

use tonic::service::Routes;

use crate::{
    counted::{CallMeter, Meter},
    health::Health,
    layer::{CallLayer, Layer},
    observe::{Observer, Reporter},
    orca::{Orca, OutOfBand},
    secure::Secure,
    server::{Endless, Server},
    view::ServerView,
};

/// Connections live for the configured age ± this fraction.
pub const AGE_JITTER: f64 = 0.1;
/// The shortest connection age; below it a server would do little but handshakes.
pub const MIN_CONNECTION_AGE: Duration = Duration::from_millis(10);
/// The longest duration that any setting accepts.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a server goes on accepting after its health says NOT_SERVING: the time that endpoints
/// need to leave the clients' lists.
pub const DEFAULT_DRAIN_DELAY: Duration = Duration::from_secs(5);
/// How long running calls may go on after GOAWAY. With the delay it stays below the 30 s that
/// Kubernetes gives a pod.
pub const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(20);
/// How long a new connection may take for TLS and HTTP/2's preface together, and later for one
/// frame or header block; gRPC's servers wait 120 s for the preface and for ever for a frame.
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections at once; one more is accepted and closed, so that its client tries another backend
/// instead of waiting in a queue that nobody sees.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
/// Streams at once on one connection; a client that needs more opens another connection or waits.
pub const DEFAULT_MAX_CONCURRENT_STREAMS: u32 = 1_000;
/// Streams of one connection that the client reset before the server took them up, which is soon
/// ([`TURN_FRAMES_MAX`]); at more the connection is closed with ENHANCE_YOUR_CALM (Rapid Reset,
/// CVE-2023-44487). h2's own 20 is too
/// few for a client whose deadlines pass while the server was stopped for a moment.
pub const DEFAULT_MAX_PENDING_RESETS: usize = 1_000;
/// Resets that a client may send in one second beyond the calls that were answered; at more the
/// connection is closed with ENHANCE_YOUR_CALM. Twice what one client can have open at once, so
/// that deadlines which pass together are no attack.
pub const DEFAULT_MAX_RESETS_PER_SECOND: u32 = 2_000;
/// PINGs that a client may send in one second while the server sends it nothing; at more the
/// connection is closed with ENHANCE_YOUR_CALM and `too_many_pings`.
pub const DEFAULT_MAX_PINGS_PER_SECOND: u32 = 100;
/// Streams of one connection that the server had to reset, because they were malformed or over the
/// stream limit; at more the connection is closed with ENHANCE_YOUR_CALM (CVE-2025-8671).
pub const ERROR_RESETS_MAX: usize = 1_024;
/// SETTINGS that a client may send in one second; clients send one, and few more in their life.
pub const SETTINGS_PER_SECOND_MAX: u32 = 100;
/// WINDOW_UPDATEs that a client may send in one second beyond ten for each call and each DATA frame
/// it receives.
pub const WINDOW_UPDATES_PER_SECOND_MAX: u32 = 10_000;
/// PRIORITY, GOAWAY and unknown frames that a client may send in one second.
pub const OTHER_FRAMES_PER_SECOND_MAX: u32 = 1_000;
/// Frames that one connection may bring in before others have their turn; each may be a call.
pub const TURN_FRAMES_MAX: usize = 32;
/// Bytes that one connection may bring in before others have their turn.
pub const TURN_BYTES_MAX: usize = 256 * 1024;
/// How long a connection may be without calls before it gets GOAWAY: clients that are gone for good
/// must not fill the server up to its limit of connections.
pub const DEFAULT_MAX_CONNECTION_IDLE: Duration = Duration::from_secs(30 * 60);
/// How long a client may leave a full socket unread.
pub const DEFAULT_MAX_WRITE_STALL: Duration = Duration::from_secs(60);
/// How long a client may keep a response waiting for flow-control window; Envoy's, too.
pub const DEFAULT_MAX_RESPONSE_STALL: Duration = Duration::from_secs(5 * 60);
/// Bytes of a response that are handed to HTTP/2 at once. A client takes up the whole of what is
/// handed with a window of one byte, and what is handed is out of reach of the stream's own limit.
pub const RESPONSE_PIECE_BYTES_MAX: usize = 32 * 1024;
/// Bytes of one request's header list, as HTTP/2 counts them; gRPC's hard limit.
pub const DEFAULT_MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
/// Idle time before the kernel probes whether the client's host is still there.
pub const DEFAULT_TCP_KEEPALIVE: Duration = Duration::from_secs(120);
/// Time between unanswered keepalive probes.
pub const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered keepalive probes after which the kernel gives the connection up.
pub const TCP_KEEPALIVE_RETRIES: u32 = 3;
/// Flow-control window of one stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Flow-control window of one connection, in bytes; four stalled streams fill it.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// What a [`Builder`] refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting lies outside its range.
    #[error("{setting}: expected {expected}, got {got}")]
    OutOfRange {
        /// The builder's method.
        setting: &'static str,
        /// The allowed range.
        expected: String,
        /// The value that came.
        got: String,
    },
    /// A descriptor set for reflection can't be read.
    #[error("reflection: expected an encoded FileDescriptorSet with all its imports: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// TLS can't be used as it was asked for.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Collects a server's settings; made by [`Server::builder`].
#[derive(Clone)]
pub struct Builder {
    pub(crate) settings: Settings,
    health: Option<Vec<String>>,
    reflection: Vec<&'static [u8]>,
    observer: Option<Arc<dyn Observer>>,
    view: ServerView,
    /// Set by the feature `tls`.
    pub(crate) secure: Option<Arc<dyn Secure>>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("Builder");
        debug.field("settings", &self.settings).field("health", &self.health);
        debug.finish_non_exhaustive()
    }
}

/// The checked settings that connections run with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) age: Option<Duration>,
    pub(crate) age_grace: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_grace: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) max_pending_resets: usize,
    pub(crate) max_resets_per_second: u32,
    pub(crate) max_pings_per_second: u32,
    pub(crate) max_write_stall: Duration,
    pub(crate) max_response_stall: Duration,
    pub(crate) max_header_list_bytes: u32,
    pub(crate) tcp_keepalive: Duration,
    pub(crate) seed: Option<u64>,
    pub(crate) orca: Option<Orca>,
    pub(crate) layer: Option<Layer>,
    pub(crate) meter: Option<Meter>,
}

impl Default for Builder {
    fn default() -> Self {
        let settings = Settings {
            age: None,
            age_grace: None,
            idle: Some(DEFAULT_MAX_CONNECTION_IDLE),
            drain_delay: DEFAULT_DRAIN_DELAY,
            drain_grace: DEFAULT_DRAIN_GRACE,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_concurrent_streams: DEFAULT_MAX_CONCURRENT_STREAMS,
            max_pending_resets: DEFAULT_MAX_PENDING_RESETS,
            max_resets_per_second: DEFAULT_MAX_RESETS_PER_SECOND,
            max_pings_per_second: DEFAULT_MAX_PINGS_PER_SECOND,
            max_write_stall: DEFAULT_MAX_WRITE_STALL,
            max_response_stall: DEFAULT_MAX_RESPONSE_STALL,
            max_header_list_bytes: DEFAULT_MAX_HEADER_LIST_BYTES,
            tcp_keepalive: DEFAULT_TCP_KEEPALIVE,
            seed: None,
            orca: None,
            layer: None,
            meter: None,
        };
        let view = ServerView::default();
        let (reflection, secure) = (Vec::new(), None);
        Self { settings, health: None, reflection, observer: None, view, secure }
    }
}

impl Builder {
    /// Sends GOAWAY to a connection at this age ± 10 %, so that clients look for new backends.
    /// Without it connections have no age. At least [`MIN_CONNECTION_AGE`].
    #[must_use]
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.settings.age = Some(age);
        self
    }

    /// Closes a connection this long after its age's GOAWAY, whatever still runs on it. Without it
    /// running calls have all the time they take, as in gRPC.
    #[must_use]
    pub fn max_connection_age_grace(mut self, grace: Duration) -> Self {
        self.settings.age_grace = Some(grace);
        self
    }

    /// Sends GOAWAY to a connection that had no call for so long ([`DEFAULT_MAX_CONNECTION_IDLE`]);
    /// `None` lets idle connections live. At least [`MIN_CONNECTION_AGE`].
    #[must_use]
    pub fn max_connection_idle(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.settings.idle = idle.into();
        self
    }

    /// How long to go on accepting after the health is NOT_SERVING ([`DEFAULT_DRAIN_DELAY`]).
    #[must_use]
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.settings.drain_delay = delay;
        self
    }

    /// How long running calls may go on after a drain's GOAWAY ([`DEFAULT_DRAIN_GRACE`]).
    #[must_use]
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.settings.drain_grace = grace;
        self
    }

    /// How long a client may take for TLS and HTTP/2's preface, and later for one frame or header
    /// block ([`DEFAULT_HANDSHAKE_TIMEOUT`]).
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handshake_timeout = timeout;
        self
    }

    /// Connections at once ([`DEFAULT_MAX_CONNECTIONS`]); further ones are closed when accepted.
    #[must_use]
    pub fn max_connections(mut self, max: usize) -> Self {
        self.settings.max_connections = max;
        self
    }

    /// Streams at once on one connection ([`DEFAULT_MAX_CONCURRENT_STREAMS`]).
    #[must_use]
    pub fn max_concurrent_streams(mut self, max: u32) -> Self {
        self.settings.max_concurrent_streams = max;
        self
    }

    /// Streams reset by the client before they were taken up ([`DEFAULT_MAX_PENDING_RESETS`]).
    #[must_use]
    pub fn max_pending_resets(mut self, max: usize) -> Self {
        self.settings.max_pending_resets = max;
        self
    }

    /// Resets in one second beyond answered calls ([`DEFAULT_MAX_RESETS_PER_SECOND`]).
    #[must_use]
    pub fn max_resets_per_second(mut self, max: u32) -> Self {
        self.settings.max_resets_per_second = max;
        self
    }

    /// PINGs in one second while the server sends nothing else
    /// ([`DEFAULT_MAX_PINGS_PER_SECOND`]).
    #[must_use]
    pub fn max_pings_per_second(mut self, max: u32) -> Self {
        self.settings.max_pings_per_second = max;
        self
    }

    /// How long a client may leave a full socket unread ([`DEFAULT_MAX_WRITE_STALL`]); then its
    /// connection is closed.
    #[must_use]
    pub fn max_write_stall(mut self, stall: Duration) -> Self {
        self.settings.max_write_stall = stall;
        self
    }

    /// How long a client may keep a response waiting for window ([`DEFAULT_MAX_RESPONSE_STALL`]);
    /// then the stream is reset. A call's deadline ends it earlier. When only the last
    /// [`RESPONSE_PIECE_BYTES_MAX`] of its responses wait and none of them ends for so long, the
    /// connection is closed.
    #[must_use]
    pub fn max_response_stall(mut self, stall: Duration) -> Self {
        self.settings.max_response_stall = stall;
        self
    }

    /// Bytes of one request's header list ([`DEFAULT_MAX_HEADER_LIST_BYTES`]).
    #[must_use]
    pub fn max_header_list_bytes(mut self, max: u32) -> Self {
        self.settings.max_header_list_bytes = max;
        self
    }

    /// Idle time before TCP keepalive probes ([`DEFAULT_TCP_KEEPALIVE`]); at least 1 s.
    #[must_use]
    pub fn tcp_keepalive(mut self, idle: Duration) -> Self {
        self.settings.tcp_keepalive = idle;
        self
    }

    /// Seeds the age's jitter, so that a run can be repeated. Without it the seed is random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Serves `grpc.health.v1.Health`: SERVING for the server as a whole (the empty name) and for
    /// each named service, NOT_SERVING as soon as a drain starts.
    #[must_use]
    pub fn health<S: Into<String>>(mut self, services: impl IntoIterator<Item = S>) -> Self {
        self.health = Some(services.into_iter().map(Into::into).collect());
        self
    }

    /// Serves `grpc.reflection.v1` (and `v1alpha`, which older tools ask for) from encoded
    /// `FileDescriptorSet`s; with [`Builder::health`], the health service is among them.
    #[must_use]
    pub fn reflection(mut self, sets: impl IntoIterator<Item = &'static [u8]>) -> Self {
        self.reflection.extend(sets);
        self
    }

    /// Reports the server's load to clients and balancers (ORCA, gRFC A51); see [`crate::orca`].
    #[must_use]
    pub fn orca(mut self, orca: Orca) -> Self {
        self.settings.orca = Some(orca);
        self
    }

    /// Runs this around each call, from its headers to the end of its response.
    #[must_use]
    pub fn call_layer(mut self, layer: impl CallLayer) -> Self {
        self.settings.layer = Some(Layer(Arc::new(layer)));
        self
    }

    /// Counts each call by this. It takes the place of another one.
    #[must_use]
    pub fn call_meter(mut self, meter: Arc<dyn CallMeter>) -> Self {
        self.settings.meter = Some(Meter(meter));
        self
    }

    /// Passes every [`crate::Event`] on, beside counting it in [`Server::stats`].
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Shows the server in this view. It is made first, so that a service that shows it can be one
    /// of the server's own routes.
    #[must_use]
    pub fn view(mut self, view: &ServerView) -> Self {
        self.view = view.clone();
        self
    }

    /// Checks the settings and makes a server of `routes`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the setting, what it allows and what came.
    pub fn build(self, mut routes: Routes) -> Result<Server, ConfigError> {
        self.settings.check()?;
        let health = self.health.map(|services| {
            let (health, service) = Health::new(services);
            routes = std::mem::take(&mut routes).add_service(service);
            health
        });
        if !self.reflection.is_empty() {
            let mut sets = self.reflection;
            sets.extend(health.is_some().then_some(tonic_health::pb::FILE_DESCRIPTOR_SET));
            routes = routes.add_service(reflection(&sets).build_v1()?);
            routes = routes.add_service(reflection(&sets).build_v1alpha()?);
        }
        let reporting = self.settings.orca.as_ref().and_then(|orca| {
            let (service, reporting) = OutOfBand::new(&orca.metrics, orca.min_interval?);
            routes = std::mem::take(&mut routes).add_service(service);
            Some(reporting)
        });
        let reporter = Reporter::new(self.observer);
        let endless = Endless { health, reporting };
        let (view, secure) = (self.view, self.secure);
        Ok(Server::new(self.settings, routes.prepare(), endless, reporter, view, secure))
    }
}

fn reflection(sets: &[&'static [u8]]) -> tonic_reflection::server::Builder<'static> {
    sets.iter().fold(tonic_reflection::server::Builder::configure(), |builder, set| {
        builder.register_encoded_file_descriptor_set(set)
    })
}

impl Settings {
    fn check(&self) -> Result<(), ConfigError> {
        let ms = Duration::from_millis(1);
        let age = self.age.unwrap_or(DURATION_MAX);
        duration("max_connection_age", age, MIN_CONNECTION_AGE)?;
        duration("max_connection_age_grace", self.age_grace.unwrap_or_default(), Duration::ZERO)?;
        let idle = self.idle.unwrap_or(DURATION_MAX);
        duration("max_connection_idle", idle, MIN_CONNECTION_AGE)?;
        duration("max_write_stall", self.max_write_stall, ms)?;
        duration("max_response_stall", self.max_response_stall, ms)?;
        duration("drain_delay", self.drain_delay, Duration::ZERO)?;
        duration("drain_grace", self.drain_grace, Duration::ZERO)?;
        duration("handshake_timeout", self.handshake_timeout, ms)?;
        duration("tcp_keepalive", self.tcp_keepalive, Duration::from_secs(1))?;
        let orca = self.orca.as_ref().and_then(|orca| orca.min_interval);
        duration("orca.min_report_interval", orca.unwrap_or(DURATION_MAX), ms)?;
        at_least("max_connections", self.max_connections as u64, 1)?;
        at_least("max_concurrent_streams", self.max_concurrent_streams.into(), 1)?;
        at_least("max_pending_resets", self.max_pending_resets as u64, 1)?;
        at_least("max_resets_per_second", self.max_resets_per_second.into(), 1)?;
        at_least("max_pings_per_second", self.max_pings_per_second.into(), 1)?;
        at_least("max_header_list_bytes", self.max_header_list_bytes.into(), 1024)
    }
}

fn duration(setting: &'static str, value: Duration, min: Duration) -> Result<(), ConfigError> {
    if (min..=DURATION_MAX).contains(&value) {
        return Ok(());
    }
    let expected = format!("{min:?} to {} days", DURATION_MAX.as_secs() / (24 * 3600));
    Err(ConfigError::OutOfRange { setting, expected, got: format!("{value:?}") })
}

fn at_least(setting: &'static str, value: u64, min: u64) -> Result<(), ConfigError> {
    if value >= min {
        return Ok(());
    }
    let expected = format!("at least {min}");
    Err(ConfigError::OutOfRange { setting, expected, got: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orca::ServerMetrics;

    #[test]
    fn settings_outside_their_range_are_refused_with_range_and_value() {
        let no_interval = Orca::new(&ServerMetrics::new()).min_report_interval(Duration::ZERO);
        let cases = [
            (Server::builder().max_connection_age(Duration::from_millis(5)), "got 5ms"),
            (Server::builder().max_connection_age(Duration::MAX), "10ms to 365 days"),
            (Server::builder().max_connection_age_grace(Duration::MAX), "max_connection_age_grace"),
            (Server::builder().max_connection_idle(Duration::ZERO), "max_connection_idle"),
            (Server::builder().max_write_stall(Duration::ZERO), "max_write_stall"),
            (Server::builder().max_response_stall(Duration::ZERO), "max_response_stall"),
            (Server::builder().max_resets_per_second(0), "max_resets_per_second"),
            (Server::builder().max_pings_per_second(0), "max_pings_per_second"),
            (Server::builder().drain_delay(Duration::MAX), "drain_delay"),
            (Server::builder().drain_grace(Duration::MAX), "drain_grace"),
            (Server::builder().handshake_timeout(Duration::ZERO), "handshake_timeout"),
            (Server::builder().tcp_keepalive(Duration::ZERO), "tcp_keepalive"),
            (Server::builder().orca(no_interval), "orca.min_report_interval: expected 1ms"),
            (Server::builder().max_connections(0), "max_connections: expected at least 1, got 0"),
            (Server::builder().max_concurrent_streams(0), "max_concurrent_streams"),
            (Server::builder().max_pending_resets(0), "max_pending_resets"),
            (Server::builder().max_header_list_bytes(10), "expected at least 1024, got 10"),
            (Server::builder().reflection([&b"\xff"[..]]), "FileDescriptorSet"),
        ];
        for (builder, expected) in cases {
            let error = builder.build(Routes::default()).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
        }
    }

    #[test]
    fn the_defaults_are_accepted() {
        assert!(Server::builder().build(Routes::default()).is_ok());
    }
}
