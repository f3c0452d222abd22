//! The report of a run: one structure, from which the JSON object and the table are both made, so
//! that they can't disagree. `_s` is seconds, `_ms` milliseconds, `unix_s` seconds since 1970.

use std::collections::BTreeMap;

use evenkeel_telemetry::SpanCounts;
use serde::Serialize;

use crate::{
    attempts::AttemptsReport,
    cost::rss_max_kib,
    events::EventLog,
    histogram::Histogram,
    load::Outcome,
    tally::{Epoch, Failure, Tally},
};

/// Everything that a run found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The channel's target.
    pub target: String,
    /// The load balancing policy.
    pub policy: String,
    /// When the first call was due.
    pub started_unix_s: f64,
    /// From there to the last result.
    pub wall_s: f64,
    /// Calls that ended or were given up: `ok` + `fail`.
    pub calls: u64,
    /// Calls with an answer.
    pub ok: u64,
    /// Calls that failed.
    pub fail: u64,
    /// Starts that the limit in flight did not let through; they are no calls.
    pub shed: u64,
    /// Calls per second over `wall_s`.
    pub rate: f64,
    /// Answers of each backend.
    pub by_backend: BTreeMap<String, BackendReport>,
    /// Failed calls by code.
    pub by_code: BTreeMap<&'static str, u64>,
    /// Latency of calls with an answer.
    pub latency_ms: Latency,
    /// Most answers in a row from one backend, by completion.
    pub longest_run: u64,
    /// Calls open on connections when they ended, summed per address.
    pub streams_open_at_eof: BTreeMap<String, u64>,
    /// Attempts sent again because no server had processed them.
    pub transparent_retries: u64,
    /// With `grpclb`: what the balancer's reports have to add up to while its list is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<AttemptsReport>,
    /// With tracing on: what became of the spans, one for each call and one for each attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans: Option<SpansReport>,
    /// The first 10,000 failures.
    pub failures: Vec<FailureReport>,
    /// Failures beyond those.
    pub failures_omitted: u64,
    /// Length of a slot in seconds, when slots are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_s: Option<f64>,
    /// Counts per slot, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<Vec<SlotReport>>,
    /// Calls that completed after the last slot that is kept.
    #[serde(skip_serializing_if = "is_zero")]
    pub slots_omitted: u64,
    /// When the first answer came; null if none did.
    pub first_ok_unix_s: Option<f64>,
    /// User and system time of this process during the run.
    pub cpu_s: f64,
    /// The largest resident set of this process, in KiB; null where the kernel does not tell.
    pub rss_max_kib: Option<u64>,
}

/// What became of the spans of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SpansReport {
    /// Those that ended.
    pub ended: u64,
    /// Those that a collector has taken.
    pub sent: u64,
    /// Those that were dropped.
    pub dropped: u64,
}

impl From<SpanCounts> for SpansReport {
    fn from(counts: SpanCounts) -> Self {
        let SpanCounts { ended, sent, dropped, .. } = counts;
        Self { ended, sent, dropped }
    }
}

/// The answers of one backend.
#[derive(Clone, Debug, Serialize)]
pub struct BackendReport {
    /// How many.
    pub calls: u64,
    /// Their part of all answers, 0 to 1.
    pub share: f64,
    /// Median latency.
    pub p50_ms: Option<f64>,
    /// 99th percentile of the latency.
    pub p99_ms: Option<f64>,
    /// Longest latency.
    pub max_ms: Option<f64>,
    /// When the first came.
    pub first_unix_s: f64,
    /// When the last came.
    pub last_unix_s: f64,
}

/// Latency of many calls in milliseconds; null without any.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
    /// The mean.
    pub mean: Option<f64>,
}

/// One failed call.
#[derive(Clone, Debug, Serialize)]
pub struct FailureReport {
    /// Its intended start.
    pub start_unix_s: f64,
    /// When it failed.
    pub end_unix_s: f64,
    /// The status code's name.
    pub code: &'static str,
    /// The status message.
    pub message: String,
}

/// What completed in one slot.
#[derive(Clone, Debug, Serialize)]
pub struct SlotReport {
    /// When the slot begins.
    pub unix_s: f64,
    /// Answers of each backend.
    pub by_backend: BTreeMap<String, u64>,
    /// Failed calls.
    pub fail: u64,
}

impl Report {
    /// Puts the report together.
    pub fn new(
        target: &str,
        policy: &str,
        tally: Tally,
        outcome: &Outcome,
        events: &EventLog,
        cpu_s: f64,
    ) -> Self {
        let epoch = tally.epoch;
        let wall_s = outcome.wall.as_secs_f64();
        Self {
            target: target.into(),
            policy: policy.into(),
            started_unix_s: round6(epoch.unix_s(epoch.begin)),
            wall_s: round3(wall_s),
            calls: tally.calls(),
            ok: tally.ok(),
            fail: tally.fail,
            shed: outcome.shed,
            rate: per_second(tally.calls(), wall_s),
            by_backend: backends(&tally),
            latency_ms: Latency::of(&tally.latency),
            longest_run: tally.longest_run,
            streams_open_at_eof: events.streams_open_at_eof(),
            transparent_retries: events.transparent_retries(),
            attempts: None,
            slot_s: tally.slot_len().map(|len| len.as_secs_f64()),
            spans: None,
            slots: tally.slot_len().map(|_| slots(&tally)),
            slots_omitted: tally.slots_omitted,
            first_ok_unix_s: tally.ok_first.map(|at| round6(epoch.unix_s(at))),
            failures_omitted: tally.failures_omitted,
            failures: failures(&epoch, tally.failures),
            by_code: tally.by_code,
            cpu_s: round3(cpu_s),
            rss_max_kib: rss_max_kib(),
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram) -> Self {
        Self {
            p50: histogram.quantile_ms(0.5).map(round3),
            p90: histogram.quantile_ms(0.9).map(round3),
            p99: histogram.quantile_ms(0.99).map(round3),
            max: histogram.max_ms().map(round3),
            mean: histogram.mean_ms().map(round3),
        }
    }
}

/// Rounds to three decimals, as reports print times: a microsecond of a millisecond.
pub fn round3(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// `n` per second over `wall_s`, rounded; 0 for a run of no length.
pub fn per_second(n: u64, wall_s: f64) -> f64 {
    if wall_s > 0.0 { round3(n as f64 / wall_s) } else { 0.0 }
}

fn round6(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn backends(tally: &Tally) -> BTreeMap<String, BackendReport> {
    let unix_s = |at| round6(tally.epoch.unix_s(at));
    let report = |(name, backend): (&String, &crate::tally::Backend)| {
        let calls = backend.latency.count();
        let report = BackendReport {
            calls,
            share: round6(calls as f64 / tally.ok() as f64),
            p50_ms: backend.latency.quantile_ms(0.5).map(round3),
            p99_ms: backend.latency.quantile_ms(0.99).map(round3),
            max_ms: backend.latency.max_ms().map(round3),
            first_unix_s: unix_s(backend.first),
            last_unix_s: unix_s(backend.last),
        };
        (name.clone(), report)
    };
    tally.by_backend.iter().map(report).collect()
}

fn failures(epoch: &Epoch, failures: Vec<Failure>) -> Vec<FailureReport> {
    let report = |failure: Failure| FailureReport {
        start_unix_s: round6(epoch.unix_s(failure.start)),
        end_unix_s: round6(epoch.unix_s(failure.end)),
        code: failure.code,
        message: failure.message,
    };
    failures.into_iter().map(report).collect()
}

fn slots(tally: &Tally) -> Vec<SlotReport> {
    let begin_s = tally.epoch.unix_s(tally.epoch.begin);
    let report = |(k, slot): (&u64, &crate::tally::Slot)| SlotReport {
        unix_s: round6(begin_s + tally.slot_start(*k).as_secs_f64()),
        by_backend: slot.by_backend.clone(),
        fail: slot.fail,
    };
    tally.slots.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Status;

    use super::*;
    use crate::load::Sample;

    fn report(slot_len: Option<Duration>) -> Report {
        let mut tally = Tally::new(Epoch::now(), slot_len);
        let begin = tally.epoch.begin;
        for (k, result) in [
            Ok("127.0.0.2".to_owned()),
            Ok("127.0.0.3".to_owned()),
            Ok("127.0.0.2".to_owned()),
            Err(Status::unavailable("gone")),
        ]
        .into_iter()
        .enumerate()
        {
            let intended = begin + Duration::from_millis(10) * k as u32;
            let done = intended + Duration::from_millis(1);
            tally.add(Sample { intended, done, result });
        }
        let outcome = Outcome { started: 4, shed: 2, wall: Duration::from_millis(40) };
        Report::new("dns:///x:1", "round_robin", tally, &outcome, &EventLog::counting(), 0.5)
    }

    #[test]
    fn has_the_keys_of_the_contract_and_adds_up() {
        let json = serde_json::to_value(report(Some(Duration::from_millis(20)))).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let want = "target policy started_unix_s wall_s calls ok fail shed rate by_backend by_code \
                    latency_ms longest_run streams_open_at_eof transparent_retries failures \
                    failures_omitted slot_s slots first_ok_unix_s cpu_s rss_max_kib";
        assert_eq!(keys, want.split_whitespace().collect::<Vec<_>>());
        let two = &json["by_backend"]["127.0.0.2"];
        assert_eq!((&two["calls"], &two["share"]), (&2.into(), &0.666667.into()));
        assert_eq!((&two["p50_ms"], &two["max_ms"]), (&1.0.into(), &1.0.into()));
        assert_eq!(json["rate"], 100.0);
        assert_eq!(json["by_code"]["UNAVAILABLE"], 1);
        let failure = &json["failures"][0];
        assert_eq!(
            (&failure["code"], &failure["message"]),
            (&"UNAVAILABLE".into(), &"gone".into())
        );
        let took =
            failure["end_unix_s"].as_f64().unwrap() - failure["start_unix_s"].as_f64().unwrap();
        assert!((took - 0.001).abs() < 1e-5, "{took}");
        assert_eq!(json["slots"][1]["fail"], 1);
        let begin = json["started_unix_s"].as_f64().unwrap();
        let slot = json["slots"][1]["unix_s"].as_f64().unwrap();
        assert!((slot - begin - 0.02).abs() < 1e-5, "{slot} {begin}");
    }

    #[test]
    fn without_slots_the_key_is_absent_and_without_answers_latency_is_null() {
        let json = serde_json::to_value(report(None)).unwrap();
        assert!(
            json.get("slots").is_none()
                && json.get("slot_s").is_none()
                && json.get("attempts").is_none()
        );
        let tally = Tally::new(Epoch::now(), None);
        let outcome = Outcome { started: 0, shed: 0, wall: Duration::ZERO };
        let empty = Report::new("x", "y", tally, &outcome, &EventLog::counting(), 0.0);
        let json = serde_json::to_value(empty).unwrap();
        assert_eq!(json["latency_ms"]["p50"], serde_json::Value::Null);
        assert_eq!((&json["rate"], &json["calls"]), (&0.0.into(), &0.into()));
    }
}
