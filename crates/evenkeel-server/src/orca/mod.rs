//! What a backend tells of its load: gRPC's backend metrics, ORCA (gRFC A51, names of A64). Clients
//! that weigh backends (`weighted_round_robin`, A58) and balancers read them.
//!
//! Values have two sources. [`ServerMetrics`] are the whole server's: its owner sets them whenever
//! they change. [`CallMetrics`] are one call's: its handler finds them in the request's extensions.
//! They leave the server in two ways: in each call's trailers (`endpoint-load-metrics-bin`), where
//! a call's own value takes the place of the server's, and out of band, as a stream of the server's
//! values ([`Orca::out_of_band`]).
//!
//! ```
//! use evenkeel_server::{Server, orca::{CallMetrics, Orca, ServerMetrics}};
//!
//! let metrics = ServerMetrics::new();
//! let builder = Server::builder().orca(Orca::new(&metrics).out_of_band());
//! metrics.set_application_utilization(0.4);
//! metrics.set_qps(120.0);
//!
//! # type Request = tonic::Request<()>;
//! fn handler(request: &Request) {
//!     // None on a server without ORCA.
//!     if let Some(metrics) = request.extensions().get::<CallMetrics>() {
//!         metrics.set_request_cost("rows_read", 3.0);
//!     }
//! }
//! ```
//!
//! A value outside its range is ignored and counted ([`ServerMetrics::ignored`]): a report with NaN
//! would poison every weight that a client makes of it.

mod call;
mod metrics;
mod report;
mod service;
mod values;

use std::time::Duration;

pub use call::CallMetrics;
pub use metrics::ServerMetrics;
pub(crate) use report::report;
pub(crate) use service::{OutOfBand, Reporting};
pub use values::{NAME_BYTES_MAX, NAMES_MAX};

/// The shortest time between two out-of-band reports, unless it is set; gRPC's servers have the
/// same, and allow none below.
pub const DEFAULT_MIN_REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// How a server reports its load; for [`crate::Builder::orca`].
#[derive(Debug, Clone)]
pub struct Orca {
    pub(crate) metrics: ServerMetrics,
    pub(crate) per_call: bool,
    /// The shortest interval of out-of-band reports, if they are served.
    pub(crate) min_interval: Option<Duration>,
}

impl Orca {
    /// Reports `metrics`, and what handlers add, in the trailers of every call.
    #[must_use]
    pub fn new(metrics: &ServerMetrics) -> Self {
        Self { metrics: metrics.clone(), per_call: true, min_interval: None }
    }

    /// Whether trailers carry reports. Without them a call costs nothing, and handlers find no
    /// [`CallMetrics`].
    #[must_use]
    pub fn per_call(mut self, reports: bool) -> Self {
        self.per_call = reports;
        self
    }

    /// Serves `xds.service.orca.v3.OpenRcaService` too, at most every
    /// [`DEFAULT_MIN_REPORT_INTERVAL`] for each stream. Everybody who can call the server can read
    /// the reports.
    #[must_use]
    pub fn out_of_band(self) -> Self {
        self.min_report_interval(DEFAULT_MIN_REPORT_INTERVAL)
    }

    /// Serves it with this shortest interval, which takes the place of what a client asks for when
    /// that is shorter or nothing. From 1 ms to [`crate::DURATION_MAX`].
    #[must_use]
    pub fn min_report_interval(mut self, min: Duration) -> Self {
        self.min_interval = Some(min);
        self
    }
}
