//! Reports out of band: `xds.service.orca.v3.OpenRcaService`. Each stream makes its report when
//! HTTP/2 asks for one, so that nothing queues up for a reader that falls behind: after the one
//! report that HTTP/2 holds already it gets the newest values.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_proto::xds::{
    data::orca::v3::OrcaLoadReport,
    service::orca::v3::{
        OrcaLoadReportRequest,
        open_rca_service_server::{OpenRcaService, OpenRcaServiceServer},
    },
};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};
use tonic::{Request, Response, Status, codegen::tokio_stream::Stream};

use super::{metrics::ServerMetrics, report::of_server};
use crate::config::DURATION_MAX;

/// The service of one server.
pub(crate) struct OutOfBand {
    metrics: ServerMetrics,
    min_interval: Duration,
    over: watch::Receiver<bool>,
}

/// The server's end of the streams. Dropping it ends them too.
#[derive(Debug)]
pub(crate) struct Reporting {
    over: watch::Sender<bool>,
}

impl Reporting {
    /// Ends all streams, which have no end of their own and would hold their connections until a
    /// drain's grace is over.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }
}

impl OutOfBand {
    pub(crate) fn new(
        metrics: &ServerMetrics,
        min_interval: Duration,
    ) -> (OpenRcaServiceServer<Self>, Reporting) {
        let (sender, over) = watch::channel(false);
        let service = Self { metrics: metrics.clone(), min_interval, over };
        (OpenRcaServiceServer::new(service), Reporting { over: sender })
    }

    /// What the client asks for, but not more often than the server allows. A duration that is
    /// absent, negative or malformed asks for nothing. prost-types' own conversion is not for
    /// strangers: it panics on `i64::MIN` seconds where overflow is checked.
    fn interval(&self, request: &OrcaLoadReportRequest) -> Duration {
        let asked = request.report_interval.as_ref().and_then(|asked| {
            let nanos = u32::try_from(asked.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
            Some(Duration::new(u64::try_from(asked.seconds).ok()?, nanos))
        });
        asked.unwrap_or_default().clamp(self.min_interval, DURATION_MAX)
    }
}

#[tonic::async_trait]
impl OpenRcaService for OutOfBand {
    type StreamCoreMetricsStream = Reports;

    async fn stream_core_metrics(
        &self,
        request: Request<OrcaLoadReportRequest>,
    ) -> Result<Response<Reports>, Status> {
        // The first tick is at once: who asks has no value yet.
        let mut ticks = interval(self.interval(request.get_ref()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut over = self.over.clone();
        let over = Box::pin(async move {
            // An error says that the server is gone, which is an end as well.
            let _ = over.wait_for(|over| *over).await;
        });
        Ok(Response::new(Reports { metrics: self.metrics.clone(), ticks, over: Some(over) }))
    }
}

/// The reports of one stream.
pub(crate) struct Reports {
    metrics: ServerMetrics,
    ticks: Interval,
    /// `None` once the end was told.
    over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Stream for Reports {
    type Item = Result<OrcaLoadReport, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(over) = &mut self.over else { return Poll::Ready(None) };
        if over.as_mut().poll(cx).is_ready() {
            self.over = None;
            let status = Status::unavailable("the server drains; its load will not matter");
            return Poll::Ready(Some(Err(status)));
        }
        ready!(self.ticks.poll_tick(cx));
        Poll::Ready(Some(Ok(of_server(&self.metrics))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_clients_but_not_below_the_servers() {
        let min_interval = Duration::from_secs(30);
        let (_sender, over) = watch::channel(false);
        let service = OutOfBand { metrics: ServerMetrics::new(), min_interval, over };
        let asked = |report_interval| {
            service.interval(&OrcaLoadReportRequest { report_interval, ..Default::default() })
        };
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        assert_eq!(asked(None), min_interval);
        assert_eq!(asked(seconds(1)), min_interval);
        assert_eq!(asked(seconds(-1)), min_interval);
        assert_eq!(asked(seconds(31)), Duration::from_secs(31));
        assert_eq!(asked(seconds(i64::MAX)), DURATION_MAX);
        let nanos = Some(prost_types::Duration { seconds: i64::MIN, nanos: i32::MIN });
        assert_eq!(asked(nanos), min_interval);
    }
}
