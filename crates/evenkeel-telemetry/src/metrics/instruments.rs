//! The metrics that channels and servers have: gRPC's names, units and buckets, and ours beside
//! them. One table, which README.md, the dashboard and the alerts are compared with.

use super::cells::Bounds;

/// How the values of a metric behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down, and its sum over labels says something.
    UpDownCounter,
    /// It goes up and down.
    Gauge,
    /// How many values were in which range.
    Histogram,
}

/// One metric, as OpenTelemetry describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instrument {
    /// Its name; on a page for Prometheus see [`Instrument::prometheus_name`].
    pub name: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// Its unit, as UCUM writes it; in braces what is counted.
    pub unit: &'static str,
    /// What it says.
    pub description: &'static str,
}

impl Instrument {
    /// The name on a page for Prometheus: with the unit, and `_total` for what only grows.
    #[must_use]
    pub fn prometheus_name(&self) -> String {
        super::prometheus::name(self.name, self.kind, self.unit)
    }
}

macro_rules! instruments {
    ($($constant:ident: $kind:ident $name:literal $unit:literal $description:literal,)*) => {
        $(
            pub(super) const $constant: Instrument = Instrument {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                description: $description,
            };
        )*

        /// All metrics, in the order of a page.
        pub const INSTRUMENTS: &[Instrument] = &[$($constant,)*];
    };
}

instruments! {
    ATTEMPT_STARTED: Counter "grpc.client.attempt.started" "{attempt}"
        "Attempts that began, those that have not ended included.",
    ATTEMPT_DURATION: Histogram "grpc.client.attempt.duration" "s"
        "Time from an attempt's beginning to its end, with the time that it took to pick.",
    ATTEMPT_SENT: Histogram "grpc.client.attempt.sent_total_compressed_message_size" "By"
        "Bytes of an attempt's request messages, compressed, without framing.",
    ATTEMPT_RECEIVED: Histogram "grpc.client.attempt.rcvd_total_compressed_message_size" "By"
        "Bytes of an attempt's response messages, compressed, without framing.",
    CALL_DURATION: Histogram "grpc.client.call.duration" "s"
        "Time from a call's beginning to its end, as its caller sees it.",
    CALL_RETRIES: Histogram "grpc.client.call.retries" "{retry}"
        "Attempts of a call by the retry policy; calls without one are not counted.",
    CALL_TRANSPARENT_RETRIES: Histogram "grpc.client.call.transparent_retries" "{transparent_retry}"
        "Attempts of a call because no server had processed the one before; calls without one are \
         not counted.",
    CALL_RETRY_DELAY: Histogram "grpc.client.call.retry_delay" "s"
        "Time of a call in which no attempt was under way; calls without a retry are not counted.",
    SERVER_STARTED: Counter "grpc.server.call.started" "{call}"
        "Calls that began, those that have not ended included.",
    SERVER_SENT: Histogram "grpc.server.call.sent_total_compressed_message_size" "By"
        "Bytes of a call's response messages, compressed, without framing.",
    SERVER_RECEIVED: Histogram "grpc.server.call.rcvd_total_compressed_message_size" "By"
        "Bytes of a call's request messages, compressed, without framing.",
    SERVER_DURATION: Histogram "grpc.server.call.duration" "s"
        "Time from a call's headers to its trailers.",
    DISCONNECTIONS: Counter "grpc.subchannel.disconnections" "{disconnection}"
        "Connections that ended, however they did.",
    CONNECTS_SUCCEEDED: Counter "grpc.subchannel.connection_attempts_succeeded" "{attempt}"
        "Attempts to connect that made a READY subchannel.",
    CONNECTS_FAILED: Counter "grpc.subchannel.connection_attempts_failed" "{attempt}"
        "Attempts to connect that failed.",
    CONNECTIONS: UpDownCounter "grpc.subchannel.open_connections" "{connection}"
        "Connections that are open.",
    PICK_FIRST_DISCONNECTIONS: Counter "grpc.lb.pick_first.disconnections" "{disconnection}"
        "The older name of grpc.subchannel.disconnections.",
    PICK_FIRST_SUCCEEDED: Counter "grpc.lb.pick_first.connection_attempts_succeeded" "{attempt}"
        "The older name of grpc.subchannel.connection_attempts_succeeded.",
    PICK_FIRST_FAILED: Counter "grpc.lb.pick_first.connection_attempts_failed" "{attempt}"
        "The older name of grpc.subchannel.connection_attempts_failed.",
    RESOLVER_UPDATES: Counter "evenkeel.resolver.updates" "{update}"
        "Answers of a channel's resolver that were taken.",
    RESOLVER_ERRORS: Counter "evenkeel.resolver.errors" "{error}"
        "Times that a channel's resolver reported that it has no answer.",
    RESOLVER_ENDPOINTS: UpDownCounter "evenkeel.resolver.endpoints" "{endpoint}"
        "Endpoints in the last answer of the resolver.",
    RESOLVER_FAILING: UpDownCounter "evenkeel.resolver.failing" "{channel}"
        "Channels whose resolver can't renew its answer; the last one stays in use.",
    RETRIES_THROTTLED: Counter "evenkeel.client.retries_throttled" "{attempt}"
        "Retries that the retry throttle kept back.",
    DROPS: Counter "evenkeel.client.drops" "{call}"
        "Calls that the policy or its balancer dropped.",
    BALANCER_CONNECTED: UpDownCounter "evenkeel.grpclb.connected" "{channel}"
        "Channels whose balancer answers.",
    BALANCER_LOST: Counter "evenkeel.grpclb.lost" "{stream}"
        "Streams to a balancer that ended, and rounds in which no balancer answered.",
    BALANCER_LISTS: Counter "evenkeel.grpclb.lists" "{list}"
        "Lists of a balancer that differed from the one before.",
    BALANCER_FALLBACK: UpDownCounter "evenkeel.grpclb.fallback" "{channel}"
        "Channels that use the resolver's endpoints instead of their balancer's.",
    SERVER_EVENTS: Counter "evenkeel.server.events" "{event}"
        "Events of a gRPC server, limits that were hit among them.",
    SPANS: Counter "evenkeel.telemetry.spans" "{span}"
        "Spans that ended, by what became of them.",
}

/// A66's buckets for times.
pub(super) const LATENCY: Bounds = Bounds {
    per_unit: 1e9,
    values: &[
        0,
        10_000,
        50_000,
        100_000,
        300_000,
        600_000,
        800_000,
        1_000_000,
        2_000_000,
        3_000_000,
        4_000_000,
        5_000_000,
        6_000_000,
        8_000_000,
        10_000_000,
        13_000_000,
        16_000_000,
        20_000_000,
        25_000_000,
        30_000_000,
        40_000_000,
        50_000_000,
        65_000_000,
        80_000_000,
        100_000_000,
        130_000_000,
        160_000_000,
        200_000_000,
        250_000_000,
        300_000_000,
        400_000_000,
        500_000_000,
        650_000_000,
        800_000_000,
        1_000_000_000,
        2_000_000_000,
        5_000_000_000,
        10_000_000_000,
        20_000_000_000,
        50_000_000_000,
        100_000_000_000,
    ],
};

/// A66's buckets for sizes.
pub(super) const SIZE: Bounds = Bounds {
    per_unit: 1.0,
    values: &[
        0,
        1 << 10,
        1 << 11,
        1 << 12,
        1 << 14,
        1 << 16,
        1 << 18,
        1 << 20,
        1 << 22,
        1 << 24,
        1 << 26,
        1 << 28,
        1 << 30,
        1 << 32,
    ],
};

/// A96's buckets for retries.
pub(super) const RETRIES: Bounds = Bounds { per_unit: 1.0, values: &[1, 2, 3, 4, 5] };

/// A96's buckets for transparent retries.
pub(super) const TRANSPARENT: Bounds = Bounds { per_unit: 1.0, values: &[1, 2, 3, 4, 5, 10] };
