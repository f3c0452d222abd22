//! One call's values, which its handler records.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    metrics::ServerMetrics,
    values::{Kind, Named, SCALARS, Scalar, Scalars},
};

/// What a call reports of itself; in its request's extensions on a server with per-call reports.
/// Clones record into the same values, until the call's trailers are sent.
///
/// A value here takes the place of the server's of the same name. Each setter takes a number, or
/// `None` to forget it; values outside their range are ignored, and counted
/// ([`ServerMetrics::ignored`]).
#[derive(Debug, Clone)]
pub struct CallMetrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: ServerMetrics,
    own: Mutex<Own>,
}

#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) scalars: Scalars,
    pub(super) named: Named,
}

impl CallMetrics {
    pub(crate) fn new(server: &ServerMetrics) -> Self {
        let own = Own { scalars: [None; SCALARS], named: Named::default() };
        Self { shared: Arc::new(Shared { server: server.clone(), own: Mutex::new(own) }) }
    }

    /// CPU in use, as a fraction of what is available: 0 or more.
    pub fn set_cpu_utilization(&self, fraction: impl Into<Option<f64>>) {
        self.set(Scalar::Cpu, fraction.into());
    }

    /// Memory in use, as a fraction of what is available: 0 to 1.
    pub fn set_memory_utilization(&self, fraction: impl Into<Option<f64>>) {
        self.set(Scalar::Memory, fraction.into());
    }

    /// What the application calls its utilisation: 0 or more.
    pub fn set_application_utilization(&self, fraction: impl Into<Option<f64>>) {
        self.set(Scalar::Application, fraction.into());
    }

    /// Calls per second: 0 or more.
    pub fn set_qps(&self, per_second: impl Into<Option<f64>>) {
        self.set(Scalar::Qps, per_second.into());
    }

    /// Failed calls per second: 0 or more.
    pub fn set_eps(&self, per_second: impl Into<Option<f64>>) {
        self.set(Scalar::Eps, per_second.into());
    }

    /// The utilisation of something that has a name: 0 to 1. A call has at most
    /// [`super::NAMES_MAX`] names of all kinds, of [`super::NAME_BYTES_MAX`].
    pub fn set_utilization(&self, name: &str, fraction: impl Into<Option<f64>>) {
        self.set_named(Kind::Utilization, name, fraction.into());
    }

    /// What this call cost of something that has a name: an absolute amount, 0 or more.
    pub fn set_request_cost(&self, name: &str, cost: impl Into<Option<f64>>) {
        self.set_named(Kind::RequestCost, name, cost.into());
    }

    /// A number whose meaning is the application's.
    pub fn set_named_metric(&self, name: &str, value: impl Into<Option<f64>>) {
        self.set_named(Kind::NamedMetric, name, value.into());
    }

    fn set(&self, scalar: Scalar, value: Option<f64>) {
        if value.is_some_and(|value| scalar.check(value).is_err()) {
            return self.shared.server.ignore();
        }
        self.own().scalars[scalar as usize] = value;
    }

    fn set_named(&self, kind: Kind, name: &str, value: Option<f64>) {
        if self.own().named.set(kind, name, value).is_err() {
            self.shared.server.ignore();
        }
    }

    pub(super) fn server(&self) -> &ServerMetrics {
        &self.shared.server
    }

    pub(super) fn own(&self) -> MutexGuard<'_, Own> {
        // Whole at any time, whatever panicked beside it.
        self.shared.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
