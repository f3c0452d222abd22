//! The whole server's values. Every call reads them at its end, so they are atomics: a lock would
//! be the one thing that all calls of a server share.

use std::{
    array,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::values::{Kind, Named, SCALARS, Scalar, Scalars};

/// A value that nobody recorded; no recorded value is NaN.
const UNSET: u64 = f64::NAN.to_bits();

/// What the server as a whole reports of its load. Clones record into the same values.
///
/// Each setter takes a number, or `None` to stop reporting the value. Zero and nothing are the same
/// on the wire. Values outside their range are ignored, and counted ([`ServerMetrics::ignored`]).
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bits of an f64, by [`Scalar`].
    scalars: [AtomicU64; SCALARS],
    named: RwLock<Named>,
    /// How many `named` has: most servers have none, and then nobody takes the lock.
    names: AtomicUsize,
    ignored: AtomicU64,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerMetrics {
    /// Metrics without any value.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared {
            scalars: array::from_fn(|_| AtomicU64::new(UNSET)),
            named: RwLock::default(),
            names: AtomicUsize::new(0),
            ignored: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// CPU in use, as a fraction of what is available: 0 or more; over 1 where what is available is
    /// a soft limit.
    pub fn set_cpu_utilization(&self, fraction: impl Into<Option<f64>>) {
        self.set(Scalar::Cpu, fraction.into());
    }

    /// Memory in use, as a fraction of what is available: 0 to 1.
    pub fn set_memory_utilization(&self, fraction: impl Into<Option<f64>>) {
        self.set(Scalar::Memory, fraction.into());
    }

    /// What the application calls its utilisation: 0 or more. Clients prefer it to the CPU's (A64),
    /// so it should be the share in use of whatever runs out first.
    pub fn set_application_utilization(&self, fraction: impl Into<Option<f64>>) {
        self.set(Scalar::Application, fraction.into());
    }

    /// Calls per second: 0 or more.
    pub fn set_qps(&self, per_second: impl Into<Option<f64>>) {
        self.set(Scalar::Qps, per_second.into());
    }

    /// Failed calls per second: 0 or more. They are a part of the calls of [`Self::set_qps`].
    pub fn set_eps(&self, per_second: impl Into<Option<f64>>) {
        self.set(Scalar::Eps, per_second.into());
    }

    /// The utilisation of something that has a name: 0 to 1. At most [`super::NAMES_MAX`] names of
    /// [`super::NAME_BYTES_MAX`].
    pub fn set_utilization(&self, name: &str, fraction: impl Into<Option<f64>>) {
        let mut named = self.shared.named.write().unwrap_or_else(PoisonError::into_inner);
        if named.set(Kind::Utilization, name, fraction.into()).is_err() {
            self.ignore();
        }
        self.shared.names.store(named.len(), Ordering::Relaxed);
    }

    /// Stops reporting every value of [`Self::set_utilization`].
    pub fn forget_utilizations(&self) {
        let mut named = self.shared.named.write().unwrap_or_else(PoisonError::into_inner);
        *named = Named::default();
        self.shared.names.store(0, Ordering::Relaxed);
    }

    /// How many values were ignored so far, here and by the calls' recorders: outside their range,
    /// or over the limits of names.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.shared.ignored.load(Ordering::Relaxed)
    }

    pub(super) fn ignore(&self) {
        self.shared.ignored.fetch_add(1, Ordering::Relaxed);
    }

    fn set(&self, scalar: Scalar, value: Option<f64>) {
        let bits = match value {
            Some(value) if scalar.check(value).is_err() => return self.ignore(),
            Some(value) => value.to_bits(),
            None => UNSET,
        };
        self.shared.scalars[scalar as usize].store(bits, Ordering::Relaxed);
    }

    /// The values now. Each is whole; together they are of one moment only as far as their owner
    /// set them at one.
    pub(super) fn scalars(&self) -> Scalars {
        array::from_fn(|index| {
            let value = f64::from_bits(self.shared.scalars[index].load(Ordering::Relaxed));
            (!value.is_nan()).then_some(value)
        })
    }

    pub(super) fn named(&self) -> Named {
        if self.shared.names.load(Ordering::Relaxed) == 0 {
            return Named::default();
        }
        self.shared.named.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
