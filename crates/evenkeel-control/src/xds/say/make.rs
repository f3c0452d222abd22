//! All resources of a view, from everything that is known at one moment. Endpoints, which change
//! often, are made anew only for services whose snapshot is new; the rest changes with the
//! configuration, which is rare, and is compared instead of tracked.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::{
    Dialect,
    cluster::{self, cluster},
    encode::{self, resource},
    endpoints::assignment,
    listener,
    route::route,
    tls::{SecretFiles, secrets},
};
use crate::{
    config::{Config, Xds},
    key::ServiceKey,
    names::Names,
    snapshot::Snapshot,
    xds::{
        resource::{Kind, Resource, Resources},
        view::{Place, Role, View},
    },
};

/// Everything that is known at one moment.
#[derive(Debug)]
pub(in crate::xds) struct World {
    pub(in crate::xds) config: Arc<Config>,
    pub(in crate::xds) names: Names,
    /// Services that are there because somebody asked for them.
    pub(in crate::xds) on_demand: BTreeSet<ServiceKey>,
    /// Of the services of which a source has told endpoints.
    pub(in crate::xds) snapshots: BTreeMap<ServiceKey, Arc<Snapshot>>,
    /// By identity.
    pub(in crate::xds) secrets: BTreeMap<String, Arc<SecretFiles>>,
}

type AssignmentKey = (ServiceKey, Dialect, Option<Place>);

/// Encoded endpoints, for as long as what they were made of is what is known.
#[derive(Debug, Default)]
pub(in crate::xds) struct Assignments(BTreeMap<AssignmentKey, Made>);

#[derive(Debug)]
struct Made {
    snapshot: Arc<Snapshot>,
    xds: Arc<Xds>,
    resource: Arc<Resource>,
}

impl Assignments {
    fn get(
        &mut self,
        key: AssignmentKey,
        snapshot: &Arc<Snapshot>,
        xds: &Arc<Xds>,
    ) -> Arc<Resource> {
        if let Some(made) = self.0.get(&key)
            && Arc::ptr_eq(&made.snapshot, snapshot)
            && made.xds == *xds
        {
            return made.resource.clone();
        }
        let (service, dialect, place) = &key;
        let name = service.to_string();
        let message = assignment(&name, snapshot, xds, *dialect, place.as_ref());
        let resource = resource(&name, &message);
        let (snapshot, xds) = (snapshot.clone(), xds.clone());
        self.0.insert(key, Made { snapshot, xds, resource: resource.clone() });
        resource
    }

    /// Lets go of services that are not served any more.
    pub(in crate::xds) fn keep(&mut self, world: &World) {
        self.0.retain(|(service, ..), _| world.snapshots.contains_key(service));
    }
}

/// The resources of a view. `asked` are names that its clients have asked for; `before` is what
/// they have.
pub(in crate::xds) fn make(
    world: &World,
    view: &View,
    asked: &BTreeSet<String>,
    assignments: &mut Assignments,
    before: Option<&Resources>,
) -> Resources {
    let mut said = Said::default();
    match &view.role {
        Role::Client(dialect) => said.client(world, view, *dialect, asked, assignments),
        Role::Ingress { service, address } => said.ingress(world, service, *address),
    }
    said.secrets(world, view);
    said.resources(before)
}

#[derive(Default)]
struct Said {
    by_kind: BTreeMap<Kind, Vec<Arc<Resource>>>,
    /// Services of which nobody knows yet whether they exist.
    pending: BTreeSet<Arc<str>>,
    /// Identities that are named.
    identities: BTreeSet<String>,
}

impl Said {
    fn add(&mut self, kind: Kind, resource: Arc<Resource>) {
        self.by_kind.entry(kind).or_default().push(resource);
    }

    fn client(
        &mut self,
        world: &World,
        view: &View,
        dialect: Dialect,
        asked: &BTreeSet<String>,
        assignments: &mut Assignments,
    ) {
        let may_ask = |key: &ServiceKey| {
            let allow = world.config.services.get(key).map(|service| &service.policy.allow);
            allow.is_some_and(|allow| {
                allow.as_ref().is_none_or(|allow| allow.accepts(view.caller.names.as_ref()))
            })
        };
        let mut asked_of: BTreeMap<&ServiceKey, BTreeSet<String>> = BTreeMap::new();
        for name in asked {
            if let Ok(key) = world.names.resolve(name) {
                asked_of.entry(key).or_default().insert(name.clone());
            }
        }
        // Of these nobody knows yet whether they exist; those who asked wait for their endpoints.
        let is_wish =
            |key: &ServiceKey| world.on_demand.contains(key) && !world.snapshots.contains_key(key);
        for (key, service) in world.config.services.iter().filter(|(key, _)| may_ask(key)) {
            if is_wish(key) && !asked_of.contains_key(key) {
                continue;
            }
            let (name, xds) = (key.to_string(), &service.xds);
            let identity = view.identity.as_deref();
            let cluster = cluster(&name, service, dialect, identity);
            if let Some(mtls) = xds.mtls.as_ref().filter(|_| dialect == Dialect::Envoy) {
                self.identities.insert(identity.unwrap_or(&mtls.identity).to_owned());
            }
            self.add(Kind::Cluster, resource(&name, &cluster));
            if is_wish(key) {
                self.pending.insert(name.as_str().into());
            }
            if let Some(snapshot) = world.snapshots.get(key) {
                let place = view.place.clone().filter(|_| xds.priority_by_zone);
                let made = assignments.get((key.clone(), dialect, place), snapshot, xds);
                self.add(Kind::Endpoint, made);
            }
            let targets = targets(key, xds, may_ask);
            if targets.is_empty() {
                continue;
            }
            self.add(Kind::Route, resource(&name, &route(&name, &targets, xds, dialect)));
            match dialect {
                Dialect::Envoy => {
                    if let Some(listen) = xds.listen {
                        let traced = xds.tracing.as_ref();
                        let listener = listener::egress(&name, listen, &name, traced);
                        self.add(Kind::Listener, resource(&name, &listener));
                    }
                }
                Dialect::Grpc => {
                    let mut names = world.names.of(key);
                    names.append(asked_of.get_mut(key).unwrap_or(&mut BTreeSet::new()));
                    for one in names {
                        self.add(Kind::Listener, resource(&one, &listener::api(&one, &name)));
                    }
                }
            }
        }
    }

    fn ingress(&mut self, world: &World, service: &str, own: Option<IpAddr>) {
        let Ok(key) = world.names.resolve(service) else { return };
        let Some(xds) = world.config.services.get(key).map(|service| &service.xds) else { return };
        let Some(ingress) = &xds.ingress else { return };
        let name = format!("ingress/{key}");
        let at = |address: SocketAddr, otherwise: Option<IpAddr>| {
            let own = own.or(otherwise).filter(|_| address.ip().is_unspecified());
            own.map_or(address, |own| SocketAddr::new(own, address.port()))
        };
        let application = at(ingress.application, Some(Ipv4Addr::LOCALHOST.into()));
        let cluster = cluster::local(&name, xds, application);
        // Faults, retries and hashes are the client's side.
        let plain = Xds::default();
        let route = route(&name, &[(name.clone(), 1)], &plain, Dialect::Envoy);
        let listen = at(ingress.listen, None);
        let said = (ingress, xds.tracing.as_ref());
        let listener = listener::ingress(&name, listen, &name, said);
        self.identities.extend(ingress.identity.clone());
        self.add(Kind::Cluster, resource(&name, &cluster));
        self.add(Kind::Route, resource(&name, &route));
        self.add(Kind::Listener, resource(&name, &listener));
    }

    /// Keys go to whom they belong, and else only where the configuration says so.
    fn secrets(&mut self, world: &World, view: &View) {
        for name in std::mem::take(&mut self.identities) {
            let Some(identity) = world.config.identities.get(&name) else { continue };
            let owner = identity.belongs_to.as_ref();
            let is_owner = owner.is_some_and(|rule| rule.accepts(view.caller.names.as_ref()));
            let is_trusted = world.config.secrets.local_peers && view.caller.is_local;
            if !is_owner && !is_trusted {
                continue;
            }
            if let Some(files) = world.secrets.get(&name) {
                for secret in secrets(&name, files) {
                    self.add(Kind::Secret, secret);
                }
            }
        }
    }

    /// Also the kinds of which there is nothing: that is an answer too.
    fn resources(mut self, before: Option<&Resources>) -> Resources {
        let mut resources = Resources::default();
        resources.set_pending(std::mem::take(&mut self.pending));
        for kind in Kind::ALL {
            let said = self.by_kind.remove(&kind).unwrap_or_default();
            resources.set(kind, encode::kind(said, before.and_then(|all| all.kind(kind))));
        }
        resources
    }
}

/// Where a service's calls go. A part of a split that the client may not ask for is as if it were
/// not there.
fn targets(
    key: &ServiceKey,
    xds: &Xds,
    may_ask: impl Fn(&ServiceKey) -> bool,
) -> Vec<(String, u32)> {
    if xds.split.is_empty() {
        return vec![(key.to_string(), 1)];
    }
    let parts = xds.split.iter().map(|part| (part.key(key), part.weight));
    let parts = parts.filter(|(key, weight)| *weight > 0 && may_ask(key));
    parts.map(|(key, weight)| (key.to_string(), weight)).collect()
}

#[cfg(test)]
mod tests;
