//! What the spans of a phase say. Every process of the phase sends its spans to a receiver of its
//! own stage, so that phases side by side stay apart; routing, retries and waiting calls are
//! computed from the spans alone, and then held against what the client counted: if tracing showed
//! a run otherwise than it was, no picture that is drawn from it would be of worth.

mod check;
mod example;
mod figures;
mod ids;
mod latest;
mod ledger;
mod receiver;
mod record;
mod text;
mod texts;
mod told;

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use evenkeel_telemetry::otlp::ExportTraceServiceRequest;
use tokio::{sync::watch, task::JoinSet, time::timeout};

pub(crate) use figures::SpanFigures;
pub(crate) use ids::LIVE;
pub(crate) use latest::Latest;
pub(crate) use record::{BALANCER, CLIENT, EGRESS, GREETER, INGRESS};
#[cfg(test)]
pub(crate) use tests::made_up;
pub(crate) use text::print;

use self::{ledger::Ledger, told::Told};
use crate::{client::Report, error::LabError, examples::Playing, report::PhaseReport, run::Run};

/// Spans wait for others for so long in each process. Short, because a process that is killed takes
/// with it what waits.
pub(crate) const DELAY_MS: u64 = 200;
/// Spans that may wait in a process: four seconds of 1,000 calls a second.
const QUEUE_MAX: u64 = 8_192;
/// How long the last spans of a phase may be on their way.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// The same when a process was killed, of which some never come.
const SETTLE_KILLED_LIMIT: Duration = Duration::from_millis(5 * DELAY_MS);

/// The spans of one stage.
pub(crate) struct Spans {
    shared: Arc<Shared>,
    phase: String,
    address: SocketAddr,
    _serving: JoinSet<()>,
}

/// What the receiver shares with who asks.
#[derive(Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    /// Requests so far.
    requests: watch::Sender<u64>,
}

impl Shared {
    fn take(&self, request: ExportTraceServiceRequest) -> u64 {
        let refused = self.lock().take(request);
        self.requests.send_modify(|count| *count += 1);
        refused
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Numbers and lists are whole after every step.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receivers of a run, until their phases are over.
#[derive(Default)]
pub(crate) struct Book(Mutex<Vec<Arc<Spans>>>);

impl Book {
    /// Starts a receiver for `phase`; `None` for one that is not traced.
    ///
    /// # Errors
    ///
    /// When it can't listen.
    pub(crate) async fn open(&self, phase: &str) -> Result<Option<Arc<Spans>>, LabError> {
        if ids::of(phase).is_none() && !ids::is_live(phase) {
            return Ok(None);
        }
        let spans = Arc::new(Spans::start(phase).await?);
        self.lock().push(spans.clone());
        Ok(Some(spans))
    }

    /// Those of `phase` and of its parts, which are over.
    fn close(&self, phase: &str) -> Vec<Arc<Spans>> {
        let mut open = self.lock();
        let (of_it, others) = open.drain(..).partition(|of| ids::belongs(&of.phase, phase));
        *open = others;
        of_it
    }

    /// Those of a show that is over are taken no more.
    pub(crate) fn forget(&self, phase: &str) {
        drop(self.close(phase));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Spans>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spans {
    async fn start(phase: &str) -> Result<Self, LabError> {
        let shared = Arc::new(Shared::default());
        let (serving, address) = receiver::start(shared.clone()).await?;
        Ok(Self { shared, phase: phase.to_owned(), address, _serving: serving })
    }

    /// Where spans are taken.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What makes a child of the lab trace all of its calls: OpenTelemetry's own variables.
    pub(crate) fn env(&self, service: &str, instance: &str) -> Vec<(&'static str, String)> {
        vec![
            // Of traces alone: the receiver takes no metrics.
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc".to_owned()),
            ("OTEL_TRACES_SAMPLER", "always_on".to_owned()),
            ("OTEL_SERVICE_NAME", service.to_owned()),
            ("OTEL_RESOURCE_ATTRIBUTES", format!("service.instance.id={instance}")),
            ("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS.to_string()),
            ("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_MAX.to_string()),
        ]
    }

    /// Envoys take part: `service` is [`EGRESS`] or [`INGRESS`].
    pub(crate) fn expect_envoy(&self, service: &str) {
        let bit = if service == EGRESS { ledger::EGRESS } else { ledger::INGRESS };
        self.shared.lock().expect(bit);
    }

    /// Backend `name` was killed: what it had not sent yet is lost.
    pub(crate) fn killed(&self, name: String) {
        self.shared.lock().killed.insert(name);
    }

    /// Backends `names` were published.
    pub(crate) fn published(&self, names: &[String], unix_s: f64) {
        let mut ledger = self.shared.lock();
        ledger.published.extend(names.iter().map(|name| (name.clone(), unix_s)));
    }

    /// The newest calls since this was last asked, of a show: the rest is forgotten.
    pub(crate) fn take_latest(&self) -> Latest {
        self.shared.lock().take_latest()
    }

    /// The client `name` has ended and this is its report. Waits until each of its answered calls
    /// is whole, for 5 s at most.
    pub(crate) async fn told(&self, name: &str, report: &Report) {
        let told = Told::of(report);
        let limit = {
            let mut ledger = self.shared.lock();
            if let Some(before) = ledger.clients.get_mut(name) {
                before.add(&told);
            } else {
                ledger.clients.insert(name.to_owned(), told);
            }
            if ledger.killed.is_empty() { SETTLE_LIMIT } else { SETTLE_KILLED_LIMIT }
        };
        let mut requests = self.shared.requests.subscribe();
        let whole = requests.wait_for(|_| self.shared.lock().missing() == 0);
        // What is missing then is what the checks say.
        timeout(limit, whole).await.ok();
    }
}

/// `playing`, and then what its spans say: figures and checks of `phase` are in its report.
pub(crate) fn judged(run: Arc<Run>, phase: String, playing: Playing) -> Playing {
    Box::pin(async move {
        let mut report = playing.await?;
        let of_phase = run.spans().close(&phase);
        let Some(ids) = ids::of(&phase).filter(|_| !of_phase.is_empty()) else {
            return Ok(report);
        };
        // A hundred thousand spans are sorted: not on a thread that others' calls wait for.
        let judging = tokio::task::spawn_blocking(move || {
            judge(&mut report, &of_phase, ids);
            report
        });
        judging.await.map_err(|error| LabError::io(phase)(std::io::Error::other(error)))
    })
}

fn judge(report: &mut PhaseReport, of_phase: &[Arc<Spans>], ids: ids::Ids) {
    let mut verdicts = Vec::new();
    let mut chains = Vec::new();
    // Of a phase that has parts the last is the one that it is about.
    for spans in of_phase {
        let ledger = spans.shared.lock();
        let found = figures::Found::of(&ledger);
        verdicts.push(check::spans_are_calls(&ledger, &found));
        if ledger.expects(ledger::EGRESS) {
            chains.push(check::one_trace(&ledger, &found));
        }
        report.spans = Some(found.figures);
    }
    report.checks.push(check::all(ids.spans_are_calls, check::CALLS, verdicts));
    if !chains.is_empty() {
        report.checks.push(check::all(ids.one_trace, check::CHAIN, chains));
    }
}
