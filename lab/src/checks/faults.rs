//! What a fault may cost, and for how long.

use std::ops::RangeInclusive;

use super::Check;
use crate::client::Report;

/// The processors are shared and the client stamps failures when its tasks run.
const STAMP_LATE_S: f64 = 0.1;

/// A backend that was killed.
#[derive(Clone, Debug)]
pub(crate) struct Dead {
    /// Its address as messages name it.
    pub(crate) address: String,
    /// When the client saw its connection end.
    pub(crate) eof_unix_s: Option<f64>,
}

/// A backend that hung.
#[derive(Clone, Debug)]
pub(crate) struct Hung {
    /// When SIGSTOP was sent.
    pub(crate) stopped_unix_s: f64,
    /// When the client gave up its connection, and why.
    pub(crate) dropped: Option<(f64, String)>,
    /// Calls the client starts each second, over all backends.
    pub(crate) rate: f64,
    /// Backends that shared the calls.
    pub(crate) backends: usize,
}

/// Connections to each backend of `renewals` were replaced at least `each_min` times.
pub(crate) fn aged(
    id: &'static str,
    renewals: &[(String, usize)],
    each_min: usize,
    breaks: &'static str,
) -> Check {
    let counts: Vec<String> =
        renewals.iter().map(|(address, count)| format!("{address} {count}")).collect();
    Check {
        id,
        holds: !renewals.is_empty() && renewals.iter().all(|(_, count)| *count >= each_min),
        expected: format!(
            ">= {each_min} connections of each backend reached their age and were replaced"
        ),
        seen: counts.join(", "),
        breaks,
    }
}

/// A number of `what` lies within its bounds.
pub(crate) fn bounded(
    id: &'static str,
    what: &str,
    count: usize,
    bounds: RangeInclusive<usize>,
    breaks: &'static str,
) -> Check {
    Check {
        id,
        holds: bounds.contains(&count),
        expected: format!("{} to {} {what}", bounds.start(), bounds.end()),
        seen: count.to_string(),
        breaks,
    }
}

/// Each failure is UNAVAILABLE and names the dead address.
pub(crate) fn only_unavailable_from(
    id: &'static str,
    report: &Report,
    dead: &Dead,
    breaks: &'static str,
) -> Check {
    let right = |failure: &&crate::client::Failure| {
        failure.code == "UNAVAILABLE" && failure.message.contains(&dead.address)
    };
    let wrong = report.failures.iter().find(|failure| !right(failure));
    Check {
        id,
        holds: wrong.is_none() && report.failures_omitted == 0,
        expected: format!("each failure is UNAVAILABLE and names {}", dead.address),
        seen: match (wrong, report.failures.first()) {
            (Some(wrong), _) => format!("{}: {}", wrong.code, wrong.message),
            (None, Some(first)) => format!("{} failed, all like: {}", report.fail, first.message),
            (None, None) => "0 failed".to_owned(),
        },
        breaks,
    }
}

/// No more calls failed than were open on the connection when it ended, by the client's counter.
pub(crate) fn failures_within_open_streams(
    id: &'static str,
    report: &Report,
    dead: &Dead,
    breaks: &'static str,
) -> Check {
    let open = report.streams_open_at_eof.get(&dead.address).copied();
    Check {
        id,
        holds: open.is_some_and(|open| report.fail <= open) && report.shed == 0,
        expected: format!("failures <= streams open at the EOF of {}", dead.address),
        seen: match open {
            Some(open) => format!("{} failed, {open} streams open", report.fail),
            None => format!("{} failed; the client counted no EOF of it", report.fail),
        },
        breaks,
    }
}

/// No call failed after the connection's end.
pub(crate) fn none_after_eof(
    id: &'static str,
    report: &Report,
    dead: &Dead,
    breaks: &'static str,
) -> Check {
    let last = report.failures.iter().map(|failure| failure.end_unix_s).fold(f64::MIN, f64::max);
    let none = report.failures.is_empty();
    Check {
        id,
        holds: dead.eof_unix_s.is_some_and(|eof| none || last <= eof + STAMP_LATE_S),
        expected: format!("no failure later than {STAMP_LATE_S} s after the EOF"),
        seen: match dead.eof_unix_s {
            None => "the client reported no end of the connection".to_owned(),
            Some(_) if none => "0 failed".to_owned(),
            Some(eof) => format!("the last one {:+.3} s from the EOF", last - eof),
        },
        breaks,
    }
}

/// The client gave the hung backend up within `limit_s`, and no call that started later failed.
pub(crate) fn out_of_rotation(
    id: &'static str,
    report: &Report,
    hung: &Hung,
    limit_s: f64,
    breaks: &'static str,
) -> Check {
    let limit = hung.stopped_unix_s + limit_s;
    let late = report.failures.iter().filter(|failure| failure.start_unix_s > limit).count();
    let last = report.failures.iter().map(|failure| failure.start_unix_s).fold(f64::MIN, f64::max);
    let dropped = hung.dropped.as_ref();
    let mut seen = match dropped {
        Some((at, reason)) => {
            format!("given up after {:.2} s ({reason})", at - hung.stopped_unix_s)
        }
        None => "never given up".to_owned(),
    };
    if !report.failures.is_empty() {
        seen += &format!("; last failing call began at +{:.2} s", last - hung.stopped_unix_s);
    }
    Check {
        id,
        holds: dropped.is_some_and(|(at, _)| *at <= limit)
            && late == 0
            && report.failures_omitted == 0,
        expected: format!("given up within {limit_s} s; no call that begins later fails"),
        seen: format!("{seen}; {late} later"),
        breaks,
    }
}

/// Not more calls failed than were sent to the hung backend: its turn of those that began before
/// it was given up, `limit_s` after it hung at the latest, and those in flight when it stopped.
pub(crate) fn failures_within_sent(
    id: &'static str,
    report: &Report,
    hung: &Hung,
    limit_s: f64,
    breaks: &'static str,
) -> Check {
    let sent = hung.dropped.as_ref().map(|(at, _)| {
        let calls = (at - hung.stopped_unix_s).clamp(0.0, limit_s) * hung.rate;
        // Calls take about a millisecond; 20 ms of them may have been in flight.
        let in_flight = 0.02 * hung.rate;
        ((calls + in_flight) / hung.backends as f64).ceil() as u64
    });
    let codes: Vec<String> =
        report.by_code.iter().map(|(code, count)| format!("{code} {count}")).collect();
    Check {
        id,
        holds: sent.is_some_and(|sent| report.fail <= sent) && report.shed == 0,
        expected: "failures <= calls sent to it before it was given up".to_owned(),
        seen: match sent {
            Some(sent) => {
                format!("{} failed ({}), {sent} sent", report.fail, codes.join(", "))
            }
            None => format!("{} failed; it was never given up", report.fail),
        },
        breaks,
    }
}
