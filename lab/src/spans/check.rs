//! Whether the spans tell what the client counted, to the last call.

use std::collections::BTreeSet;

use super::{QUEUE_MAX, figures::Found, figures::Seen, ledger::Ledger, told::Told};
use crate::checks::Check;

/// Problems that are told.
const PROBLEMS_MAX: usize = 4;

/// What a check says of itself.
#[derive(Clone, Copy)]
pub(super) struct Says {
    expected: &'static str,
    breaks: &'static str,
}

pub(super) const CALLS: Says = Says {
    expected: "a span of each call and attempt that the client counts, none dropped, and of each \
               answered call one at the greeter that the client names",
    breaks: "OTEL_BSP_MAX_QUEUE_SIZE=1 in the client: spans are dropped",
};
pub(super) const CHAIN: Says = Says {
    expected: "each answered call is one trace: client, every Envoy on its way, greeter, each \
               span below the one before",
    breaks: "no `tracing:` in what Envoy is given: its spans are not there",
};

/// Of one part of a phase.
pub(super) struct Verdict {
    holds: bool,
    seen: String,
}

/// One check of all parts.
pub(super) fn all(id: &'static str, says: Says, parts: Vec<Verdict>) -> Check {
    let seen: Vec<&str> = parts.iter().map(|part| part.seen.as_str()).collect();
    Check {
        id,
        holds: !parts.is_empty() && parts.iter().all(|part| part.holds),
        expected: says.expected.to_owned(),
        seen: seen.join("; then "),
        breaks: says.breaks,
    }
}

pub(super) fn spans_are_calls(ledger: &Ledger, found: &Found) -> Verdict {
    let mut problems = Vec::new();
    let (mut sent, mut attempts, mut received, mut lost) = (0, 0, 0, 0);
    let mut given_up = 0;
    // What explains the others comes first.
    for (count, what) in [
        (ledger.refused, "spans more than the lab keeps"),
        (ledger.malformed, "spans without ids"),
        (found.rootless, "traces without their beginning"),
    ] {
        if count > 0 {
            problems.push(format!("{count} {what}"));
        }
    }
    for (client, told) in &ledger.clients {
        let seen = found.clients.get(client).cloned().unwrap_or_default();
        counts(client, told, &seen, &mut problems);
        lost += backends(ledger, told, &seen, &mut problems);
        sent += seen.sent;
        attempts += seen.attempts;
        received += seen.received;
        given_up += told.given_up;
    }
    let mut seen = format!("{sent} Sent, {attempts} Attempt, {received} Recv, 0 dropped");
    if lost > 0 {
        let killed: Vec<&str> = ledger.killed.iter().map(String::as_str).collect();
        seen += &format!(", {lost} lost with {}, which was killed", killed.join(", "));
    }
    if given_up > 0 {
        seen += &format!(", {given_up} calls given up at the client's end");
    }
    if sent == 0 {
        problems.push("no call was made".to_owned());
    }
    if !problems.is_empty() {
        let more = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        seen = problems.join(", ");
        if more > 0 {
            seen += &format!(", and {more} more");
        }
    }
    Verdict { holds: problems.is_empty(), seen }
}

fn counts(client: &str, told: &Told, seen: &Seen, problems: &mut Vec<String>) {
    let Some(exported) = told.spans else {
        problems.push(format!("{client} made no spans"));
        return;
    };
    let (given_up, ended) = (told.given_up, exported.ended);
    let mut within = |what: &str, by_spans: u64, from: u64, to: u64| {
        if !(from..=to).contains(&by_spans) {
            let counted = if from == to { from.to_string() } else { format!("{from} to {to}") };
            problems.push(format!("{client}: {by_spans} {what} by spans, {counted} counted"));
        }
    };
    within("calls", seen.sent, told.calls.saturating_sub(given_up), told.calls);
    within("answered calls", seen.ok, told.ok, told.ok + given_up);
    if let Some(counted) = told.attempts {
        within("attempts", seen.attempts, counted.saturating_sub(given_up), counted);
    }
    if told.ok == told.calls {
        let counted = told.transparent_retries;
        within("transparent retries", seen.transparent, counted, counted);
    }
    within("spans", seen.sent + seen.attempts, ended, ended);
    let lost = ended.saturating_sub(exported.sent);
    if exported.dropped > 0 || lost > 0 {
        let dropped = exported.dropped;
        problems.push(format!("{client}: {lost} spans did not get through, {dropped} dropped"));
    }
}

/// Each answered call has its greeter's span, but for those that a process took with it.
fn backends(ledger: &Ledger, told: &Told, seen: &Seen, problems: &mut Vec<String>) -> u64 {
    let names: BTreeSet<&String> = told.by_backend.keys().chain(seen.by_backend.keys()).collect();
    let mut lost = 0;
    for name in names {
        let count = |of: &std::collections::BTreeMap<String, u64>| of.get(name).copied();
        let counted = count(&told.by_backend).unwrap_or_default();
        let by_spans = count(&seen.by_backend).unwrap_or_default();
        let missing = counted.saturating_sub(by_spans);
        let may_lose = ledger.killed.contains(name) && missing <= QUEUE_MAX;
        if by_spans > counted + told.given_up || (missing > 0 && !may_lose) {
            problems.push(format!("{name}: {by_spans} answered by spans, {counted} counted"));
        } else {
            lost += missing;
        }
    }
    lost
}

pub(super) fn one_trace(ledger: &Ledger, found: &Found) -> Verdict {
    let chains = &found.chains;
    let (whole, broken, ok) = (chains.whole, chains.broken, found.figures.ok);
    // Envoys before backends that were killed, as these, take with them what they had.
    let lost = ok.saturating_sub(whole);
    let may_lose = !ledger.killed.is_empty() && lost <= QUEUE_MAX;
    let mut seen = format!("{whole} of {ok} answered calls, {} spans each", chains.links);
    if let Some(first) = chains.first_broken.as_ref().filter(|_| broken > 0) {
        seen += &format!("; {broken} are broken, the first {first}");
    }
    Verdict { holds: whole > 0 && (lost == 0 || may_lose), seen }
}
