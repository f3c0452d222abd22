//! EndpointSlices: one watch for each service whose endpoints the configuration does not give, and
//! one for each Service that says where clients are. The watches come and go with the
//! configuration; what a lost one said last stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use evenkeel_core::Address;
use evenkeel_kubernetes::{Cluster, Port, Selection, Slices, State};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{control::Control, key::ServiceKey, merge::Change, snapshot::Endpoint};

/// How long it takes to look for a cluster again where there was none.
const CLUSTER_RETRY: Duration = Duration::from_secs(10);
/// How often services on demand are looked at, whether somebody still uses them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// The source's name where it concerns no single service.
const SOURCE_NAME: &str = "kubernetes";
/// The source's name where it is about clients.
const CLIENTS_SOURCE_NAME: &str = "clients";

/// What a watch is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// The endpoints of a service that is served.
    Endpoints(ServiceKey),
    /// The places of the clients that a Service selects.
    Clients(ServiceKey),
}

/// Watches what [`Control::wanted`] and [`Control::client_services`] say, for ever. `cluster` is
/// asked when the first service is wanted, and again every 10 s while it fails.
pub async fn run(control: Control, cluster: impl Fn() -> Result<Cluster, String>) {
    let (mut wanted, mut clients) = (control.wanted(), control.client_services());
    let mut watches = Watches { control, running: JoinSet::new(), by_subject: BTreeMap::new() };
    let mut found: Option<Cluster> = None;
    let mut sweeps = interval(SWEEP_INTERVAL);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let endpoints = wanted.borrow_and_update().clone();
        let places = clients.borrow_and_update().clone();
        let subjects = endpoints.iter().cloned().map(Subject::Endpoints);
        let subjects: BTreeSet<Subject> =
            subjects.chain(places.iter().cloned().map(Subject::Clients)).collect();
        if found.is_none() && !subjects.is_empty() {
            found = watches.find(&cluster);
        }
        if let Some(cluster) = &found {
            watches.follow(cluster, &subjects);
        }
        let missing = found.is_none() && !subjects.is_empty();
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            changed = clients.changed() => if changed.is_err() { return },
            () = sleep(CLUSTER_RETRY), if missing => {}
            _ = sweeps.tick() => watches.control.sweep(),
            // Only those that were ended end; taking them out keeps the set small.
            Some(_) = watches.running.join_next() => {}
        }
    }
}

/// Tasks, one for each subject; they end with this.
struct Watches {
    control: Control,
    running: JoinSet<()>,
    by_subject: BTreeMap<Subject, AbortHandle>,
}

impl Watches {
    fn find(&self, cluster: &impl Fn() -> Result<Cluster, String>) -> Option<Cluster> {
        let found = cluster();
        match &found {
            Ok(cluster) => {
                self.control.forget_source(SOURCE_NAME);
                tracing::info!(server = cluster.server(), "watching EndpointSlices");
            }
            Err(error) => self.control.source(SOURCE_NAME, Err(error.clone())),
        }
        found.ok()
    }

    fn follow(&mut self, cluster: &Cluster, subjects: &BTreeSet<Subject>) {
        let gone: Vec<Subject> =
            self.by_subject.keys().filter(|of| !subjects.contains(of)).cloned().collect();
        for subject in gone {
            if let Some(task) = self.by_subject.remove(&subject) {
                task.abort();
            }
            self.control.forget_source(&subject.source_name());
        }
        for subject in subjects {
            if !self.by_subject.contains_key(subject) {
                let task = one(self.control.clone(), cluster.clone(), subject.clone());
                self.by_subject.insert(subject.clone(), self.running.spawn(task));
            }
        }
    }
}

impl Subject {
    fn source_name(&self) -> String {
        match self {
            Self::Endpoints(key) => format!("{SOURCE_NAME}/{key}"),
            Self::Clients(key) => format!("{CLIENTS_SOURCE_NAME}/{key}"),
        }
    }

    fn key(&self) -> &ServiceKey {
        match self {
            Self::Endpoints(key) | Self::Clients(key) => key,
        }
    }

    /// Gives the control what the slices say; `None` when the task ends with its service.
    fn take(&self, control: &Control, slices: &Slices, port: Option<&Port>) -> Option<Told> {
        match self {
            // Its task ends with its place among those wanted.
            Self::Endpoints(key) if slices.is_empty() && control.absent(key) => None,
            Self::Endpoints(key) => Some(take(control, key, slices, port)),
            Self::Clients(key) => {
                control.locate(key, slices.zones());
                Some(Ok(()))
            }
        }
    }
}

/// Whether what was read could be used.
type Told = Result<(), String>;

/// Watches one Service until the task is ended.
async fn one(control: Control, cluster: Cluster, subject: Subject) {
    let source = subject.source_name();
    let (port, watched) = match wanted(subject.key()) {
        Ok(both) => both,
        Err(error) => return control.source(&source, Err(error)),
    };
    let mut watch = cluster.watch(watched);
    loop {
        let outcome = match watch.changed().await {
            State::Pending => continue,
            State::Failed(error) => Err(error.message.clone()),
            State::Good { slices, error, .. } => {
                let Some(told) = subject.take(&control, &slices, port.as_ref()) else { continue };
                told.and_then(|()| error.map_or(Ok(()), |error| Err(error.message.clone())))
            }
            // The enum may grow.
            _ => continue,
        };
        control.source(&source, outcome);
    }
}

/// The port, if the key has one, and the Service.
fn wanted(key: &ServiceKey) -> Result<(Option<Port>, evenkeel_kubernetes::ServiceKey), String> {
    let port = key.port.as_ref().map(|port| port.to_string().parse()).transpose()?;
    Ok((port, evenkeel_kubernetes::ServiceKey::new(&key.namespace, &key.name)?))
}

fn take(control: &Control, key: &ServiceKey, slices: &Slices, port: Option<&Port>) -> Told {
    let select = |port: Port| slices.select(&Selection::new(port));
    let selected = match port {
        Some(port) => select(port.clone()).map_err(|mismatch| mismatch.to_string())?,
        // A Service with one port need not name it.
        None => select(Port::Named(String::new())).or_else(|mismatch| {
            let only = only_port(&mismatch.offered).ok_or_else(|| {
                let offered = mismatch.offered.join(", ");
                format!(
                    "expected one port in the EndpointSlices of {key}, they have {offered}; name \
                     the one that is meant (`port: 8000`, or {key}:8000)"
                )
            })?;
            select(only).map_err(|mismatch| mismatch.to_string())
        })?,
    };
    let hints = slices.hints();
    let endpoints = selected.iter().filter_map(|endpoint| {
        // Two addresses of one pod would be two shares for it.
        let Some(Address::Tcp(address)) = endpoint.addresses().first() else { return None };
        let attributes = endpoint.attributes();
        let (zone, pod) = (attributes.zone.clone(), attributes.pod.clone());
        let for_zones = hints.get(&address.ip()).copied().unwrap_or_default().into();
        Some(Endpoint { zone, pod, for_zones, ..Endpoint::new(*address) })
    });
    control.watched(key, Change::Replace(endpoints.collect()));
    Ok(())
}

/// The one port that is offered, as `name=number` or, without a name, as `number`.
fn only_port(offered: &[String]) -> Option<Port> {
    let [only] = offered else { return None };
    let (name, _) = only.split_once('=').unwrap_or(("", only));
    Some(Port::Named(name.to_owned()))
}
