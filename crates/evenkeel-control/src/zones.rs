//! In which zone a client of grpclb is. Its protocol has no word for that: the request has a name
//! and nothing else. What is known is the address at the other end, and EndpointSlices say of a
//! pod's address in which zone its node is. So a Service that selects the clients' pods tells where
//! they are, and the right to read Pods or Nodes, over a whole cluster, is not needed.
//!
//! A client whose address no slice has (it comes through a proxy, or from outside) has no zone, and
//! gets all endpoints.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{control::Control, key::ServiceKey};

/// The most Services that say where clients are.
pub const CLIENT_SERVICES_MAX: usize = 100;

/// See the module's head.
#[derive(Default)]
pub(crate) struct Zones {
    wanted: watch::Sender<Arc<BTreeSet<ServiceKey>>>,
    known: watch::Sender<Places>,
}

/// Where clients are, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    by_service: BTreeMap<ServiceKey, Arc<HashMap<IpAddr, Arc<str>>>>,
}

impl Places {
    pub(crate) fn zone_of(&self, ip: IpAddr) -> Option<Arc<str>> {
        self.by_service.values().find_map(|zones| zones.get(&ip).cloned())
    }

    /// Addresses whose zone is known.
    pub(crate) fn len(&self) -> usize {
        self.by_service.values().map(|zones| zones.len()).sum()
    }
}

impl Zones {
    /// These Services say where clients are, and no others any more.
    pub(crate) fn want(&self, services: &BTreeSet<ServiceKey>) {
        self.wanted.send_if_modified(|now| {
            let changed = **now != *services;
            if changed {
                *now = Arc::new(services.clone());
            }
            changed
        });
        self.known.send_if_modified(|known| {
            let before = known.by_service.len();
            known.by_service.retain(|service, _| services.contains(service));
            known.by_service.len() < before
        });
    }
}

impl Control {
    /// The Services whose EndpointSlices say where clients are.
    #[must_use]
    pub fn client_services(&self) -> watch::Receiver<Arc<BTreeSet<ServiceKey>>> {
        self.inner.zones.wanted.subscribe()
    }

    /// Takes what one of [`Control::client_services`] says of clients: all of it.
    pub fn locate(&self, service: &ServiceKey, zones: HashMap<IpAddr, Arc<str>>) {
        let is_wanted = self.inner.zones.wanted.borrow().contains(service);
        self.inner.zones.known.send_if_modified(|known| {
            let before = known.by_service.get(service);
            if !is_wanted || before.is_some_and(|before| **before == zones) {
                return false;
            }
            known.by_service.insert(service.clone(), Arc::new(zones));
            true
        });
    }

    pub(crate) fn places(&self) -> watch::Receiver<Places> {
        self.inner.zones.known.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, names::NameRules};

    fn key(name: &str) -> ServiceKey {
        ServiceKey::parse(name, "default").expect("a key")
    }

    fn control(services: &[&str]) -> Control {
        let control = Control::new(NameRules::default(), Config::default());
        control.configure(&config(services));
        control
    }

    fn config(services: &[&str]) -> Config {
        Config { clients: services.iter().map(|name| key(name)).collect(), ..Config::default() }
    }

    fn at(places: &[(&str, &str)]) -> HashMap<IpAddr, Arc<str>> {
        let one = |(ip, zone): &(&str, &str)| (ip.parse().expect("an address"), Arc::from(*zone));
        places.iter().map(one).collect()
    }

    #[test]
    fn clients_are_where_the_slices_of_their_services_say() {
        let control = control(&["a", "b"]);
        let mut places = control.places();
        let zone = |ip: &str| control.places().borrow().zone_of(ip.parse().expect("an address"));
        control.locate(&key("a"), at(&[("10.0.0.1", "x"), ("fd00::1", "y")]));
        control.locate(&key("b"), at(&[("10.0.0.2", "z")]));
        assert_eq!(zone("10.0.0.1").as_deref(), Some("x"));
        assert_eq!(zone("fd00::1").as_deref(), Some("y"));
        assert_eq!(zone("10.0.0.2").as_deref(), Some("z"));
        assert_eq!(zone("10.0.0.3"), None);
        assert_eq!(places.borrow_and_update().len(), 3);
        control.locate(&key("b"), at(&[("10.0.0.2", "z")]));
        assert!(!places.has_changed().expect("it is there"), "the same again is no news");
        control.locate(&key("b"), HashMap::new());
        assert_eq!(zone("10.0.0.2"), None);
    }

    #[test]
    fn what_is_not_asked_for_any_more_is_forgotten_and_not_taken() {
        let control = control(&["a"]);
        control.locate(&key("a"), at(&[("10.0.0.1", "x")]));
        control.configure(&config(&["b"]));
        assert_eq!(control.places().borrow().len(), 0);
        control.locate(&key("a"), at(&[("10.0.0.1", "x")]));
        assert_eq!(control.places().borrow().len(), 0, "a watch that is about to end");
        assert_eq!(**control.client_services().borrow(), [key("b")].into());
    }
}
