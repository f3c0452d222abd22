//! Services that are there because clients ask for them, whatever protocol they ask in. They come
//! with the first client, and go when none has used them for [`crate::ON_DEMAND_IDLE`] or when they
//! do not exist. grpclb's streams use one service each; a stream of xDS uses as many as it names,
//! and holds a [`Subscriber`] of each.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;
use tracing::info;

use super::{Control, Service, lock};
use crate::{
    demand::{ON_DEMAND_MAX, Refused},
    key::ServiceKey,
    names::NameError,
    snapshot::Published,
};

impl Control {
    /// The service that a client's name leads to; one that only is there from now on because the
    /// client asks for it is one of [`crate::names::NameRules::namespaces`].
    pub(crate) fn service(&self, name: &str) -> Result<Arc<Service>, NameError> {
        let directory = self.directory();
        let unknown = match directory.resolve(name) {
            Ok(service) => return Ok(service.clone()),
            Err(error @ NameError::Bad(_)) => return Err(error),
            Err(error) => error,
        };
        let Some(key) = directory.names.on_demand(name) else { return Err(unknown) };
        let mut asked = lock(&self.inner.asked);
        match asked.demand.add(&key, Instant::now()) {
            Ok(is_new) => {
                if is_new {
                    info!(service = %key, "asked for, and watched from now on");
                    self.rebuild(&asked);
                }
            }
            Err(Refused::Absent) => {
                return Err(NameError::Unknown(format!("{key} has no EndpointSlices")));
            }
            Err(Refused::TooMany) => {
                let text = format!("there are {ON_DEMAND_MAX} services on demand; configure {key}");
                return Err(NameError::Unknown(text));
            }
        }
        self.directory().services.get(&key).cloned().ok_or(unknown)
    }

    /// Uses the service on demand that a name leads to, and brings it here if it is not; `None`
    /// where no such name is served on demand, or nothing is there under it now.
    pub(crate) fn subscribe(&self, name: &str) -> Option<Subscriber> {
        let service = self.service(name).ok()?;
        self.directory().on_demand.contains(&service.key).then(|| Subscriber::new(service))
    }

    /// Whether some names are served on demand.
    pub(crate) fn serves_on_demand(&self) -> bool {
        !self.inner.rules.namespaces.is_empty()
    }

    /// Notes that a service does not exist; true when it was there on demand, and is gone now.
    pub fn absent(&self, key: &ServiceKey) -> bool {
        let mut asked = lock(&self.inner.asked);
        let was_here = asked.demand.is_absent(key, Instant::now());
        if was_here {
            self.rebuild(&asked);
        }
        was_here
    }

    /// Lets go of services on demand that have had no clients for [`crate::ON_DEMAND_IDLE`].
    pub fn sweep(&self) {
        let mut asked = lock(&self.inner.asked);
        let directory = self.directory();
        let is_used =
            |key: &ServiceKey| directory.services.get(key).is_some_and(|service| service.is_used());
        if asked.demand.sweep(Instant::now(), is_used) {
            self.rebuild(&asked);
        }
    }
}

impl Service {
    fn is_used(&self) -> bool {
        self.open_streams() > 0 || self.subscribers.load(Ordering::Relaxed) > 0
    }
}

/// Uses a service until it is dropped.
#[derive(Debug)]
pub(crate) struct Subscriber(Arc<Service>);

impl Subscriber {
    fn new(service: Arc<Service>) -> Self {
        service.subscribers.fetch_add(1, Ordering::Relaxed);
        Self(service)
    }

    /// Whether it is known that the service exists.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self.0.current(), Published::Current(_))
    }

    /// Whether the service is still served; else it does not exist, or is configured otherwise now.
    pub(crate) fn is_served(&self) -> bool {
        !matches!(self.0.current(), Published::Gone)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}
