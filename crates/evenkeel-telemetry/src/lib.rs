//! OpenTelemetry for evenkeel's channels and servers: the spans of gRFC A72 over OTLP, as the
//! standard `OTEL_*` variables ask for them, and log lines with their ids. Channel and server know
//! nothing of it; it stands on their layers and recorders, as anything of your own would.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use evenkeel::Channel;
//! use evenkeel_telemetry::Telemetry;
//!
//! let telemetry = Telemetry::from_env("shop")?;
//! let target = "dns:///greeter.default:8000";
//! let channel = telemetry.channel(Channel::builder(target), target).build()?;
//! // let mut client = GreeterClient::new(channel);
//! telemetry.shutdown(Duration::from_secs(2)).await;
//! # Ok(()) }
//! ```
//!
//! Why not the SDK of OpenTelemetry: docs/adr/0032. An application that has one goes on using it:
//! its current span is the parent of our calls, and ours is the current one in a server's handlers.

mod client;
mod context;
mod export;
pub mod log;
pub mod otlp;
mod resource;
mod sampler;
mod server;
mod settings;
mod span;

use std::{sync::Arc, time::Duration};

use evenkeel::ChannelBuilder;
use tracing::warn;

pub use export::SpanCounts;
pub use sampler::Sampler;
pub use settings::{Protocol, Settings, SettingsError};

use crate::{
    client::ClientSpans,
    export::{Flusher, Queue},
    server::ServerSpans,
    span::Tracer,
};

/// What traces channels and servers of a process. Clones are the same; when it is off, nothing is
/// added to channels and servers, and calls pay nothing.
#[derive(Clone, Default)]
pub struct Telemetry(Option<On>);

#[derive(Clone)]
struct On {
    tracer: Arc<Tracer>,
    queue: Arc<Queue>,
    flusher: Flusher,
}

impl Telemetry {
    /// Traces nothing.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// What the process's variables ask for; off when they name no endpoint. `service` is the
    /// `service.name` when they say none. Must be called on a tokio runtime, which sends the spans.
    ///
    /// # Errors
    ///
    /// A variable that can't be meant.
    pub fn from_env(service: &str) -> Result<Self, SettingsError> {
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
        let tracer = Arc::new(Tracer::new(settings.sampler, queue.clone()));
        Ok(Self(Some(On { tracer, queue, flusher })))
    }

    /// Whether anything is traced.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Adds spans to the calls of the channel that is built: `Sent.<method>` for each call and
    /// `Attempt.<method>` for each attempt. `target` is what the spans call it.
    #[must_use]
    pub fn channel(&self, builder: ChannelBuilder, target: &str) -> ChannelBuilder {
        let Some(on) = &self.0 else { return builder };
        let spans = ClientSpans::new(on.tracer.clone(), target);
        let recorder = spans.recorder();
        builder.call_layer(spans.clone()).attempt_layer(spans).recorder(recorder)
    }

    /// Adds a span `Recv.<method>` to each call of the server that is built. It takes the place of
    /// another call layer.
    #[must_use]
    pub fn server(&self, builder: evenkeel_server::Builder) -> evenkeel_server::Builder {
        let Some(on) = &self.0 else { return builder };
        builder.call_layer(ServerSpans::new(on.tracer.clone()))
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn counts(&self) -> SpanCounts {
        self.0.as_ref().map_or_else(SpanCounts::default, |on| on.queue.counts())
    }

    /// Sends what has ended so far, for at most this long.
    pub async fn flush(&self, within: Duration) {
        if let Some(on) = &self.0 {
            // What is not sent by then is still there, and a later flush may have more luck.
            let _ = tokio::time::timeout(within, on.flusher.flush()).await;
        }
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
