//! Metrics of channels and servers by gRPC's names (gRFC A66, A78, A94, A96) and ours beside them.
//! Channel and server tell a meter and a recorder; what they count here is read by whoever sends or
//! shows it. OpenTelemetry's API for meters is not used: each value would go through a set of
//! attributes that is made and hashed for it, with locks behind; here it is an index and an
//! addition (docs/adr/0035).

mod cells;
mod channel;
mod client;
mod family;
mod instruments;
mod methods;
mod otlp;
mod prometheus;
mod server;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

pub use cells::Distribution;
pub use family::{Family, Point, Value};
pub use instruments::{INSTRUMENTS, Instrument, Kind};
pub use prometheus::CONTENT_TYPE;

pub(crate) use channel::ChannelRecorder;
pub(crate) use client::Client;
use family::Families;
use methods::{OTHER, Room, STATUS_SETS_MAX};
pub(crate) use server::Servers;

use crate::{
    export::SpanCounts,
    otlp::{ExportMetricsServiceRequest, Resource},
};

/// Targets that have numbers of their own; channels to further ones are counted as one more.
const TARGETS_MAX: usize = 64;
/// Sources of other metrics.
const SOURCES_MAX: usize = 64;

/// What others count, when it is asked for.
type Source = Box<dyn Fn(&mut Vec<Family>) + Send + Sync>;
/// What became of the spans, when it is asked for.
type Spans = Box<dyn Fn() -> SpanCounts + Send + Sync>;

/// Everything that is counted in the process.
pub(crate) struct Metrics {
    since: SystemTime,
    resource: Resource,
    room: Arc<Room>,
    clients: Mutex<Vec<Arc<Client>>>,
    servers: Arc<Servers>,
    sources: Mutex<Vec<Source>>,
    spans: Option<Spans>,
}

impl Metrics {
    pub(crate) fn new(resource: Resource, spans: Option<Spans>) -> Self {
        let room = Arc::new(Room::new(STATUS_SETS_MAX));
        Self {
            since: SystemTime::now(),
            resource,
            servers: Arc::new(Servers::new(room.clone())),
            room,
            clients: Mutex::default(),
            sources: Mutex::default(),
            spans,
        }
    }

    /// What channels to this target count in.
    pub(crate) fn client(&self, target: &str) -> Arc<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let target = if clients.len() < TARGETS_MAX { target } else { OTHER };
        if let Some(known) = clients.iter().find(|client| &*client.target == target) {
            return known.clone();
        }
        let client = Arc::new(Client::new(target, self.room.clone()));
        clients.push(client.clone());
        client
    }

    /// What servers count in.
    pub(crate) fn servers(&self) -> &Arc<Servers> {
        &self.servers
    }

    /// Asks this as well, from now on.
    pub(crate) fn add_source(&self, source: Source) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() < SOURCES_MAX {
            sources.push(source);
        }
    }

    /// Our own metrics.
    fn own(&self) -> Vec<Family> {
        let mut families = Families::new();
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for client in clients {
            client.collect(&mut families);
        }
        self.servers.collect(&mut families);
        if let Some(spans) = &self.spans {
            let SpanCounts { sent, dropped, .. } = spans();
            for (state, count) in [("sent", sent), ("dropped", dropped)] {
                families.count(&instruments::SPANS, &[("state", state)], count);
            }
        }
        families.into_families()
    }

    /// Our own metrics as text for Prometheus; the sources have pages of their own.
    pub(crate) fn own_page(&self) -> String {
        prometheus::page(&self.own(), &self.resource)
    }

    /// All metrics as text for Prometheus.
    pub(crate) fn page(&self) -> String {
        prometheus::page(&self.collect(), &self.resource)
    }

    /// All metrics as OTLP.
    pub(crate) fn request(&self) -> ExportMetricsServiceRequest {
        let span = otlp::Span { since: self.since, until: SystemTime::now() };
        otlp::request(self.collect(), &self.resource, span)
    }

    fn collect(&self) -> Vec<Family> {
        let mut families = self.own();
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for source in &*sources {
            source(&mut families);
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use evenkeel::CallMeter as _;

    use super::*;

    #[test]
    fn channels_with_one_target_count_in_one_place_and_too_many_targets_in_another() {
        let metrics = Metrics::new(Resource::default(), None);
        assert!(Arc::ptr_eq(&metrics.client("dns:///a"), &metrics.client("dns:///a")));
        for k in 0..2 * TARGETS_MAX {
            let client = metrics.client(&format!("dns:///{k}"));
            client.attempt_started(client.call_started("/s/m"));
        }
        let families = metrics.collect();
        let started = families.iter().find(|family| family.name == "grpc.client.attempt.started");
        let points = &started.expect("counted").points;
        // The first of the 64 has no calls.
        assert_eq!(points.len(), TARGETS_MAX);
        let last = points.last().expect("many");
        assert_eq!(last.labels[1], ("grpc.target".into(), OTHER.into()));
        assert_eq!(last.value, Value::Whole(TARGETS_MAX as i64 + 1));
    }

    #[test]
    fn the_readme_has_every_metric_with_its_unit_and_no_other() {
        let readme = include_str!("../../README.md");
        let rows = readme.lines().filter(|line| {
            line.contains(" | counter | ")
                || line.contains(" | histogram | ")
                || line.contains(" | up and down | ")
        });
        let cells = |row: &str| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            (cells[1].clone(), cells[2].clone(), cells[3].clone())
        };
        let known: Vec<_> = rows.map(cells).collect();
        let kind = |kind| match kind {
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Gauge | Kind::UpDownCounter => "up and down",
        };
        let all = INSTRUMENTS.iter();
        let all = all.map(|i| (i.name.to_owned(), kind(i.kind).to_owned(), i.unit.to_owned()));
        assert_eq!(known, all.collect::<Vec<_>>());
    }
}
