//! The services as tonic's `Routes` mount them, below tonic's codec as grpclb's is: requests are
//! read with the codec, responses are the shared pieces that they are.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_proto::envoy::service::{
    discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    load_stats::v3::LoadStatsRequest,
};
use http::{Request, Response};
use tonic::{Status, body::Body, server::NamedService};

use super::{
    Views,
    clients::{ClientView, Clients},
    counts::Counts,
    encode::Encoder,
    load::{LoadTotals, Loads},
    load_stream::Reporting,
    stream::Serving,
};
use crate::{
    control::Control,
    metrics::{Kind as Metric, Page},
    stream::Streams,
    wire,
};

/// The name of the service of aggregated resources.
pub const ADS_SERVICE_NAME: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
/// The name of the service of load reports.
pub const LRS_SERVICE_NAME: &str = "envoy.service.load_stats.v3.LoadReportingService";
/// How often clients are asked to report their load, unless set.
pub const DEFAULT_LOAD_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct XdsSettings {
    /// What clients are told the control plane is called.
    pub identifier: String,
    /// How often clients report their load; zero: they may not.
    pub load_report_interval: Duration,
}

impl Default for XdsSettings {
    fn default() -> Self {
        let identifier = concat!("evenkeel/", env!("CARGO_PKG_VERSION")).to_owned();
        Self { identifier, load_report_interval: DEFAULT_LOAD_REPORT_INTERVAL }
    }
}

/// xDS: [`Xds::ads`] and [`Xds::lrs`] are its services; clones are the same.
#[derive(Clone)]
pub struct Xds {
    shared: Arc<Shared>,
}

/// What all streams have in common.
pub(super) struct Shared {
    pub(super) control: Control,
    pub(super) views: Arc<dyn Views>,
    pub(super) settings: XdsSettings,
    pub(super) encoder: Encoder,
    pub(super) clients: Arc<Clients>,
    pub(super) counts: Counts,
    pub(super) loads: Loads,
    streams: Streams,
}

impl Xds {
    /// Serves what `views` say; limits and counts are those of `control`.
    #[must_use]
    pub fn new(control: Control, views: Arc<dyn Views>, settings: XdsSettings) -> Self {
        let shared = Shared {
            streams: Streams::new(control.clone()),
            control,
            views,
            encoder: Encoder::new(settings.identifier.clone()),
            settings,
            clients: Arc::default(),
            counts: Counts::default(),
            loads: Loads::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The service of aggregated resources (ADS), for [`tonic::service::Routes::add_service`].
    #[must_use]
    pub fn ads(&self) -> Ads {
        Ads { shared: self.shared.clone() }
    }

    /// The service of load reports (LRS), for [`tonic::service::Routes::add_service`].
    #[must_use]
    pub fn lrs(&self) -> Lrs {
        Lrs { shared: self.shared.clone() }
    }

    /// Ends all streams, each within [`crate::grpclb::DRAIN_SPREAD`], with UNAVAILABLE; clients
    /// keep what they have and turn to another balancer. To be called when connections have had
    /// their GOAWAY, or clients come back on the same one.
    pub fn end_streams(&self) {
        self.shared.streams.end();
    }

    /// Up to `max` clients that have streams, those first who came first; and how many there are.
    #[must_use]
    pub fn clients(&self, max: usize) -> (Vec<ClientView>, usize) {
        self.shared.clients.views(max)
    }

    /// Open streams of both services, also those that have not said yet who they are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.shared.streams.open()
    }

    /// What clients reported of their load, by cluster.
    #[must_use]
    pub fn loads(&self) -> LoadTotals {
        self.shared.loads.totals()
    }

    /// Writes the metrics, named `evenkeel_balancer_xds_…`.
    pub fn write_metrics(&self, page: &mut Page) {
        let streams = [([], self.streams() as f64)];
        let help = "Open streams of xDS, load reports among them.";
        page.metric(Metric::Gauge, "evenkeel_balancer_xds_streams", help, streams);
        let refusing = self.shared.clients.refusing();
        let kinds = super::Kind::ALL.into_iter().zip(refusing);
        let samples = kinds.map(|(kind, count)| ([("type", kind.name())], count as f64));
        let help = "Clients that refused the newest resources, and run on what they took before.";
        page.metric(Metric::Gauge, "evenkeel_balancer_xds_refusing_clients", help, samples);
        self.shared.counts.write(page);
        self.shared.loads.totals().write(page);
    }
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`.
#[derive(Clone, Debug)]
pub struct Ads {
    shared: Arc<Shared>,
}

/// `envoy.service.load_stats.v3.LoadReportingService`.
#[derive(Clone, Debug)]
pub struct Lrs {
    shared: Arc<Shared>,
}

impl Ads {
    fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        const METHODS: [&str; 2] = ["StreamAggregatedResources", "DeltaAggregatedResources"];
        let Self { shared } = self;
        match wire::method(&request) {
            "StreamAggregatedResources" => {
                shared.streams.respond::<DiscoveryRequest, Serving>(request, shared)
            }
            "DeltaAggregatedResources" => {
                shared.streams.respond::<DeltaDiscoveryRequest, Serving>(request, shared)
            }
            _ => Err(no_method(&request, ADS_SERVICE_NAME, &METHODS)),
        }
    }
}

impl Lrs {
    fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        if wire::method(&request) != "StreamLoadStats" {
            return Err(no_method(&request, LRS_SERVICE_NAME, &["StreamLoadStats"]));
        }
        if self.shared.settings.load_report_interval.is_zero() {
            return Err(Status::unimplemented("load reports are not taken here"));
        }
        self.shared.streams.respond::<LoadStatsRequest, Reporting>(request, &self.shared)
    }
}

fn no_method(request: &Request<Body>, service: &str, methods: &[&str]) -> Status {
    let (path, methods) = (request.uri().path(), methods.join(" or "));
    Status::unimplemented(format!("expected {methods} of {service}, got {path}"))
}

impl fmt::Debug for Xds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xds").field("settings", &self.settings).finish_non_exhaustive()
    }
}

macro_rules! service {
    ($type:ident, $name:ident) => {
        impl NamedService for $type {
            const NAME: &'static str = $name;
        }

        impl tower_service::Service<Request<Body>> for $type {
            type Response = Response<Body>;
            type Error = Infallible;
            type Future = Ready<Result<Response<Body>, Infallible>>;

            fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: Request<Body>) -> Self::Future {
                ready(Ok(self.answer(request).unwrap_or_else(Status::into_http)))
            }
        }
    };
}

service!(Ads, ADS_SERVICE_NAME);
service!(Lrs, LRS_SERVICE_NAME);
