//! What a receiver has got: the spans of one phase, up to a limit, and how many answered calls are
//! not whole yet. The latter is counted as spans come, because the lab waits for it at the end of
//! each client: what is lost shows as that wait's end and not as its beginning.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use evenkeel_telemetry::otlp::{ExportTraceServiceRequest, KeyValue, Resource, Value};

use super::{
    record::{Kind, Record},
    texts::{Text, Texts},
    told::Told,
};

/// What the spans of one phase may weigh. Twelve minutes at 1,000 calls a second.
const BYTES_MAX: usize = 256 << 20;
/// The spans that are as much; more are refused and counted.
const SPANS_MAX: usize = BYTES_MAX / size_of::<Record>();
// What lab/README.md says a span weighs.
const _: () = assert!(size_of::<Record>() <= 120);
/// Processes of one phase.
const PROCESSES_MAX: usize = 1_024;

/// Bits of what a trace has.
pub(super) const SENT: u8 = 1;
pub(super) const ATTEMPT: u8 = 2;
pub(super) const EGRESS: u8 = 4;
pub(super) const INGRESS: u8 = 8;
pub(super) const RECEIVED: u8 = 16;
const ANSWERED: u8 = 128;

/// Who sent spans.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) service: Text,
    pub(super) instance: Text,
    pub(super) spans: u64,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) texts: Texts,
    pub(super) processes: Vec<Process>,
    pub(super) records: Vec<Record>,
    /// Spans for which there was no room.
    pub(super) refused: u64,
    /// Spans without ids.
    pub(super) malformed: u64,
    /// What each client counted itself, by its name.
    pub(super) clients: BTreeMap<String, Told>,
    /// Backends that were killed, as replies name them.
    pub(super) killed: BTreeSet<String>,
    /// When each backend was last published.
    pub(super) published: BTreeMap<String, f64>,
    /// Bits that an answered call has to have.
    expected: u8,
    traces: HashMap<u128, u8>,
    missing: usize,
    spans_max: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            texts: Texts::default(),
            processes: Vec::new(),
            records: Vec::new(),
            refused: 0,
            malformed: 0,
            clients: BTreeMap::new(),
            killed: BTreeSet::new(),
            published: BTreeMap::new(),
            expected: SENT | ATTEMPT | RECEIVED,
            traces: HashMap::new(),
            missing: 0,
            spans_max: SPANS_MAX,
        }
    }
}

impl Ledger {
    /// Takes what there is room for, and returns how many spans it refused.
    pub(super) fn take(&mut self, request: ExportTraceServiceRequest) -> u64 {
        let mut refused = 0;
        for of_process in request.resource_spans {
            let process = self.process(of_process.resource.as_ref());
            let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            for span in spans {
                let Some(process) = process.filter(|_| self.records.len() < self.spans_max) else {
                    refused += 1;
                    continue;
                };
                let known = &mut self.processes[usize::from(process)];
                known.spans += 1;
                let service = self.texts.get(known.service).to_owned();
                match Record::of(&span, (process, &service), &mut self.texts) {
                    Some(record) => self.add(record),
                    None => self.malformed += 1,
                }
            }
        }
        self.refused += refused;
        refused
    }

    fn add(&mut self, record: Record) {
        let bits = match record.kind {
            Kind::Sent if record.is_ok() => SENT | ANSWERED,
            Kind::Sent => SENT,
            Kind::Attempt => ATTEMPT,
            Kind::EgressOut => EGRESS,
            Kind::IngressOut => INGRESS,
            Kind::Received => RECEIVED,
            Kind::EgressIn | Kind::IngressIn | Kind::Other => 0,
        };
        if bits != 0 {
            let seen = self.traces.entry(record.trace).or_default();
            let before = is_missing(*seen, self.expected);
            *seen |= bits;
            self.missing += usize::from(is_missing(*seen, self.expected));
            self.missing -= usize::from(before);
        }
        self.records.push(record);
    }

    fn process(&mut self, resource: Option<&Resource>) -> Option<u16> {
        let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
        let service = text(attributes, "service.name").unwrap_or("?");
        let instance = text(attributes, "service.instance.id").unwrap_or_default();
        let (service, instance) = (self.texts.keep(service), self.texts.keep(instance));
        let known = |of: &Process| of.service == service && of.instance == instance;
        let place = self.processes.iter().position(known).or_else(|| {
            let is_room = self.processes.len() < PROCESSES_MAX;
            is_room.then(|| self.processes.push(Process { service, instance, spans: 0 }));
            is_room.then(|| self.processes.len() - 1)
        });
        place.and_then(|place| u16::try_from(place).ok())
    }

    /// From now on an answered call is whole only with `bits`, too.
    pub(super) fn expect(&mut self, bits: u8) {
        self.expected |= bits;
    }

    pub(super) fn expects(&self, bits: u8) -> bool {
        self.expected & bits == bits
    }

    /// Answered calls of which a span is not here.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// Whether nothing is missing of this call, as far as it is known to have been answered.
    pub(super) fn is_whole(&self, trace: u128) -> bool {
        self.traces.get(&trace).is_some_and(|bits| !is_missing(*bits, self.expected))
    }

    /// Forgets all other spans.
    pub(super) fn retain(&mut self, keep: impl Fn(&Record) -> bool) {
        self.records.retain(keep);
        let kept: HashSet<u128> = self.records.iter().map(|record| record.trace).collect();
        self.traces.retain(|trace, _| kept.contains(trace));
        let missing = self.traces.values().filter(|bits| is_missing(**bits, self.expected));
        self.missing = missing.count();
    }

    /// The process of `record`, by its name for itself and its own name.
    pub(super) fn who(&self, record: &Record) -> (&str, &str) {
        let process = &self.processes[usize::from(record.process)];
        (self.texts.get(process.service), self.texts.get(process.instance))
    }
}

/// An answered call without all of the bits that are expected.
fn is_missing(bits: u8, expected: u8) -> bool {
    bits & ANSWERED != 0 && bits & expected != expected
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
impl Ledger {
    /// One with less room.
    pub(super) fn of(spans_max: usize) -> Self {
        Self { spans_max, ..Self::default() }
    }
}
