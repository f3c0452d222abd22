//! OpenTelemetry for evenkeel's channels and servers: the spans of gRFC A72 and the metrics of gRFC
//! A66 and A94 over OTLP, as the standard `OTEL_*` variables ask for them, metrics for Prometheus,
//! and log lines with their ids. Channel and server know nothing of it; it stands on their layers,
//! meters and recorders, as anything of your own would.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use evenkeel::Channel;
//! use evenkeel_telemetry::Telemetry;
//!
//! let telemetry = Telemetry::from_env("shop")?;
//! telemetry.serve_page().await?; // if a variable asks for Prometheus
//! let target = "dns:///greeter.default:8000";
//! let channel = telemetry.channel(Channel::builder(target), target).build()?;
//! // let mut client = GreeterClient::new(channel);
//! telemetry.shutdown(Duration::from_secs(2)).await;
//! # Ok(()) }
//! ```
//!
//! Why not the SDK of OpenTelemetry: docs/adr/0032 and 0035. An application that has one goes on
//! using it: its current span is the parent of our calls, and ours is the current one in a server's
//! handlers.

mod client;
mod context;
mod export;
pub mod log;
pub mod metrics;
pub mod otlp;
pub mod page;
mod resource;
mod sampler;
mod server;
mod settings;
mod span;
mod wire;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use evenkeel::ChannelBuilder;
use evenkeel_server::ServerStats;
use tokio::net::TcpListener;
use tracing::warn;

pub use export::SpanCounts;
pub use sampler::Sampler;
pub use settings::{MetricsSettings, Place, PlaceTls, Protocol, Settings, SettingsError};

use crate::{
    client::ClientSpans,
    export::{Flusher, Queue},
    metrics::{ChannelRecorder, Family, Metrics},
    page::Answer,
    server::ServerSpans,
    span::Tracer,
};

/// What traces and counts the calls of channels and servers of a process. Clones are the same; when
/// it is off, nothing is added to channels and servers, and calls pay nothing.
#[derive(Clone, Default)]
pub struct Telemetry {
    spans: Option<Spans>,
    counts: Option<Counts>,
}

#[derive(Clone)]
struct Spans {
    tracer: Arc<Tracer>,
    queue: Arc<Queue>,
    flusher: Flusher,
}

#[derive(Clone)]
struct Counts {
    metrics: Arc<Metrics>,
    page: Option<SocketAddr>,
    /// Where they are sent.
    flusher: Option<Flusher>,
}

impl Telemetry {
    /// Traces and counts nothing.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// What the process's variables ask for; off when they name no endpoint. `service` is the
    /// `service.name` when they say none. Must be called on a tokio runtime, which sends what there
    /// is.
    ///
    /// # Errors
    ///
    /// A variable that can't be meant.
    pub fn from_env(service: &str) -> Result<Self, SettingsError> {
        let telemetry = Self::spans_from_env(service)?;
        match MetricsSettings::from_env(service)? {
            Some(settings) => telemetry.with_metrics(&settings),
            None => Ok(telemetry),
        }
    }

    /// As [`Telemetry::from_env`], without metrics: for who adds them with other settings.
    ///
    /// # Errors
    ///
    /// A variable that can't be meant.
    pub fn spans_from_env(service: &str) -> Result<Self, SettingsError> {
        Settings::from_env(service)?.map_or_else(|| Ok(Self::off()), |s| Self::start(&s))
    }

    /// Traces as the settings say. Must be called on a tokio runtime, which sends the spans.
    ///
    /// # Errors
    ///
    /// The endpoint can't be a channel's target.
    pub fn start(settings: &Settings) -> Result<Self, SettingsError> {
        let queue = Arc::new(Queue::new(settings.queue_max, settings.batch_max));
        let flusher = export::start(settings, queue.clone()).map_err(SettingsError)?;
        let tracer = Arc::new(Tracer::new(settings.sampler, settings.propagates, queue.clone()));
        Ok(Self { spans: Some(Spans { tracer, queue, flusher }), counts: None })
    }

    /// Counts calls, too, as the settings say, from the next channel and server on. Must be called
    /// on a tokio runtime, which sends the counts. The page for Prometheus is served when
    /// [`Telemetry::serve_page`] is called.
    ///
    /// # Errors
    ///
    /// The endpoint can't be a channel's target.
    pub fn with_metrics(self, settings: &MetricsSettings) -> Result<Self, SettingsError> {
        let queue = self.spans.as_ref().map(|spans| spans.queue.clone());
        let spans = queue.map(|queue| -> Box<dyn Fn() -> SpanCounts + Send + Sync> {
            Box::new(move || queue.counts())
        });
        let metrics = Arc::new(Metrics::new(settings.resource.clone(), spans));
        let start = |place| export::metrics::start(place, settings, metrics.clone());
        let flusher = settings.place.as_ref().map(start).transpose().map_err(SettingsError)?;
        let counts = Counts { metrics, page: settings.page, flusher };
        Ok(Self { counts: Some(counts), ..self })
    }

    /// Whether anything is traced.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.spans.is_some()
    }

    /// Whether anything is counted.
    #[must_use]
    pub fn has_metrics(&self) -> bool {
        self.counts.is_some()
    }

    /// Adds what is asked for to the channel that is built: spans `Sent.<method>` for each call and
    /// `Attempt.<method>` for each attempt, and counts of both. `target` is what they call it.
    #[must_use]
    pub fn channel(&self, builder: ChannelBuilder, target: &str) -> ChannelBuilder {
        let mut builder = builder;
        if let Some(on) = &self.spans {
            let spans = ClientSpans::new(on.tracer.clone(), target);
            let recorder = spans.recorder();
            builder = builder.call_layer(spans).recorder(recorder);
        }
        if let Some(on) = &self.counts {
            let client = on.metrics.client(&canonical(target));
            let recorder = Arc::new(ChannelRecorder::new(client.clone()));
            builder = builder.call_meter(client).recorder(recorder);
        }
        builder
    }

    /// Adds what is asked for to the server that is built: a span `Recv.<method>` for each call,
    /// and counts. They take the place of another call layer and another meter.
    #[must_use]
    pub fn server(&self, builder: evenkeel_server::Builder) -> evenkeel_server::Builder {
        let mut builder = builder;
        if let Some(on) = &self.spans {
            builder = builder.call_layer(ServerSpans::new(on.tracer.clone()));
        }
        if let Some(on) = &self.counts {
            builder = builder.call_meter(on.metrics.servers().clone());
        }
        builder
    }

    /// Shows a server's events among the metrics.
    pub fn watch_server(&self, events: ServerStats) {
        if let Some(on) = &self.counts {
            on.metrics.servers().watch(events);
        }
    }

    /// Adds what others count to what is sent and to the page, whenever it is asked for; `source`
    /// must not block.
    pub fn add_metrics(&self, source: impl Fn(&mut Vec<Family>) + Send + Sync + 'static) {
        if let Some(on) = &self.counts {
            on.metrics.add_source(Box::new(source));
        }
    }

    /// Serves the page for Prometheus at `/metrics`, if the settings ask for one: until the runtime
    /// ends. Returns where it is.
    ///
    /// # Errors
    ///
    /// The address can't be had.
    pub async fn serve_page(&self) -> io::Result<Option<SocketAddr>> {
        let Some(Counts { metrics, page: Some(address), .. }) = &self.counts else {
            return Ok(None);
        };
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let text = format!("metrics on {address}: {error}; free it or choose another");
            io::Error::new(error.kind(), text)
        })?;
        let address = listener.local_addr()?;
        let metrics = metrics.clone();
        let answer = move |path: &str| match path {
            "/metrics" => Answer::page(metrics::CONTENT_TYPE, metrics.page()),
            other => Answer::not_found(format!("expected /metrics, got {other:?}\n")),
        };
        tokio::spawn(page::serve(listener, "the port for metrics", answer));
        Ok(Some(address))
    }

    /// The metrics of channels and servers as text for Prometheus, for a page of your own; without
    /// those of [`Telemetry::add_metrics`]. Empty when nothing is counted.
    #[must_use]
    pub fn prometheus(&self) -> String {
        self.counts.as_ref().map_or_else(String::new, |on| on.metrics.own_page())
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn counts(&self) -> SpanCounts {
        self.spans.as_ref().map_or_else(SpanCounts::default, |on| on.queue.counts())
    }

    /// Sends what there is so far, for at most this long.
    pub async fn flush(&self, within: Duration) {
        let flush = async {
            if let Some(on) = &self.spans {
                on.flusher.flush().await;
            }
            // Last, so that it tells what became of the spans.
            if let Some(flusher) = self.counts.as_ref().and_then(|on| on.flusher.as_ref()) {
                flusher.flush().await;
            }
        };
        // What is not sent by then is still there, and a later flush may have more luck.
        let _ = tokio::time::timeout(within, flush).await;
    }

    /// As [`Telemetry::flush`], at the process's end: says what is lost.
    pub async fn shutdown(&self, within: Duration) -> SpanCounts {
        self.flush(within).await;
        let counts = self.counts();
        let lost = counts.ended - counts.sent;
        if lost > 0 {
            warn!("{lost} of {} spans did not reach a collector", counts.ended);
        }
        counts
    }
}

/// Schemes that a target can have without a slash behind the colon.
const SCHEMES: [&str; 6] = ["dns", "ipv4", "ipv6", "kubernetes", "unix", "unix-abstract"];

/// The target with its scheme, as metrics name it (gRFC A66).
fn canonical(target: &str) -> String {
    match target.split_once(':') {
        Some((scheme, rest)) if rest.starts_with("//") || SCHEMES.contains(&scheme) => {
            target.to_owned()
        }
        _ => format!("dns:///{target}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_name_a_target_with_its_scheme() {
        for (target, named) in [
            ("localhost:8000", "dns:///localhost:8000"),
            ("localhost", "dns:///localhost"),
            ("dns:///a.b:1", "dns:///a.b:1"),
            ("ipv4:127.0.0.1:1,127.0.0.2:1", "ipv4:127.0.0.1:1,127.0.0.2:1"),
            ("own://x/y", "own://x/y"),
        ] {
            assert_eq!(canonical(target), named);
        }
    }
}
