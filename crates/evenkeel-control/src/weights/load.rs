//! One report, as far as it counts for weights.

use evenkeel_proto::xds::data::orca::v3::OrcaLoadReport;

/// What a backend says of its load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Calls a second.
    pub qps: f64,
    /// Failed ones of them.
    pub eps: f64,
    /// What is in use of what the backend has, 0 to 1 and beyond; the application's own word if it
    /// has one, else the CPU's (A64).
    pub utilization: f64,
}

impl From<&OrcaLoadReport> for Load {
    fn from(report: &OrcaLoadReport) -> Self {
        let application = report.application_utilization;
        let utilization = if application > 0.0 { application } else { report.cpu_utilization };
        Self { qps: report.rps_fractional, eps: report.eps, utilization }
    }
}

impl Load {
    /// Calls a second that the backend could serve: `qps / (utilization + eps / qps × penalty)`, as
    /// A58 has it. `None` when the report does not tell, or can't be true.
    #[must_use]
    pub fn weight(&self, error_penalty: f64) -> Option<f64> {
        let Self { qps, eps, utilization } = *self;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(qps) || !positive(utilization) {
            return None;
        }
        let errors = if positive(eps) { eps / qps * error_penalty } else { 0.0 };
        let weight = qps / (utilization + errors);
        positive(weight).then_some(weight)
    }
}
