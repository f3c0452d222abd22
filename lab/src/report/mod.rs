//! What a run found, as one document: the JSON output is this structure (keys in lab/README.md),
//! and the text output is printed from it, so that neither can say what the other does not know.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    checks::Check,
    client::{Latency, Report, Slot},
    examples::Example,
    spans::SpanFigures,
};

pub(crate) mod json;
mod over_time;
pub(crate) mod page;
mod score;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod timeline;

use over_time::OverTime;
use score::Score;
pub(crate) use timeline::Timeline;

/// Changes when a key is renamed, removed, or changes its meaning; not when one is added.
pub(crate) const SCHEMA: &str = "evenkeel-lab/1";

/// A whole run.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RunReport {
    pub(crate) schema: &'static str,
    pub(crate) version: &'static str,
    pub(crate) started_unix_s: f64,
    pub(crate) wall_s: f64,
    pub(crate) cpus: usize,
    pub(crate) holds: bool,
    pub(crate) examples: Vec<ExampleReport>,
    /// Examples that this machine lacks something for. They have not passed: nothing was checked.
    pub(crate) not_run: Vec<NotRun>,
}

/// An example that was chosen and could not be run.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct NotRun {
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) why: String,
}

/// One example.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ExampleReport {
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) control_plane: &'static str,
    pub(crate) policy: &'static str,
    pub(crate) real: &'static [&'static str],
    pub(crate) doubles: &'static [&'static str],
    pub(crate) picture: &'static str,
    pub(crate) holds: bool,
    pub(crate) score: Score,
    pub(crate) phases_not_run: Vec<&'static str>,
    /// Checks that could not be made of the phases that ran. They have not passed.
    pub(crate) checks_not_run: Vec<NotChecked>,
    pub(crate) phases: Vec<PhaseReport>,
}

/// A check that was not made, and why.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct NotChecked {
    pub(crate) id: &'static str,
    pub(crate) why: &'static str,
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PhaseReport {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The client's command line, as far as it differs from the defaults.
    pub(crate) client_flags: Vec<String>,
    /// The greeters' environment, likewise.
    pub(crate) greeter_env: BTreeMap<&'static str, String>,
    pub(crate) lines: Vec<String>,
    pub(crate) client: ClientFigures,
    /// Who answered when; not of a phase that makes its calls itself.
    pub(crate) over_time: Option<OverTime>,
    /// What the lab did, and saw, meanwhile.
    pub(crate) marks: Vec<Mark>,
    /// By role: `client`, `sidecar`, `server sidecars`, `balancer`, `greeters`. Only what ran from
    /// the client's start to its end.
    pub(crate) processes: BTreeMap<&'static str, ProcessCost>,
    pub(crate) distributions: Vec<Distribution>,
    pub(crate) figures: BTreeMap<&'static str, f64>,
    pub(crate) timelines: Vec<Timeline>,
    pub(crate) checks: Vec<Check>,
    /// What the spans say, of a phase that was traced.
    pub(crate) spans: Option<SpanFigures>,
}

/// Something that happened, with the lab's own words.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Mark {
    pub(crate) unix_s: f64,
    pub(crate) what: String,
}

/// What the processes of one role cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ProcessCost {
    pub(crate) count: usize,
    /// Of all of them together. `None` without calls.
    pub(crate) cpu_ms_per_1000_calls: Option<f64>,
    /// The same, resident at the end; of the client the most it had.
    pub(crate) rss_mib: Option<f64>,
}

/// The client's totals.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ClientFigures {
    pub(crate) wall_s: f64,
    pub(crate) calls: u64,
    pub(crate) ok: u64,
    pub(crate) fail: u64,
    pub(crate) shed: u64,
    pub(crate) rate: f64,
    pub(crate) by_code: BTreeMap<String, u64>,
    pub(crate) latency_ms: Latency,
    pub(crate) streams_open_at_eof: BTreeMap<String, u64>,
    pub(crate) transparent_retries: u64,
    pub(crate) cpu_s: f64,
}

/// Who answered how many calls, over the phase or a part of it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Distribution {
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
}

/// One backend; the latencies are `None` for a part of a phase.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Row {
    pub(crate) backend: String,
    pub(crate) calls: u64,
    pub(crate) share: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
}

impl NotRun {
    pub(crate) fn new(example: &Example, why: &str) -> Self {
        Self { number: example.number, name: example.name, why: why.to_owned() }
    }
}

impl ExampleReport {
    pub(crate) fn new(example: &Example, phases: Vec<PhaseReport>) -> Self {
        let ran = |name: &str| phases.iter().any(|phase| phase.name == name);
        let not_run = example.phases.iter().map(|phase| phase.name).filter(|name| !ran(name));
        Self {
            number: example.number,
            name: example.name,
            title: example.title,
            control_plane: example.control_plane,
            policy: example.policy,
            real: example.real,
            doubles: example.doubles,
            picture: example.picture,
            holds: phases.iter().all(PhaseReport::holds),
            score: Score::of(&phases),
            phases_not_run: not_run.collect(),
            checks_not_run: Vec::new(),
            phases,
        }
    }
}

impl PhaseReport {
    /// A report with the client's totals and nothing else yet.
    pub(crate) fn new(name: &'static str, what: &'static str, report: &Report) -> Self {
        Self {
            name,
            what,
            client_flags: Vec::new(),
            greeter_env: BTreeMap::new(),
            lines: Vec::new(),
            client: ClientFigures {
                wall_s: report.wall_s,
                calls: report.calls,
                ok: report.ok,
                fail: report.fail,
                shed: report.shed,
                rate: report.rate,
                by_code: report.by_code.clone(),
                latency_ms: report.latency_ms,
                streams_open_at_eof: report.streams_open_at_eof.clone(),
                transparent_retries: report.transparent_retries,
                cpu_s: report.cpu_s,
            },
            over_time: OverTime::of(report),
            marks: Vec::new(),
            processes: processes(report),
            distributions: Vec::new(),
            figures: BTreeMap::new(),
            timelines: Vec::new(),
            checks: Vec::new(),
            spans: None,
        }
    }

    /// Whether every check holds. A phase without checks has shown nothing.
    pub(crate) fn holds(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.holds)
    }

    /// Notes how client and greeters were set.
    pub(crate) fn set(mut self, flags: &[&str], env: &[(&'static str, &str)]) -> Self {
        self.client_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.greeter_env = env.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        self
    }
}

/// What `report` cost, the client itself among it.
fn processes(report: &Report) -> BTreeMap<&'static str, ProcessCost> {
    let cost = |count, cpu_s: f64, rss_kib: Option<u64>| ProcessCost {
        count,
        cpu_ms_per_1000_calls: (report.ok > 0).then(|| cpu_s * 1e6 / report.ok as f64),
        rss_mib: rss_kib.map(|kib| kib as f64 / 1024.0),
    };
    let others = report.costs.iter();
    let mut all: BTreeMap<_, _> =
        others.map(|(role, of)| (*role, cost(of.count, of.cpu_s, Some(of.rss_kib)))).collect();
    if report.calls > 0 {
        all.insert("client", cost(1, report.cpu_s, report.rss_max_kib));
    }
    all
}

impl Distribution {
    /// Over the whole report.
    pub(crate) fn whole(title: &str, report: &Report) -> Self {
        let rows = report.by_backend.iter().map(|(backend, figures)| Row {
            backend: backend.clone(),
            calls: figures.calls,
            share: figures.share,
            p50_ms: figures.p50_ms,
            p99_ms: figures.p99_ms,
            max_ms: figures.max_ms,
        });
        Self { title: title.to_owned(), rows: rows.collect() }
    }

    /// Over the slots, `slot_s` long, that lie wholly between two moments.
    pub(crate) fn between(title: &str, slots: &[Slot], slot_s: f64, from: f64, to: f64) -> Self {
        let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
        for slot in slots.iter().filter(|slot| slot.unix_s >= from && slot.unix_s + slot_s <= to) {
            for (backend, count) in &slot.by_backend {
                *calls.entry(backend).or_default() += count;
            }
        }
        let all: u64 = calls.values().sum();
        let rows = calls.into_iter().filter(|(_, calls)| *calls > 0).map(|(backend, calls)| Row {
            backend: backend.to_owned(),
            calls,
            share: calls as f64 / all as f64,
            p50_ms: None,
            p99_ms: None,
            max_ms: None,
        });
        Self { title: title.to_owned(), rows: rows.collect() }
    }
}
