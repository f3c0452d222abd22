//! What is promised of calls through an Envoy.

use super::Check;
use crate::client::Report;

/// A failure's start is the intended one, and the kill is stamped by another process.
const STAMP_LATE_S: f64 = 0.1;

/// The backends took exact turns: of all calls, none answered over one more than another.
pub(crate) fn exact_turns(
    id: &'static str,
    report: &Report,
    backends: &[String],
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    turns_by_worker(id, report, backends, 1, calls_min, breaks)
}

/// Each of `workers` took exact turns of its own: of all calls, no backend answered more above
/// another's than there are workers.
pub(crate) fn turns_by_worker(
    id: &'static str,
    report: &Report,
    backends: &[String],
    workers: u64,
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    let calls = |name: &String| report.by_backend.get(name).map_or(0, |of| of.calls);
    let counts: Vec<u64> = backends.iter().map(calls).collect();
    let strangers = report.by_backend.keys().filter(|name| !backends.contains(name)).count();
    let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
    let apart = most.unwrap_or(0) - least.unwrap_or(0);
    let shown: Vec<String> = counts.iter().map(u64::to_string).collect();
    Check {
        id,
        holds: apart <= workers && strangers == 0 && !backends.is_empty() && report.ok >= calls_min,
        expected: format!("<= {workers} apart, of >= {calls_min} calls"),
        seen: format!("{}; {apart} apart, {strangers} unknown backends", shown.join(" / ")),
        breaks,
    }
}

/// A backend that died lost at most the calls that were on their way to it: every failure is
/// UNAVAILABLE, began before the kill, and there are not more than were sent in `window_s`.
pub(crate) fn lost_in_flight(
    id: &'static str,
    report: &Report,
    killed_unix_s: f64,
    failures_max: u64,
    breaks: &'static str,
) -> Check {
    let late = |start: f64| start > killed_unix_s + STAMP_LATE_S;
    let wrong = report
        .failures
        .iter()
        .find(|failure| failure.code != "UNAVAILABLE" || late(failure.start_unix_s));
    Check {
        id,
        holds: wrong.is_none() && report.fail <= failures_max && report.shed == 0 && report.ok > 0,
        expected: format!(
            "<= {failures_max} failed, each UNAVAILABLE and begun before the kill \
             (+ {STAMP_LATE_S} s)"
        ),
        seen: match (wrong, report.failures.first()) {
            (Some(wrong), _) => format!(
                "{} failed; {:+.3} s from the kill: {}: {}",
                report.fail,
                wrong.start_unix_s - killed_unix_s,
                wrong.code,
                wrong.message
            ),
            (None, Some(first)) => {
                format!("{} of {} failed, all like: {}", report.fail, report.calls, first.message)
            }
            (None, None) => format!("0 of {} failed", report.calls),
        },
        breaks,
    }
}

/// The slow backend gets at most `share_max` of the calls, and every other one more than it.
pub(crate) fn slow_gets_less(
    id: &'static str,
    report: &Report,
    slow: &str,
    share_max: f64,
    breaks: &'static str,
) -> Check {
    let share = |name: &str| report.by_backend.get(name).map_or(0.0, |of| of.share);
    let others: Vec<f64> = report
        .by_backend
        .iter()
        .filter(|(name, _)| name.as_str() != slow)
        .map(|(_, of)| of.share)
        .collect();
    let least = others.iter().copied().fold(f64::INFINITY, f64::min);
    let most = others.iter().copied().fold(0.0, f64::max);
    let seen = share(slow);
    Check {
        id,
        // A backend that gets nothing is not slow, it is gone.
        holds: seen > 0.0 && seen <= share_max && others.len() > 1 && least > seen,
        expected: format!("the slow one gets at most {:.0} % of the calls", share_max * 100.0),
        seen: format!(
            "{:.1} %, the others {:.1} % to {:.1} %",
            seen * 100.0,
            least * 100.0,
            most * 100.0
        ),
        breaks,
    }
}

/// Envoy's log calls nothing in its configuration deprecated.
pub(crate) fn nothing_deprecated(
    id: &'static str,
    deprecation: Option<&str>,
    breaks: &'static str,
) -> Check {
    Check {
        id,
        holds: deprecation.is_none(),
        expected: "no deprecated field in what Envoy was given, by its log".to_owned(),
        seen: deprecation.unwrap_or("none").chars().take(300).collect(),
        breaks,
    }
}

/// Envoy accepted what it was sent, all of it, and was sent something.
pub(crate) fn none_rejected(
    id: &'static str,
    accepted: u64,
    rejected: u64,
    breaks: &'static str,
) -> Check {
    Check {
        id,
        holds: rejected == 0 && accepted > 0,
        expected: "0 updates rejected by Envoy, of more than 0 that it got".to_owned(),
        seen: format!("{accepted} accepted, {rejected} rejected"),
        breaks,
    }
}

/// Counters of what was built, by their names, and their values before and after something that was
/// to change nothing.
pub(crate) fn nothing_rebuilt(
    id: &'static str,
    counters: &[(&'static str, u64, u64)],
    breaks: &'static str,
) -> Check {
    let changed = counters.iter().filter(|(_, before, after)| before != after);
    let shown: Vec<String> = changed
        .clone()
        .map(|(name, before, after)| format!("{name} {before} -> {after}"))
        .collect();
    // Something was built at the start, or the counters are not those that count it.
    let built = counters.iter().any(|(_, before, _)| *before > 0);
    Check {
        id,
        holds: shown.is_empty() && built,
        expected: "no listener, route or cluster of Envoy's is added, changed or removed"
            .to_owned(),
        seen: if shown.is_empty() {
            let all: Vec<String> =
                counters.iter().map(|(name, value, _)| format!("{name} {value}")).collect();
            format!("unchanged: {}", all.join(", "))
        } else {
            shown.join(", ")
        },
        breaks,
    }
}

/// Of the calls, the part `share` failed, to within `apart` (both 0 to 1), and all with `code`.
pub(crate) fn aborted_share(
    id: &'static str,
    report: &Report,
    (share, apart): (f64, f64),
    code: &str,
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    let seen = report.fail as f64 / report.calls.max(1) as f64;
    let with_code = report.by_code.get(code).copied().unwrap_or_default();
    Check {
        id,
        holds: (seen - share).abs() <= apart
            && with_code == report.fail
            && report.calls >= calls_min,
        expected: format!(
            "{:.0} % +- {:.0} of >= {calls_min} calls fail, all with {code}",
            share * 100.0,
            apart * 100.0
        ),
        seen: format!(
            "{:.2} % of {}; {with_code} of {} with {code}",
            seen * 100.0,
            report.calls,
            report.fail
        ),
        breaks,
    }
}

/// Every answer took `delay_ms` at least, and none of those before did by themselves.
pub(crate) fn delayed(
    id: &'static str,
    before: &Report,
    report: &Report,
    delay_ms: f64,
    breaks: &'static str,
) -> Check {
    let (usual, p50) = (before.latency_ms.p50, report.latency_ms.p50);
    let holds = usual.zip(p50).is_some_and(|(usual, p50)| usual < delay_ms && p50 >= delay_ms);
    let shown = |ms: Option<f64>| ms.map_or("none".to_owned(), |ms| format!("{ms:.1} ms"));
    Check {
        id,
        holds: holds && report.fail == 0 && report.ok > 0,
        expected: format!("p50 >= {delay_ms} ms with the delay, less without it, and 0 failed"),
        seen: format!("{} with it, {} without; {} failed", shown(p50), shown(usual), report.fail),
        breaks,
    }
}
