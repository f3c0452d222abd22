//! From spans to figures. A trace is one call with everything that became of it, so all is computed
//! trace by trace: who sent it, where its attempts went, which greeter had it, who answered.

use std::collections::BTreeMap;

use evenkeel::core::Code;
use serde::Serialize;

use super::{
    example::Trace,
    ledger::Ledger,
    record::{Kind, Record},
};

/// Columns of a picture over time.
const SLOTS_MAX: usize = 60;
/// The shortest slot; longer ones are multiples of it.
const SLOT_NS: u64 = 100_000_000;

/// What the spans of a phase say of the clients' calls.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SpanFigures {
    /// Spans that the lab got, from everybody.
    pub(crate) received: u64,
    /// The same by what the process calls itself.
    pub(crate) by_process: BTreeMap<String, u64>,
    /// `Sent.` spans.
    pub(crate) calls: u64,
    pub(crate) ok: u64,
    /// Those that failed, by code.
    pub(crate) by_code: BTreeMap<String, u64>,
    /// Calls without an attempt: dropped, or given up while they waited for a pick.
    pub(crate) unsent: u64,
    pub(crate) attempts: AttemptKinds,
    /// Attempts by the policy that picked, and what Envoys sent.
    pub(crate) picks: BTreeMap<String, u64>,
    pub(crate) queued: Queued,
    pub(crate) backends: Vec<BackendSpans>,
    pub(crate) over_time: SpansOverTime,
    /// The call that took the median time.
    pub(crate) trace_example: Option<Trace>,
    /// The first call that failed after it was sent somewhere, or else the first that failed.
    pub(crate) trace_failed: Option<Trace>,
}

/// Attempts by why they were made.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct AttemptKinds {
    /// Each call's first, and what was picked anew before it was sent.
    pub(crate) first: u64,
    /// By the retry policy of the service config.
    pub(crate) retries: u64,
    /// Sent again because no server had processed the one before.
    pub(crate) transparent: u64,
    /// What an Envoy beside the client sent again.
    pub(crate) envoy_retries: u64,
}

/// Attempts that waited for a pick.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Queued {
    pub(crate) attempts: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
}

/// One backend by its own spans.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct BackendSpans {
    pub(crate) backend: String,
    /// `Recv.` spans, the clients' retries among them.
    pub(crate) calls: u64,
    pub(crate) first_unix_s: f64,
    pub(crate) last_unix_s: f64,
    /// From its publication to the first call that reached it, of one that was published while
    /// calls were made: what the control plane and the client needed.
    pub(crate) first_call_s: Option<f64>,
}

/// Calls that reached each backend, slot by slot.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SpansOverTime {
    pub(crate) started_unix_s: f64,
    pub(crate) slot_s: f64,
    pub(crate) rows: Vec<TimeRow>,
    /// Calls that failed.
    pub(crate) fail: Vec<u64>,
}

/// One backend.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct TimeRow {
    pub(crate) backend: String,
    pub(crate) calls: Vec<u64>,
}

/// What the spans say of one client, to be held against what it says itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) sent: u64,
    pub(super) ok: u64,
    pub(super) attempts: u64,
    pub(super) transparent: u64,
    pub(super) received: u64,
    /// Answered calls by the backend that answered.
    pub(super) by_backend: BTreeMap<String, u64>,
}

/// Answered calls with what crosses from the client to the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Chains {
    pub(super) whole: u64,
    /// The call's answer is there and a link is not.
    pub(super) broken: u64,
    pub(super) first_broken: Option<String>,
    /// Spans of the longest one that is whole.
    pub(super) links: usize,
}

/// Figures, and what only checks need.
pub(super) struct Found {
    pub(super) figures: SpanFigures,
    pub(super) clients: BTreeMap<String, Seen>,
    /// Traces without their beginning.
    pub(super) rootless: u64,
    pub(super) chains: Chains,
}

/// The work on one ledger.
struct Work<'a> {
    ledger: &'a Ledger,
    clients: BTreeMap<String, Seen>,
    rootless: u64,
    chains: Chains,
    by_code: BTreeMap<String, u64>,
    unsent: u64,
    attempts: AttemptKinds,
    picks: BTreeMap<String, u64>,
    queued_us: Vec<u32>,
    /// When calls reached each backend.
    reached: BTreeMap<String, Vec<u64>>,
    failed: Vec<u64>,
    /// Answered calls: how long, and which.
    took: Vec<(u64, u128)>,
    failures: Vec<(bool, u64, u128)>,
    first_ns: u64,
    last_ns: u64,
}

impl Found {
    pub(super) fn of(ledger: &Ledger) -> Self {
        let mut order: Vec<&Record> = ledger.records.iter().collect();
        order.sort_unstable_by_key(|record| (record.trace, record.start_ns));
        let mut work = Work::new(ledger);
        for trace in order.chunk_by(|a, b| a.trace == b.trace) {
            work.trace(trace);
        }
        work.finish(&order)
    }
}

impl<'a> Work<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        Self {
            ledger,
            clients: BTreeMap::new(),
            rootless: 0,
            chains: Chains::default(),
            by_code: BTreeMap::new(),
            unsent: 0,
            attempts: AttemptKinds::default(),
            picks: BTreeMap::new(),
            queued_us: Vec::new(),
            reached: BTreeMap::new(),
            failed: Vec::new(),
            took: Vec::new(),
            failures: Vec::new(),
            first_ns: u64::MAX,
            last_ns: 0,
        }
    }

    fn trace(&mut self, trace: &[&Record]) {
        let Some(sent) = trace.iter().find(|record| record.kind == Kind::Sent) else {
            // A call of the lab's own, a health check, a stream; or a call whose span is lost.
            self.rootless += u64::from(trace.iter().all(|record| record.parent != 0));
            return;
        };
        let (_, client) = self.ledger.who(sent);
        // Clients without a report are those that print lines.
        if !self.ledger.clients.contains_key(client) {
            return;
        }
        let client = client.to_owned();
        self.first_ns = self.first_ns.min(sent.start_ns);
        self.last_ns = self.last_ns.max(sent.end_ns);
        self.attempts(trace);
        let received: Vec<&Record> =
            trace.iter().filter(|record| record.kind == Kind::Received).copied().collect();
        for record in &received {
            let (_, backend) = self.ledger.who(record);
            self.reached.entry(backend.to_owned()).or_default().push(record.start_ns);
        }
        let attempts = || trace.iter().filter(|record| record.kind == Kind::Attempt);
        let transparent = attempts().filter(|record| record.is_transparent).count();
        let attempts = attempts().count();
        self.unsent += u64::from(attempts == 0);
        let seen = self.clients.entry(client).or_default();
        seen.sent += 1;
        seen.attempts += attempts as u64;
        seen.transparent += transparent as u64;
        seen.received += received.len() as u64;
        if !sent.is_ok() {
            *self.by_code.entry(code_name(sent.code)).or_default() += 1;
            self.failed.push(sent.end_ns);
            self.failures.push((attempts == 0, sent.start_ns, sent.trace));
            return;
        }
        seen.ok += 1;
        self.took.push((sent.end_ns - sent.start_ns, sent.trace));
        // The last one that is OK: a proxy may have sent it again.
        if let Some(answered) = received.iter().rfind(|record| record.is_ok()) {
            let (_, backend) = self.ledger.who(answered);
            *seen.by_backend.entry(backend.to_owned()).or_default() += 1;
            self.chain(trace, answered, sent);
        }
    }

    fn attempts(&mut self, trace: &[&Record]) {
        let by_envoy = trace.iter().filter(|record| record.kind == Kind::EgressOut).count() as u64;
        if by_envoy > 0 {
            *self.picks.entry("envoy".to_owned()).or_default() += by_envoy;
            self.attempts.envoy_retries += by_envoy - 1;
        }
        for record in trace {
            if record.kind != Kind::Attempt {
                continue;
            }
            let kind = if record.is_transparent {
                &mut self.attempts.transparent
            } else if record.retries > 0 {
                &mut self.attempts.retries
            } else {
                &mut self.attempts.first
            };
            *kind += 1;
            let policy = self.ledger.texts.get(record.policy);
            *self.picks.entry(policy.to_owned()).or_default() += 1;
            if record.queued_us > 0 {
                self.queued_us.push(record.queued_us);
            }
        }
    }

    /// From the server's span back to the client's, by the ids of parents.
    fn chain(&mut self, trace: &[&Record], answered: &Record, sent: &Record) {
        let mut links = vec![answered.kind];
        let mut at = answered;
        while at.id != sent.id && links.len() <= trace.len() {
            let Some(parent) = trace.iter().find(|record| record.id == at.parent) else { break };
            at = parent;
            links.push(at.kind);
        }
        let is_whole = self.ledger.chain().iter().rev().eq(links.iter());
        if is_whole {
            self.chains.whole += 1;
            self.chains.links = self.chains.links.max(links.len());
            return;
        }
        self.chains.broken += 1;
        let said = || format!("{:032x}: {links:?}", sent.trace);
        self.chains.first_broken.get_or_insert_with(said);
    }

    fn finish(mut self, order: &[&Record]) -> Found {
        let example = |trace: u128| {
            let from = order.partition_point(|record| record.trace < trace);
            let to = order.partition_point(|record| record.trace <= trace);
            Trace::of(self.ledger, &order[from..to])
        };
        self.took.sort_unstable();
        self.failures.sort_unstable();
        let trace_example = self.took.get(self.took.len() / 2).map(|(_, trace)| example(*trace));
        let trace_failed = self.failures.first().map(|(.., trace)| example(*trace));
        self.queued_us.sort_unstable();
        let ms = |us: &u32| f64::from(*us) / 1e3;
        let queued = Queued {
            attempts: self.queued_us.len() as u64,
            p50_ms: self.queued_us.get(self.queued_us.len() / 2).map(ms),
            max_ms: self.queued_us.last().map(ms),
        };
        let mut by_process: BTreeMap<String, u64> = BTreeMap::new();
        for process in &self.ledger.processes {
            let service = self.ledger.texts.get(process.service);
            *by_process.entry(service.to_owned()).or_default() += process.spans;
        }
        let figures = SpanFigures {
            received: self.ledger.records.len() as u64,
            by_process,
            calls: self.clients.values().map(|seen| seen.sent).sum(),
            ok: self.clients.values().map(|seen| seen.ok).sum(),
            over_time: self.over_time(),
            backends: self.backends(),
            by_code: self.by_code,
            unsent: self.unsent,
            attempts: self.attempts,
            picks: self.picks,
            queued,
            trace_example,
            trace_failed,
        };
        let Self { clients, rootless, chains, .. } = self;
        Found { figures, clients, rootless, chains }
    }

    fn backends(&self) -> Vec<BackendSpans> {
        let first_s = seconds(self.first_ns);
        let of = |(backend, times): (&String, &Vec<u64>)| {
            let published = self.ledger.published.get(backend).filter(|at| **at > first_s);
            let since = |published: &f64| {
                let calls = times.iter().map(|at| seconds(*at) - published);
                calls.filter(|wait| *wait >= 0.0).reduce(f64::min)
            };
            BackendSpans {
                backend: backend.clone(),
                calls: times.len() as u64,
                first_unix_s: times.iter().min().map_or(0.0, |at| seconds(*at)),
                last_unix_s: times.iter().max().map_or(0.0, |at| seconds(*at)),
                first_call_s: published.and_then(since),
            }
        };
        self.reached.iter().map(of).collect()
    }

    fn over_time(&self) -> SpansOverTime {
        let whole_ns = self.last_ns.saturating_sub(self.first_ns) + 1;
        let slot_ns = whole_ns.div_ceil(SLOTS_MAX as u64).next_multiple_of(SLOT_NS);
        let slots = usize::try_from(whole_ns.div_ceil(slot_ns)).unwrap_or(SLOTS_MAX);
        let counted = |times: &Vec<u64>| {
            let mut counts = vec![0; slots];
            for at in times {
                let slot = at.saturating_sub(self.first_ns) / slot_ns;
                // One that a backend got when its caller had given up is in the last.
                let slot = usize::try_from(slot).unwrap_or(slots).min(slots - 1);
                counts[slot] += 1;
            }
            counts
        };
        let row = |(backend, times): (&String, &Vec<u64>)| TimeRow {
            backend: backend.clone(),
            calls: counted(times),
        };
        SpansOverTime {
            started_unix_s: seconds(self.first_ns.min(self.last_ns)),
            slot_s: seconds(slot_ns),
            rows: self.reached.iter().map(row).collect(),
            fail: counted(&self.failed),
        }
    }
}

impl Ledger {
    /// The kinds of spans from a client's call to the server's, one below the other.
    fn chain(&self) -> &'static [Kind] {
        use Kind::{Attempt, EgressIn, EgressOut, IngressIn, IngressOut, Received, Sent};
        match (self.expects(super::ledger::EGRESS), self.expects(super::ledger::INGRESS)) {
            (true, true) => &[Sent, Attempt, EgressIn, EgressOut, IngressIn, IngressOut, Received],
            (true, false) => &[Sent, Attempt, EgressIn, EgressOut, Received],
            _ => &[Sent, Attempt, Received],
        }
    }
}

pub(super) fn code_name(code: Option<u8>) -> String {
    let known = code.and_then(|code| Code::ALL.get(usize::from(code)));
    known.map_or_else(|| "no status".to_owned(), |known| known.name().to_owned())
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
