//! What a client says: its report at the end, its events while it runs.
//!
//! Everything that a check judges comes from here, so the report is read strictly: a key that is
//! missing is an error with the key's name, never a zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::costs::Cost;

/// The client's JSON report (services/client/README.md).
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Report {
    pub(crate) started_unix_s: f64,
    pub(crate) wall_s: f64,
    pub(crate) calls: u64,
    pub(crate) ok: u64,
    pub(crate) fail: u64,
    pub(crate) shed: u64,
    pub(crate) rate: f64,
    pub(crate) by_backend: BTreeMap<String, BackendFigures>,
    pub(crate) by_code: BTreeMap<String, u64>,
    pub(crate) latency_ms: Latency,
    pub(crate) streams_open_at_eof: BTreeMap<String, u64>,
    pub(crate) transparent_retries: u64,
    /// With `grpclb` only.
    #[serde(default)]
    pub(crate) attempts: Option<Attempts>,
    /// With tracing on.
    #[serde(default)]
    pub(crate) spans: Option<SpanCounts>,
    pub(crate) failures: Vec<Failure>,
    #[serde(default)]
    pub(crate) failures_omitted: u64,
    /// The length of a slot, when there are any.
    #[serde(default)]
    pub(crate) slot_s: Option<f64>,
    #[serde(default)]
    pub(crate) slots: Vec<Slot>,
    pub(crate) cpu_s: f64,
    pub(crate) rss_max_kib: Option<u64>,
    /// What the processes of its phase cost while it ran, by role; the lab adds it.
    #[serde(skip)]
    pub(crate) costs: BTreeMap<&'static str, Cost>,
}

impl Report {
    /// From `since` to the end of the last call that failed; 0 when none failed after it.
    pub(crate) fn failed_until_s(&self, since: f64) -> f64 {
        let ends = self.failures.iter().map(|failure| failure.end_unix_s - since);
        ends.fold(0.0, f64::max)
    }

    /// Adds what another client counted in the same time. The rest is of one client alone and stays
    /// as it was: latencies, slots, costs, and what balancers and tracing add to a report.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.calls == 0 {
            self.started_unix_s = other.started_unix_s;
        }
        self.wall_s = self.wall_s.max(other.wall_s);
        self.calls += other.calls;
        self.ok += other.ok;
        self.fail += other.fail;
        self.shed += other.shed;
        self.rate += other.rate;
        self.cpu_s += other.cpu_s;
        self.transparent_retries += other.transparent_retries;
        self.failures.extend_from_slice(&other.failures);
        self.failures_omitted += other.failures_omitted;
        for (code, count) in &other.by_code {
            *self.by_code.entry(code.clone()).or_default() += count;
        }
        for (backend, figures) in &other.by_backend {
            self.by_backend.entry(backend.clone()).or_default().calls += figures.calls;
        }
        for figures in self.by_backend.values_mut() {
            figures.share = figures.calls as f64 / self.ok.max(1) as f64;
        }
    }
}

/// What the balancer's sums have to be.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Attempts {
    pub(crate) started: u64,
    pub(crate) finished: u64,
    pub(crate) failed_to_send: u64,
    pub(crate) known_received: u64,
    pub(crate) drops: BTreeMap<String, u64>,
}

/// What became of its spans.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct SpanCounts {
    pub(crate) ended: u64,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
}

/// What one backend answered; latencies are from the intended start.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct BackendFigures {
    pub(crate) calls: u64,
    pub(crate) share: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
    pub(crate) last_unix_s: f64,
}

/// Latency of the calls that were answered, from their intended start; `None` without any.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Latency {
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) mean: Option<f64>,
}

/// One call that failed.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Failure {
    pub(crate) start_unix_s: f64,
    pub(crate) end_unix_s: f64,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Answers within one slot of time that starts at `unix_s`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Slot {
    pub(crate) unix_s: f64,
    pub(crate) by_backend: BTreeMap<String, u64>,
    #[serde(default)]
    pub(crate) fail: u64,
}

/// One line of `client --events`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) unix_s: f64,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// The events that the lab looks at.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum What {
    ResolverUpdate {
        addresses: Vec<String>,
    },
    Subchannel {
        address: String,
        state: String,
    },
    Draining {
        address: String,
    },
    Disconnected {
        address: String,
        reason: String,
    },
    FirstCall {
        backend: String,
    },
    /// One of these happened.
    Balancer {
        connected: Option<String>,
        lost: Option<String>,
        list: Option<List>,
        fallback: Option<String>,
    },
    /// What `--live` asks for.
    Answered(Answered),
    #[serde(other)]
    Other,
}

/// What the client has got so far; its latencies are those since it was told before.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(crate) struct Answered {
    pub(crate) by_backend: BTreeMap<String, u64>,
    pub(crate) fail: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// A balancer's list.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) servers: usize,
    pub(crate) drops: usize,
}

/// Whether each of `addresses` has become READY in `events`.
pub(crate) fn all_ready(events: &[Event], addresses: &[String]) -> bool {
    addresses.iter().all(|address| first(events, 0.0, |what| is_ready(what, address)).is_some())
}

/// Whether `what` says that the subchannel of `address` is READY.
pub(crate) fn is_ready(what: &What, address: &str) -> bool {
    matches!(what, What::Subchannel { address: at, state } if at == address && state == "READY")
}

/// When the first event at or after `since` that `wanted` accepts happened.
pub(crate) fn first(events: &[Event], since: f64, wanted: impl Fn(&What) -> bool) -> Option<f64> {
    events
        .iter()
        .find(|event| event.unix_s >= since && wanted(&event.what))
        .map(|event| event.unix_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_events_and_ignores_those_it_does_not_know() {
        let lines = [
            r#"{"unix_s":1.5,"event":"resolver_update","addresses":["127.0.0.2:8000"]}"#,
            r#"{"unix_s":2.5,"event":"subchannel","address":"127.0.0.2:8000","state":"READY"}"#,
            r#"{"unix_s":3.5,"event":"first_call","backend":"127.0.0.2"}"#,
            r#"{"unix_s":3.6,"event":"disconnected","address":"127.0.0.2:8000","reason":"EOF",
               "streams_open":4}"#,
            r#"{"unix_s":4.5,"event":"some_future_event","colour":"green"}"#,
        ];
        let events: Vec<Event> =
            lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert!(all_ready(&events, &["127.0.0.2:8000".to_owned()]));
        assert!(!all_ready(&events, &["127.0.0.3:8000".to_owned()]));
        assert_eq!(first(&events, 0.0, |what| matches!(what, What::FirstCall { .. })), Some(3.5));
        assert_eq!(first(&events, 3.6, |what| matches!(what, What::FirstCall { .. })), None);
        assert_eq!(events[4].what, What::Other);
    }

    #[test]
    fn a_report_without_its_counters_is_an_error_that_names_the_key() {
        let error = serde_json::from_str::<Report>(r#"{"calls": 3}"#).expect_err("incomplete");
        assert!(error.to_string().contains("missing field"), "{error}");
    }
}
