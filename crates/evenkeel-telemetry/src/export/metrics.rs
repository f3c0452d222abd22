//! From counts to a collector, at an interval. What did not get through is not kept: the next
//! request has the same counts, or more of them. So there is nothing that grows, and no repeat.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{FLUSHES_MAX, Flusher, Signal, Transport};
use crate::{
    metrics::Metrics,
    otlp::ExportMetricsServiceResponse,
    settings::{MetricsSettings, Place},
};

/// Metrics.
struct OfMetrics;

impl Signal for OfMetrics {
    const METHOD: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    type Response = ExportMetricsServiceResponse;
}

/// Starts the task on the current runtime.
///
/// # Errors
///
/// The collector's address can't be a channel's target.
pub(crate) fn start(
    place: &Place,
    settings: &MetricsSettings,
    metrics: Arc<Metrics>,
) -> Result<Flusher, String> {
    let (asks, asked) = mpsc::channel(FLUSHES_MAX);
    let exporter = Exporter {
        transport: Transport::new(place)?,
        place: place.to_string(),
        timeout: place.timeout.min(settings.timeout),
        interval: settings.interval,
        metrics,
        is_warned: false,
    };
    tokio::spawn(exporter.run(asked));
    Ok(Flusher(asks))
}

struct Exporter {
    transport: Transport,
    /// For people.
    place: String,
    timeout: Duration,
    interval: Duration,
    metrics: Arc<Metrics>,
    /// The present trouble was told.
    is_warned: bool,
}

impl Exporter {
    async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut next = Instant::now() + self.interval;
        loop {
            tokio::select! {
                ask = asked.recv() => {
                    let Some(done) = ask else { return };
                    self.send().await;
                    let _ = done.send(());
                }
                () = sleep_until(next) => {
                    self.send().await;
                    // From now on: a slow collector is not to be asked twice in a row.
                    next = Instant::now() + self.interval;
                }
            }
        }
    }

    async fn send(&mut self) {
        let request = self.metrics.request().encode_to_vec().into();
        let sent = self.transport.send::<OfMetrics>(request, self.timeout).await;
        let partial = match sent {
            Ok(response) => response.partial_success.unwrap_or_default(),
            Err(error) => return self.warn(&error.why),
        };
        if partial.rejected_data_points > 0 {
            let why: String = partial.error_message.chars().take(200).collect();
            let rejected = partial.rejected_data_points;
            self.warn(&format!("it rejected {rejected} data points: {why:?}"));
        } else if std::mem::take(&mut self.is_warned) {
            info!("metrics are taken again by {}", self.place);
        }
    }

    /// Once for each trouble.
    fn warn(&mut self, why: &str) {
        if std::mem::replace(&mut self.is_warned, true) {
            return;
        }
        let (place, interval) = (&self.place, self.interval);
        warn!(
            "metrics can't be sent to {place}: {why}; calls are unaffected, and counts are sent \
             again in {interval:?}"
        );
    }
}
