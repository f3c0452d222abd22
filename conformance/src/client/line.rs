//! The JSON line of the peers' clients. Its keys are theirs, so that one runner reads all of them;
//! our own report, in the service `client`, has more to say and other names.

use std::time::Duration;

use client::{
    cost,
    histogram::Histogram,
    load::Outcome,
    report::{per_second, round3},
    tally::{Epoch, Tally},
};
use serde_json::{Map, Value, json};

use super::flags::Flags;

/// What the line names us.
pub(super) const IMPL: &str = concat!("evenkeel ", env!("CARGO_PKG_VERSION"));

/// What the line says beside the tally.
pub(super) struct Facts<'a> {
    pub(super) target: &'a str,
    pub(super) policy: &'a str,
    pub(super) cpu_s: f64,
    /// With `--warmup`: when READY came, or that it did not.
    pub(super) ready_s: Option<Option<f64>>,
    /// With `--states`.
    pub(super) states: Option<Vec<Value>>,
}

/// Makes the line.
pub(super) fn line(facts: Facts<'_>, tally: &Tally, outcome: &Outcome) -> Value {
    let wall_s = outcome.wall.as_secs_f64();
    let at_s = |at| round3(tally.epoch.since_s(at));
    let or_never = |at: Option<_>| at.map_or(-1.0, at_s);
    let by_backend = |value: &dyn Fn(&client::tally::Backend) -> Value| -> Map<String, Value> {
        tally.by_backend.iter().map(|(name, backend)| (name.clone(), value(backend))).collect()
    };
    let mut line = json!({
        "impl": IMPL,
        "target": facts.target,
        "policy": facts.policy,
        "calls": tally.calls(),
        "ok": tally.ok(),
        "fail": tally.fail,
        "shed": outcome.shed,
        "by_backend": by_backend(&|backend| backend.latency.count().into()),
        "by_code": tally.by_code,
        "errors": tally.errors,
        "latency_ms": quantiles(&tally.latency),
        "fail_latency_ms": quantiles(&tally.fail_latency),
        "wall_s": round3(wall_s),
        "rps": per_second(tally.calls(), wall_s),
        "cpu_s": round3(facts.cpu_s),
        "max_rss_kib": cost::rss_max_kib(),
        "first_s": by_backend(&|backend| at_s(backend.first).into()),
        "last_s": by_backend(&|backend| at_s(backend.last).into()),
        "first_ok_s": or_never(tally.ok_first),
        "first_fail_s": or_never(tally.fail_first_last.map(|(first, _)| first)),
        "last_fail_s": or_never(tally.fail_first_last.map(|(_, last)| last)),
        "longest_run": tally.longest_run,
    });
    if tally.calls() > 0 {
        line["cpu_ms_per_1000"] = round3(facts.cpu_s * 1e6 / tally.calls() as f64).into();
    }
    if tally.slot_len().is_some() {
        line["timeline"] = timeline(tally).into();
    }
    if let Some(states) = facts.states {
        line["states"] = states.into();
    }
    if let Some(ready_s) = facts.ready_s {
        line["ready_s"] = ready_s.map_or(-1.0, round3).into();
    }
    line
}

/// The line of a run that was refused: no calls, and why. A scenario runner reads fields of the
/// last line without looking whether they are there; without this line one policy that we don't
/// have would end a whole scenario.
pub(super) fn refusal(flags: &Flags, error: &str) -> Value {
    let (target, policy) = (flags.target.as_str(), flags.policy_shown());
    let facts = Facts { target, policy, cpu_s: 0.0, ready_s: None, states: None };
    let outcome = Outcome { started: 0, shed: 0, wall: Duration::ZERO };
    let mut line = line(facts, &Tally::new(Epoch::now(), None), &outcome);
    line["refused"] = error.into();
    line["timeline"] = json!([{ "t": 0.0, "max_ms": 0.0 }]);
    line
}

/// Empty without samples, as the peers have it.
fn quantiles(histogram: &Histogram) -> Value {
    let mut quantiles = Map::new();
    for (name, q) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)] {
        quantiles.extend(histogram.quantile_ms(q).map(|ms| (name.into(), round3(ms).into())));
    }
    quantiles.extend(histogram.max_ms().map(|ms| ("max".into(), round3(ms).into())));
    quantiles.extend(histogram.mean_ms().map(|ms| ("mean".into(), round3(ms).into())));
    quantiles.into()
}

fn timeline(tally: &Tally) -> Vec<Value> {
    let slot = |(k, slot): (&u64, &client::tally::Slot)| {
        let mut entry = json!({ "t": round3(tally.slot_start(*k).as_secs_f64()) });
        if !slot.by_backend.is_empty() {
            entry["by_backend"] = json!(slot.by_backend);
        }
        if slot.fail > 0 {
            entry["fail"] = slot.fail.into();
        }
        entry["max_ms"] = round3(slot.latency_max.as_secs_f64() * 1e3).into();
        entry
    };
    tally.slots.iter().map(slot).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use client::load::Sample;
    use tonic::Status;

    use super::*;

    /// The keys in the README of ../shared/peers.
    const KEYS: &str = "impl target policy calls ok fail shed by_backend by_code errors \
                        latency_ms fail_latency_ms wall_s rps cpu_s cpu_ms_per_1000 \
                        max_rss_kib first_s last_s first_ok_s first_fail_s last_fail_s \
                        longest_run";
    const KEYS_ON_REQUEST: &str = "timeline states ready_s";

    fn keys(line: &Value) -> BTreeSet<&str> {
        line.as_object().unwrap().keys().map(String::as_str).collect()
    }

    fn facts() -> Facts<'static> {
        let target = "static:///127.0.0.2:8000";
        Facts { target, policy: "round_robin", cpu_s: 0.5, ready_s: None, states: None }
    }

    fn tally(slot_len: Option<Duration>) -> Tally {
        let mut tally = Tally::new(Epoch::now(), slot_len);
        let begin = tally.epoch.begin;
        for (k, result) in
            [Ok("127.0.0.2"), Ok("127.0.0.3"), Ok("127.0.0.3"), Err(Status::unavailable("gone"))]
                .into_iter()
                .enumerate()
        {
            let intended = begin + Duration::from_millis(10) * k as u32;
            let done = intended + Duration::from_micros(100);
            tally.add(Sample { intended, done, result: result.map(str::to_owned) });
        }
        tally
    }

    const OUTCOME: Outcome = Outcome { started: 4, shed: 2, wall: Duration::from_millis(40) };

    #[test]
    fn has_exactly_the_keys_of_the_peers() {
        let plain = line(facts(), &tally(None), &OUTCOME);
        assert_eq!(keys(&plain), KEYS.split_whitespace().collect());
        let facts = Facts { ready_s: Some(None), states: Some(vec![]), ..facts() };
        let full = line(facts, &tally(Some(Duration::from_millis(20))), &OUTCOME);
        let all = KEYS.split_whitespace().chain(KEYS_ON_REQUEST.split_whitespace());
        assert_eq!(keys(&full), all.collect());
    }

    #[test]
    fn values_are_those_of_the_peers() {
        let facts = Facts { ready_s: Some(Some(0.0123)), ..facts() };
        let line = line(facts, &tally(Some(Duration::from_millis(20))), &OUTCOME);
        assert!(line["impl"].as_str().unwrap().starts_with("evenkeel 0."), "{line}");
        assert_eq!(line["by_backend"], json!({ "127.0.0.2": 1, "127.0.0.3": 2 }));
        assert_eq!(line["by_code"], json!({ "UNAVAILABLE": 1 }));
        assert_eq!(line["errors"], json!({ "gone": 1 }));
        assert_eq!((&line["calls"], &line["shed"]), (&4.into(), &2.into()));
        assert_eq!(line["first_s"], json!({ "127.0.0.2": 0.0, "127.0.0.3": 0.01 }));
        assert_eq!(line["last_s"]["127.0.0.3"], 0.02);
        assert_eq!((&line["first_fail_s"], &line["last_fail_s"]), (&0.03.into(), &0.03.into()));
        assert_eq!(line["latency_ms"]["p999"], 0.1);
        assert_eq!((&line["rps"], &line["cpu_ms_per_1000"]), (&100.0.into(), &125_000.0.into()));
        assert_eq!((&line["longest_run"], &line["ready_s"]), (&2.into(), &0.012.into()));
        let timeline = json!([
            { "t": 0.0, "by_backend": { "127.0.0.2": 1, "127.0.0.3": 1 }, "max_ms": 0.1 },
            { "t": 0.02, "by_backend": { "127.0.0.3": 1 }, "fail": 1, "max_ms": 0.1 },
        ]);
        assert_eq!(line["timeline"], timeline);
    }

    #[test]
    fn a_run_without_calls_says_never() {
        let empty = Tally::new(Epoch::now(), None);
        let outcome = Outcome { started: 0, shed: 0, wall: Duration::ZERO };
        let line = line(facts(), &empty, &outcome);
        assert_eq!(line["latency_ms"], json!({}));
        assert_eq!((&line["first_ok_s"], &line["last_fail_s"]), (&(-1.0).into(), &(-1.0).into()));
        assert!(line.get("cpu_ms_per_1000").is_none());
    }
}
