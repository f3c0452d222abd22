//! What a balancer promises beside shares: that its clients' counts add up, and that they serve on
//! without it.

use super::Check;
use crate::{
    balancers::Totals,
    client::{Event, Report, What, first},
};

/// How far the dropped share may be off, as a fraction of all calls.
const DROPPED_OFF_MAX: f64 = 0.01;

/// The sums of the reports that the balancers got are the client's own counts, each of them.
pub(crate) fn reports_add_up(
    id: &'static str,
    report: &Report,
    totals: &Totals,
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    let own = report.attempts.clone().unwrap_or_default();
    // A balancer shows the tokens of its rules also when nothing was dropped.
    let dropped = totals.dropped.iter().filter(|(_, count)| **count > 0);
    let holds = own.started >= calls_min
        && own.started == totals.started
        && own.finished == totals.finished
        && own.failed_to_send == totals.failed_to_send
        && own.known_received == totals.known_received
        && own.drops.iter().eq(dropped);
    Check {
        id,
        holds,
        expected: "started, finished, failed to send, received and drops: equal on both sides"
            .to_owned(),
        seen: format!(
            "client {}/{}/{}/{} {:?}, balancers {}/{}/{}/{} {:?} in {} reports",
            own.started,
            own.finished,
            own.failed_to_send,
            own.known_received,
            own.drops,
            totals.started,
            totals.finished,
            totals.failed_to_send,
            totals.known_received,
            totals.dropped,
            totals.reports,
        ),
        breaks,
    }
}

/// `percent` of the calls were dropped, as UNAVAILABLE, each counted under `token`; no other one
/// failed.
pub(crate) fn dropped(
    id: &'static str,
    report: &Report,
    token: &str,
    percent: f64,
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    let drops = report.attempts.as_ref().map(|attempts| attempts.drops.clone()).unwrap_or_default();
    let counted = drops.get(token).copied().unwrap_or_default();
    let unavailable = report.by_code.get("UNAVAILABLE").copied().unwrap_or_default();
    let share = counted as f64 / report.calls.max(1) as f64;
    let holds = report.calls >= calls_min
        && (share - percent / 100.0).abs() <= DROPPED_OFF_MAX
        && drops.len() == 1
        && counted == report.fail
        && counted == unavailable;
    Check {
        id,
        holds,
        expected: format!(
            "{percent} % +- 1 of >= {calls_min} calls dropped, UNAVAILABLE, under {token}; no \
             other failed"
        ),
        seen: format!(
            "{counted} of {} ({:.2} %), {} failed, {unavailable} of them UNAVAILABLE",
            report.calls,
            share * 100.0,
            report.fail
        ),
        breaks,
    }
}

/// After one balancer's end at `killed_unix_s` the client has a stream to another one within
/// `limit_s`.
pub(crate) fn moved_within(
    id: &'static str,
    events: &[Event],
    killed_unix_s: f64,
    limit_s: f64,
    breaks: &'static str,
) -> Check {
    let connected = |what: &What| matches!(what, What::Balancer { connected: Some(_), .. });
    let after = first(events, killed_unix_s, connected).map(|at| at - killed_unix_s);
    Check {
        id,
        holds: after.is_some_and(|after| after <= limit_s),
        expected: format!("a stream to the other balancer within {limit_s} s"),
        seen: after.map_or("none".to_owned(), |after| format!("after {after:.2} s")),
        breaks,
    }
}

/// From `from` to `until` no balancer lived, and calls went on by the last list: not by the
/// resolver's addresses, and none failed.
pub(crate) fn last_list_serves(
    id: &'static str,
    report: &Report,
    events: &[Event],
    (from, until): (f64, f64),
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    let slots = report.slots.iter().filter(|slot| slot.unix_s >= from && slot.unix_s < until);
    let calls: u64 = slots.flat_map(|slot| slot.by_backend.values()).sum();
    let lost = |what: &What| matches!(what, What::Balancer { lost: Some(_), .. });
    let fallback = |what: &What| matches!(what, What::Balancer { fallback: Some(_), .. });
    let was_lost = first(events, 0.0, lost).is_some();
    let fell_back = first(events, 0.0, fallback).is_some();
    let failed = report.failures.iter().filter(|failure| failure.end_unix_s >= from).count();
    Check {
        id,
        holds: was_lost && !fell_back && calls >= calls_min && failed == 0,
        expected: format!(
            "without any balancer the last list serves >= {calls_min} calls, 0 failed, no fallback"
        ),
        seen: format!(
            "{calls} calls in {:.1} s, {failed} failed since, {}, {}",
            until - from,
            if was_lost { "the balancer was lost" } else { "no balancer was lost" },
            if fell_back { "fallback" } else { "no fallback" }
        ),
        breaks,
    }
}

/// The slowest hundredth of the calls is `times` faster than with equal weights. Over the whole
/// runs: the time until the weights are known counts against them.
pub(crate) fn tail_better(
    id: &'static str,
    equal: &Report,
    aware: &Report,
    times: f64,
    breaks: &'static str,
) -> Check {
    let p99 = |report: &Report| report.latency_ms.p99;
    let ratio = p99(equal).zip(p99(aware)).map(|(equal, aware)| equal / aware);
    let shown = |ms: Option<f64>| ms.map_or("none".to_owned(), |ms| format!("{ms:.0} ms"));
    Check {
        id,
        holds: ratio.is_some_and(|ratio| ratio >= times) && equal.ok > 0 && aware.fail == 0,
        expected: format!("p99 at least {times} times better than with equal weights"),
        seen: format!("{}, with equal weights {}", shown(p99(aware)), shown(p99(equal))),
        breaks,
    }
}

/// In the last half of the run each backend of `parts` has the share that it can serve, within
/// `swing_max` of it.
pub(crate) fn calm_shares(
    id: &'static str,
    report: &Report,
    parts: &[(String, f64)],
    swing_max: f64,
    breaks: &'static str,
) -> Check {
    let half = report.slots.get(report.slots.len() / 2..).unwrap_or_default();
    // The last slot is not whole.
    let half = half.split_last().map_or(half, |(_, whole)| whole);
    let calls = |name: Option<&str>| -> u64 {
        let counts = half.iter().flat_map(|slot| &slot.by_backend);
        counts.filter(|(n, _)| name.is_none_or(|name| name == *n)).map(|(_, calls)| calls).sum()
    };
    let all = calls(None);
    let off = |(name, part): &(String, f64)| {
        let share = calls(Some(name)) as f64 / all.max(1) as f64;
        ((share / part - 1.0).abs(), name.clone())
    };
    let worst = parts.iter().map(off).max_by(|one, other| one.0.total_cmp(&other.0));
    Check {
        id,
        holds: all > 0 && worst.as_ref().is_some_and(|(off, _)| *off <= swing_max),
        expected: format!(
            "each share within {:.0} % of what its backend can serve, over the last half",
            swing_max * 100.0
        ),
        seen: worst.map_or("nothing".to_owned(), |(off, name)| {
            format!("{all} calls; farthest off: {name}, {:.1} %", off * 100.0)
        }),
        breaks,
    }
}
