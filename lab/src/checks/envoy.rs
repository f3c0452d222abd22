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
    let calls = |name: &String| report.by_backend.get(name).map_or(0, |of| of.calls);
    let counts: Vec<u64> = backends.iter().map(calls).collect();
    let strangers = report.by_backend.keys().filter(|name| !backends.contains(name)).count();
    let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
    let apart = most.unwrap_or(0) - least.unwrap_or(0);
    let shown: Vec<String> = counts.iter().map(u64::to_string).collect();
    Check {
        id,
        holds: apart <= 1 && strangers == 0 && !backends.is_empty() && report.ok >= calls_min,
        expected: format!("1 call more or less at most, of >= {calls_min} calls"),
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
