//! Who answered, how much, and how soon.

use std::fmt::Write as _;

use super::Check;
use crate::{
    client::{Report, Slot},
    faults::Deleted,
};

/// An answer that was on its way when its backend ended is counted when the client reads it.
const READ_LATE_S: f64 = 0.25;

/// A drain without delay takes milliseconds; the rest is for slow machines.
const SETTLED_S: f64 = 1.0;

/// Exactly one of `backends` answered everything: the problem that `baseline` shows.
pub(crate) fn one_gets_all(
    id: &'static str,
    report: &Report,
    backends: usize,
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    let answered: Vec<_> = report.by_backend.iter().filter(|(_, of)| of.calls > 0).collect();
    let mut seen = format!("{} calls, {} failed:", report.calls, report.fail);
    for (backend, figures) in &answered {
        write!(seen, " {backend} {:.1} %", figures.share * 100.0).expect("a String takes it");
    }
    Check {
        id,
        holds: answered.len() == 1 && report.ok >= calls_min && report.fail == 0,
        expected: format!("one of {backends} backends gets 100 % of >= {calls_min} calls"),
        seen,
        breaks,
    }
}

/// Each of `backends` answered its part to within 1 % of that part, and nobody else answered.
pub(crate) fn even_shares(
    id: &'static str,
    report: &Report,
    backends: &[String],
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    let part = 1.0 / backends.len() as f64;
    let share = |name: &String| report.by_backend.get(name).map_or(0.0, |of| of.share);
    let worst = backends.iter().map(|name| (share(name) / part - 1.0).abs()).fold(0.0, f64::max);
    let strangers = report.by_backend.keys().filter(|name| !backends.contains(name)).count();
    let shares: Vec<String> =
        backends.iter().map(|name| format!("{:.3}", share(name) * 100.0)).collect();
    Check {
        id,
        holds: worst <= 0.01 && strangers == 0 && report.ok >= calls_min,
        expected: format!(
            "each share within 1 % of 1/{} over >= {calls_min} calls",
            backends.len()
        ),
        seen: format!(
            "{} % of {} calls; farthest {:.2} % off, {strangers} unknown backends",
            shares.join(" / "),
            report.ok,
            worst * 100.0
        ),
        breaks,
    }
}

/// No call failed or was never started, and there were enough of them.
pub(crate) fn none_failed(
    id: &'static str,
    report: &Report,
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    let mut seen = format!("{} failed, {} shed of {}", report.fail, report.shed, report.calls);
    if let Some(first) = report.failures.first() {
        write!(seen, "; the first: {}: {}", first.code, first.message).expect("a String takes it");
    }
    Check {
        id,
        holds: report.fail == 0 && report.shed == 0 && report.ok >= calls_min,
        expected: format!("0 failed of >= {calls_min}"),
        seen,
        breaks,
    }
}

/// From 1 s after the pods `removed` were deleted to `until_unix_s`, `left` alone answered.
pub(crate) fn only_left_serves(
    id: &'static str,
    report: &Report,
    left: &str,
    removed: &[String],
    deleted_unix_s: f64,
    until_unix_s: f64,
    breaks: &'static str,
) -> Check {
    let between = (deleted_unix_s, until_unix_s);
    only_left_serves_after(id, report, left, removed, between, SETTLED_S, breaks)
}

/// The same from `settled_s` after the deletion: pods that wait before they drain serve until
/// their clients have learnt that they go.
pub(crate) fn only_left_serves_after(
    id: &'static str,
    report: &Report,
    left: &str,
    removed: &[String],
    (deleted_unix_s, until_unix_s): (f64, f64),
    settled_s: f64,
    breaks: &'static str,
) -> Check {
    let last = |name: &String| report.by_backend.get(name).map_or(0.0, |of| of.last_unix_s);
    let latest = removed.iter().map(last).fold(0.0, f64::max);
    let slots = report.slots.iter();
    let on_left: u64 = slots
        .filter(|slot| slot.unix_s >= deleted_unix_s + settled_s && slot.unix_s < until_unix_s)
        .filter_map(|slot| slot.by_backend.get(left))
        .sum();
    Check {
        id,
        holds: on_left > 0 && !removed.is_empty() && latest <= deleted_unix_s + settled_s,
        expected: format!(
            "all calls on {left} from {settled_s} s after the deletion of the other {}",
            removed.len()
        ),
        seen: format!(
            "{on_left} calls on it since; the last answer of another {:+.2} s from the deletion",
            latest - deleted_unix_s
        ),
        breaks,
    }
}

/// Each backend gave its first answer before, or within `limit_s` after `published_unix_s`.
pub(crate) fn all_served_within(
    id: &'static str,
    first_answers: &[(String, Option<f64>)],
    published_unix_s: f64,
    limit_s: f64,
    breaks: &'static str,
) -> Check {
    let waits: Vec<Option<f64>> =
        first_answers.iter().map(|(_, at)| at.map(|at| at - published_unix_s)).collect();
    let seen: Vec<String> = first_answers
        .iter()
        .zip(&waits)
        .map(|((name, _), wait)| match wait {
            Some(wait) if *wait < 0.0 => format!("{name} before"),
            Some(wait) => format!("{name} after {wait:.2} s"),
            None => format!("{name} never"),
        })
        .collect();
    Check {
        id,
        holds: !waits.is_empty() && waits.iter().all(|wait| wait.is_some_and(|w| w <= limit_s)),
        expected: format!("each new backend serves within {limit_s} s of its publication"),
        seen: seen.join(", "),
        breaks,
    }
}

/// `backend` answered again within `limit_s` after `returned_unix_s`, counted to the end of the
/// slot of `slot_s` in which the answer lies.
pub(crate) fn back_within(
    id: &'static str,
    report: &Report,
    backend: &str,
    returned_unix_s: f64,
    slot_s: f64,
    limit_s: f64,
    breaks: &'static str,
) -> Check {
    let answered = |slot: &&Slot| {
        slot.unix_s + slot_s > returned_unix_s
            && slot.by_backend.get(backend).is_some_and(|calls| *calls > 0)
    };
    let back =
        report.slots.iter().find(answered).map(|slot| slot.unix_s + slot_s - returned_unix_s);
    Check {
        id,
        holds: back.is_some_and(|after| after <= limit_s),
        expected: format!("{backend} serves again within {limit_s} s of its return"),
        seen: match back {
            Some(after) => format!("after {after:.2} s (to the end of a slot of {slot_s} s)"),
            None => "never".to_owned(),
        },
        breaks,
    }
}

/// A pod from its publication to its deletion.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// Its address as replies name it.
    pub(crate) name: String,
    /// When it was published.
    pub(crate) from: f64,
    /// When its deletion, or the end of the phase, began.
    pub(crate) until: f64,
}

/// Each of `lives` answered calls, in slots of `slot_s` that lie wholly in it.
pub(crate) fn each_served(
    id: &'static str,
    report: &Report,
    slot_s: f64,
    lives: &[Life],
    breaks: &'static str,
) -> Check {
    let calls = |life: &Life| -> u64 {
        let within = |slot: &&Slot| slot.unix_s >= life.from && slot.unix_s + slot_s <= life.until;
        let slots = report.slots.iter().filter(within);
        slots.filter_map(|slot| slot.by_backend.get(&life.name)).sum()
    };
    let counts: Vec<u64> = lives.iter().map(calls).collect();
    let idle = lives.iter().zip(&counts).filter(|(_, calls)| **calls == 0).map(|(life, _)| life);
    let mut seen = format!("{} did", counts.iter().filter(|calls| **calls > 0).count());
    match (counts.iter().min(), idle.clone().next()) {
        (_, Some(life)) => write!(seen, "; not {}", life.name),
        (Some(least), None) => write!(seen, ", {least} calls or more each"),
        (None, None) => write!(seen, "; there was none"),
    }
    .expect("a String takes it");
    Check {
        id,
        holds: !lives.is_empty() && idle.count() == 0,
        expected: format!("each of {} new pods serves before it goes in its turn", lives.len()),
        seen,
        breaks,
    }
}

/// Every pod of `old` is out of use and every one of `new` in use.
pub(crate) fn replaced(
    id: &'static str,
    report: &Report,
    old: &[(String, Deleted)],
    new: &[String],
    breaks: &'static str,
) -> Check {
    let last = |name: &String| report.by_backend.get(name).map_or(0.0, |of| of.last_unix_s);
    let late =
        old.iter().filter(|(name, deleted)| last(name) > deleted.gone_unix_s + READ_LATE_S).count();
    let end = report.started_unix_s + report.wall_s;
    // In the last second each of three backends has hundreds of turns.
    let serving = new.iter().filter(|name| last(name) > end - 1.0).count();
    Check {
        id,
        holds: late == 0 && serving == new.len() && !new.is_empty(),
        expected: format!("all {} new pods serve at the end, no old one after its end", new.len()),
        seen: format!("{serving} new pods serve at the end, {late} old ones answered too late"),
        breaks,
    }
}

/// Every deleted pod ended with status 0, which a greeter does only when it drained in its grace.
pub(crate) fn drained_cleanly(
    id: &'static str,
    deleted: &[(String, Deleted)],
    breaks: &'static str,
) -> Check {
    let clean = deleted.iter().filter(|(_, deleted)| deleted.clean).count();
    Check {
        id,
        holds: !deleted.is_empty() && clean == deleted.len(),
        expected: format!("all {} pods drain and exit 0", deleted.len()),
        seen: format!("{clean} did"),
        breaks,
    }
}
