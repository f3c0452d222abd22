//! EndpointSlices: one watch for each service whose endpoints the configuration does not give. The
//! watches come and go with the configuration; what a lost one said last stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
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

/// Watches what [`Control::wanted`] says, for ever. `cluster` is asked when the first service is
/// wanted, and again every 10 s while it fails.
pub async fn run(control: Control, cluster: impl Fn() -> Result<Cluster, String>) {
    let mut wanted = control.wanted();
    let mut watches = Watches { control, running: JoinSet::new(), by_key: BTreeMap::new() };
    let mut found: Option<Cluster> = None;
    let mut sweeps = interval(SWEEP_INTERVAL);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let keys = wanted.borrow_and_update().clone();
        if found.is_none() && !keys.is_empty() {
            found = watches.find(&cluster);
        }
        if let Some(cluster) = &found {
            watches.follow(cluster, &keys);
        }
        let missing = found.is_none() && !keys.is_empty();
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep(CLUSTER_RETRY), if missing => {}
            _ = sweeps.tick() => watches.control.sweep(),
            // Only those that were ended end; taking them out keeps the set small.
            Some(_) = watches.running.join_next() => {}
        }
    }
}

/// Tasks, one for each service; they end with this.
struct Watches {
    control: Control,
    running: JoinSet<()>,
    by_key: BTreeMap<ServiceKey, AbortHandle>,
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

    fn follow(&mut self, cluster: &Cluster, keys: &BTreeSet<ServiceKey>) {
        let gone: Vec<ServiceKey> =
            self.by_key.keys().filter(|key| !keys.contains(key)).cloned().collect();
        for key in gone {
            if let Some(task) = self.by_key.remove(&key) {
                task.abort();
            }
            self.control.forget_source(&source_name(&key));
        }
        for key in keys {
            if !self.by_key.contains_key(key) {
                let task = one(self.control.clone(), cluster.clone(), key.clone());
                self.by_key.insert(key.clone(), self.running.spawn(task));
            }
        }
    }
}

fn source_name(key: &ServiceKey) -> String {
    format!("{SOURCE_NAME}/{key}")
}

/// Watches one service until the task is ended.
async fn one(control: Control, cluster: Cluster, key: ServiceKey) {
    let source = source_name(&key);
    let (port, watched) = match wanted(&key) {
        Ok(both) => both,
        Err(error) => return control.source(&source, Err(error)),
    };
    let mut watch = cluster.watch(watched);
    loop {
        let outcome = match watch.changed().await {
            State::Pending => continue,
            State::Failed(error) => Err(error.message.clone()),
            // Its task ends with its place among those wanted.
            State::Good { slices, .. } if slices.is_empty() && control.absent(&key) => continue,
            State::Good { slices, error, .. } => take(&control, &key, &slices, port.as_ref())
                .and_then(|()| error.map_or(Ok(()), |error| Err(error.message.clone()))),
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

fn take(
    control: &Control,
    key: &ServiceKey,
    slices: &Arc<Slices>,
    port: Option<&Port>,
) -> Result<(), String> {
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
    let endpoints = selected.iter().filter_map(|endpoint| {
        // Two addresses of one pod would be two shares for it.
        let Some(Address::Tcp(address)) = endpoint.addresses().first() else { return None };
        let attributes = endpoint.attributes();
        let (zone, pod) = (attributes.zone.clone(), attributes.pod.clone());
        Some(Endpoint { zone, pod, ..Endpoint::new(*address) })
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
