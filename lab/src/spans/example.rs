//! One trace as a picture needs it: its spans in the order of a tree, with times from its
//! beginning.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    figures::code_name,
    ledger::Ledger,
    record::{Kind, Record},
    texts::Text,
};

/// Spans of a trace that are shown; a call that is sent again and again has some dozens.
const SPANS_MAX: usize = 64;

/// See the module's head.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Trace {
    pub(crate) trace_id: String,
    pub(crate) started_unix_s: f64,
    pub(crate) wall_ms: f64,
    pub(crate) spans: Vec<SpanRow>,
}

/// One span.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SpanRow {
    pub(crate) span_id: String,
    /// How many spans are above it.
    pub(crate) depth: usize,
    pub(crate) span: String,
    /// What the process calls itself, and which one it is.
    pub(crate) process: String,
    pub(crate) instance: String,
    pub(crate) start_ms: f64,
    pub(crate) wall_ms: f64,
    pub(crate) status: String,
    pub(crate) attributes: BTreeMap<&'static str, String>,
    pub(crate) events: Vec<EventRow>,
}

/// What happened meanwhile.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EventRow {
    pub(crate) at_ms: f64,
    pub(crate) event: String,
}

impl Trace {
    /// The trace whose spans these are, by their beginnings.
    pub(super) fn of(ledger: &Ledger, spans: &[&Record]) -> Self {
        let start_ns = spans.iter().map(|record| record.start_ns).min().unwrap_or_default();
        let end_ns = spans.iter().map(|record| record.end_ns).max().unwrap_or_default();
        let mut rows = Vec::new();
        let is_root = |record: &&&Record| !spans.iter().any(|other| other.id == record.parent);
        // The next to be shown is the last.
        let mut waiting: Vec<(usize, &Record)> =
            spans.iter().filter(is_root).rev().map(|record| (0, *record)).collect();
        while let Some((depth, record)) = waiting.pop() {
            if rows.len() == spans.len().min(SPANS_MAX) {
                break;
            }
            rows.push(row(ledger, record, depth, start_ns));
            let children = spans.iter().filter(|other| other.parent == record.id);
            waiting.extend(children.rev().map(|child| (depth + 1, *child)));
        }
        Self {
            trace_id: format!("{:032x}", spans.first().map_or(0, |record| record.trace)),
            started_unix_s: start_ns as f64 / 1e9,
            wall_ms: ms(end_ns - start_ns),
            spans: rows,
        }
    }
}

fn row(ledger: &Ledger, record: &Record, depth: usize, start_ns: u64) -> SpanRow {
    let (process, instance) = ledger.who(record);
    let text = |text: Text| ledger.texts.get(text).to_owned();
    let mut attributes = BTreeMap::new();
    for (key, value) in
        [("to", record.peer), ("policy", record.policy), ("pod", record.pod), ("zone", record.zone)]
    {
        if !value.is_empty() {
            attributes.insert(key, text(value));
        }
    }
    if record.queued_us > 0 {
        let waited_ms = f64::from(record.queued_us) / 1e3;
        attributes.insert("queued_ms", format!("{waited_ms:.3}"));
    }
    if record.is_transparent {
        attributes.insert("kind", "transparent retry".to_owned());
    } else if record.retries > 0 {
        attributes.insert("kind", format!("retry {}", record.retries));
    }
    let event = |(at, name): &(u64, Text)| EventRow {
        at_ms: ms(at.saturating_sub(start_ns)),
        event: text(*name),
    };
    SpanRow {
        span_id: format!("{:016x}", record.id),
        depth,
        span: text(record.name),
        process: process.to_owned(),
        instance: instance.to_owned(),
        start_ms: ms(record.start_ns.saturating_sub(start_ns)),
        wall_ms: ms(record.end_ns - record.start_ns),
        status: status(ledger, record),
        attributes,
        events: record.events.iter().map(event).collect(),
    }
}

/// The code's name, or else why there is none.
fn status(ledger: &Ledger, record: &Record) -> String {
    match (record.code, record.problem) {
        (Some(code), _) => code_name(Some(code)),
        (None, problem) if !problem.is_empty() => ledger.texts.get(problem).to_owned(),
        (None, _) if record.kind == Kind::Other => "ended".to_owned(),
        (None, _) => code_name(None),
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}
