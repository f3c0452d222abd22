//! The engine: what is configured, what sources say of it, and who reads it. Writers are few and
//! rare (a reload, a watch event) and take a lock; readers load the directory and then follow one
//! service each. It has no task: whoever brings news runs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    config::{Config, Limits, ServiceConfig},
    demand::Demand,
    grpclb::{ClientTotals, EncodedList, Ring, Slots, drop_token},
    key::ServiceKey,
    merge::{Change, Merge},
    names::{NameError, NameRules, Names},
    newest::Newest,
    observe::{Refusals, Warnings},
    snapshot::{ENDPOINTS_MAX, Published, Snapshot},
    weights::{ClientLoads, Factors, LoadAware},
    zones::Zones,
};

mod on_demand;

pub(crate) use on_demand::Subscriber;

/// What is served in this process; clones are the same.
#[derive(Clone)]
pub struct Control {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    rules: NameRules,
    /// What flags say; it is in every configuration.
    flags: Config,
    directory: ArcSwap<Directory>,
    /// Held while the directory changes.
    asked: Mutex<Asked>,
    sources: Mutex<BTreeMap<String, SourceStatus>>,
    watched: watch::Sender<Arc<BTreeSet<ServiceKey>>>,
    load_aware: watch::Sender<Arc<BTreeMap<ServiceKey, LoadAware>>>,
    client_loads: ClientLoads,
    /// Somebody has said what there is beside the flags, be it nothing.
    is_configured: AtomicBool,
    synced: watch::Sender<bool>,
    /// No source is bad.
    good: watch::Sender<bool>,
    news: News,
    pub(crate) refusals: Refusals,
    pub(crate) warnings: Warnings,
    pub(crate) zones: Zones,
}

/// Counts what has changed: for those who read everything, and look again then.
#[derive(Clone, Default)]
struct News(watch::Sender<u64>);

impl News {
    fn add(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// What the directory is made of, beside the flags.
#[derive(Default)]
struct Asked {
    file: Config,
    demand: Demand,
}

/// Names and services at one moment.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) names: Names,
    pub(crate) services: BTreeMap<ServiceKey, Arc<Service>>,
    /// The file's, with what flags and clients add.
    pub(crate) config: Arc<Config>,
    /// Those of the services that nobody has configured.
    pub(crate) on_demand: BTreeSet<ServiceKey>,
}

impl Directory {
    pub(crate) fn limits(&self) -> Limits {
        self.config.limits
    }
}

/// How a source is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    /// It says what is true now; if not, what it said last is served.
    pub good: bool,
    /// How often it turned bad.
    pub failures: u64,
    /// What is wrong now.
    pub error: Option<String>,
    /// When it last became good or bad, in seconds since 1970.
    pub since_unix_s: u64,
}

/// One service and its readers.
pub(crate) struct Service {
    pub(crate) key: ServiceKey,
    merge: Mutex<Merge>,
    published: watch::Sender<Published>,
    list: Newest<EncodedList>,
    ring: Newest<Ring>,
    pub(crate) totals: Mutex<ClientTotals>,
    pub(crate) slots: Mutex<Slots>,
    pub(crate) streams: AtomicUsize,
    /// Streams of xDS that name it, where it is here on demand.
    subscribers: AtomicUsize,
    pub(crate) streams_total: AtomicU64,
    pub(crate) lists_sent: AtomicU64,
    news: News,
}

impl Control {
    /// Serves what `flags` say until [`Control::configure`] adds to it, and is not in sync before.
    #[must_use]
    pub fn new(rules: NameRules, flags: Config) -> Self {
        let inner = Inner {
            rules,
            flags,
            directory: ArcSwap::default(),
            asked: Mutex::default(),
            sources: Mutex::default(),
            watched: watch::Sender::default(),
            load_aware: watch::Sender::default(),
            client_loads: ClientLoads::default(),
            is_configured: AtomicBool::new(false),
            synced: watch::Sender::new(false),
            good: watch::Sender::new(true),
            news: News::default(),
            refusals: Refusals::default(),
            warnings: Warnings::default(),
            zones: Zones::default(),
        };
        let control = Self { inner: Arc::new(inner) };
        control.rebuild(&lock(&control.inner.asked));
        control
    }

    /// Serves what this configuration and the flags say, and nothing else. Services that stay keep
    /// their clients and their endpoints; clients of those that go are told. Where flags are all
    /// there is, it is called with an empty one: before, nobody knows that there is no more.
    pub fn configure(&self, file: &Config) {
        let mut asked = lock(&self.inner.asked);
        asked.file = file.clone();
        self.inner.is_configured.store(true, Ordering::Relaxed);
        self.rebuild(&asked);
    }

    fn rebuild(&self, asked: &Asked) {
        let inner = &*self.inner;
        let mut config = asked.file.with_flags(&inner.flags);
        self.add_default(&mut config);
        let mut on_demand = asked.demand.keys();
        on_demand.retain(|key| !config.services.contains_key(key));
        for key in &on_demand {
            config.services.entry(key.clone()).or_default();
        }
        config.fill_load_aware(inner.flags.load_aware);
        let before = inner.directory.load_full();
        let mut services = BTreeMap::new();
        for (key, service) in &config.services {
            let kept = before.services.get(key).cloned();
            let kept =
                kept.unwrap_or_else(|| Arc::new(Service::new(key.clone(), inner.news.clone())));
            kept.configure(service.clone());
            services.insert(key.clone(), kept);
        }
        let names = Names::new(inner.rules.clone(), &config);
        let load_aware = config.services.iter();
        let load_aware: BTreeMap<_, _> = load_aware
            .filter_map(|(key, service)| Some((key.clone(), service.policy.load_aware?)))
            .collect();
        let config = Arc::new(config);
        let directory = Arc::new(Directory { names, services, config, on_demand });
        inner.directory.store(directory.clone());
        inner.news.add();
        for (key, service) in &before.services {
            if !directory.services.contains_key(key) {
                info!(service = %key, "not served any more");
                service.published.send_replace(Published::Gone);
            }
        }
        let watched = directory.services.values().filter(|service| service.merge().is_watched());
        let watched: BTreeSet<_> = watched.map(|service| service.key.clone()).collect();
        inner.watched.send_if_modified(|now| {
            let changed = **now != watched;
            *now = Arc::new(watched);
            changed
        });
        inner.load_aware.send_if_modified(|now| {
            let changed = **now != load_aware;
            *now = Arc::new(load_aware);
            changed
        });
        inner.zones.want(&directory.config.clients);
        inner.note_sync();
    }

    /// `BACKEND_SERVICE_NAME` is a service also where nothing else says so.
    fn add_default(&self, config: &mut Config) {
        let Some(key) = &self.inner.rules.default_service else { return };
        let same = |other: &&ServiceKey| {
            let port = key.port.is_none() || other.port.is_none() || key.port == other.port;
            (&other.namespace, &other.name) == (&key.namespace, &key.name) && port
        };
        if !config.services.keys().any(|other| same(&other)) {
            config.services.insert(key.clone(), ServiceConfig::default());
        }
    }

    /// Takes what a watch says of a service; false when the service is not served any more.
    pub fn watched(&self, key: &ServiceKey, change: Change) -> bool {
        let directory = self.inner.directory.load();
        let Some(service) = directory.services.get(key) else { return false };
        service.publish(|merge| merge.watched(change));
        self.inner.note_sync();
        true
    }

    /// Takes what the weights of a service's endpoints are multiplied by.
    pub(crate) fn weigh(&self, key: &ServiceKey, factors: Factors) {
        if let Some(service) = self.inner.directory.load().services.get(key) {
            service.publish(|merge| merge.weigh(factors));
        }
    }

    /// What clients report of the load of endpoints.
    pub(crate) fn client_loads(&self) -> &ClientLoads {
        &self.inner.client_loads
    }

    /// The services whose weights follow the load.
    pub(crate) fn load_aware(&self) -> watch::Receiver<Arc<BTreeMap<ServiceKey, LoadAware>>> {
        self.inner.load_aware.subscribe()
    }

    /// Notes how a source is doing. The first error of several is logged.
    pub fn source(&self, name: &str, outcome: Result<(), String>) {
        let mut sources = self.inner.sources();
        let status = sources.entry(name.to_owned()).or_default();
        let turned = status.good != outcome.is_ok() || status.since_unix_s == 0;
        if turned {
            status.since_unix_s = unix_seconds();
        }
        match outcome {
            Ok(()) => {
                if turned && status.failures > 0 {
                    info!(source = name, "good again");
                }
                (status.good, status.error) = (true, None);
            }
            Err(error) => {
                if turned || status.error.as_ref() != Some(&error) {
                    warn!(source = name, error, "what it said last is served");
                }
                status.failures += u64::from(turned);
                (status.good, status.error) = (false, Some(error));
            }
        }
        self.inner.note_good(&sources);
    }

    /// Forgets a source that is not asked any more.
    pub fn forget_source(&self, name: &str) {
        let mut sources = self.inner.sources();
        sources.remove(name);
        self.inner.note_good(&sources);
    }

    /// True while no source is bad: what is served is what is true now.
    #[must_use]
    pub fn good(&self) -> watch::Receiver<bool> {
        self.inner.good.subscribe()
    }

    /// Changes with every configuration and every snapshot.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.inner.news.0.subscribe()
    }

    /// All sources that have spoken.
    #[must_use]
    pub fn sources(&self) -> BTreeMap<String, SourceStatus> {
        self.inner.sources().clone()
    }

    /// The services whose endpoints have to be watched.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<Arc<BTreeSet<ServiceKey>>> {
        self.inner.watched.subscribe()
    }

    /// True once the first configuration is here and every service of it and of the flags has had a
    /// snapshot, and from then on.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.inner.synced.subscribe()
    }

    /// The newest snapshots of a service; `None` when it is not served.
    #[must_use]
    pub fn follow(&self, key: &ServiceKey) -> Option<watch::Receiver<Published>> {
        Some(self.directory().services.get(key)?.follow())
    }

    /// The service that a client's name leads to.
    ///
    /// # Errors
    ///
    /// [`NameError`], with what is served.
    pub fn resolve(&self, name: &str) -> Result<ServiceKey, NameError> {
        self.directory().names.resolve(name).cloned()
    }

    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.inner.directory.load_full()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.directory();
        f.debug_struct("Control").field("services", &directory.services.keys()).finish()
    }
}

impl Inner {
    fn sources(&self) -> MutexGuard<'_, BTreeMap<String, SourceStatus>> {
        lock(&self.sources)
    }

    fn note_good(&self, sources: &BTreeMap<String, SourceStatus>) {
        let all = sources.values().all(|source| source.good);
        self.good.send_if_modified(|good| std::mem::replace(good, all) != all);
    }

    fn note_sync(&self) {
        if *self.synced.borrow() || !self.is_configured.load(Ordering::Relaxed) {
            return;
        }
        let directory = self.directory.load();
        let mut services = directory.services.values();
        // Whoever asks for what is not there does not keep the others back.
        let is_known = |service: &Arc<Service>| {
            service.published.borrow().snapshot().is_some()
                || directory.on_demand.contains(&service.key)
        };
        if services.all(is_known) {
            self.synced.send_replace(true);
        }
    }
}

impl Directory {
    pub(crate) fn resolve(&self, name: &str) -> Result<&Arc<Service>, NameError> {
        let key = self.names.resolve(name)?;
        self.services.get(key).ok_or_else(|| NameError::Unknown(format!("{key} is not served")))
    }
}

impl Service {
    fn new(key: ServiceKey, news: News) -> Self {
        Self {
            merge: Mutex::new(Merge::new(key.clone())),
            key,
            published: watch::Sender::new(Published::Pending),
            list: Newest::default(),
            ring: Newest::default(),
            totals: Mutex::default(),
            slots: Mutex::default(),
            streams: AtomicUsize::new(0),
            subscribers: AtomicUsize::new(0),
            streams_total: AtomicU64::new(0),
            lists_sent: AtomicU64::new(0),
            news,
        }
    }

    fn merge(&self) -> MutexGuard<'_, Merge> {
        lock(&self.merge)
    }

    fn configure(&self, config: ServiceConfig) {
        for drop in &config.policy.drops {
            lock(&self.totals).know(drop_token(&drop.category));
        }
        self.publish(|merge| merge.configure(config));
    }

    /// Publishes under the lock, so that the newest comes last.
    fn publish(&self, change: impl FnOnce(&mut Merge) -> Option<Arc<Snapshot>>) {
        let mut merge = self.merge();
        let Some(snapshot) = change(&mut merge) else { return };
        let (version, endpoints) = (snapshot.version, snapshot.endpoints.len());
        info!(service = %self.key, version, endpoints, "a new snapshot");
        if merge.left_out() > 0 {
            let left_out = merge.left_out();
            warn!(service = %self.key, left_out, "more than {ENDPOINTS_MAX} endpoints");
        }
        self.published.send_replace(Published::Current(snapshot));
        self.news.add();
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    pub(crate) fn current(&self) -> Published {
        self.published.borrow().clone()
    }

    pub(crate) fn left_out(&self) -> usize {
        self.merge().left_out()
    }

    /// The list of a snapshot for clients that get all of it, or all of their zone's part.
    pub(crate) fn list(&self, snapshot: &Snapshot, part: Option<&Arc<str>>) -> Arc<EncodedList> {
        self.list.get(snapshot, part, || {
            let serving: Vec<_> = snapshot.serving_for(part.map(|zone| &**zone)).collect();
            EncodedList::new(&serving, &snapshot.policy.drops)
        })
    }

    /// The order of a snapshot's endpoints for clients that get a subset.
    pub(crate) fn ring(&self, snapshot: &Snapshot, part: Option<&Arc<str>>) -> Arc<Ring> {
        let serving = || snapshot.serving_for(part.map(|zone| &**zone)).cloned().collect();
        self.ring.get(snapshot, part, || Ring::new(serving()))
    }

    /// What clients reported so far.
    pub(crate) fn totals(&self) -> ClientTotals {
        lock(&self.totals).clone()
    }

    /// Streams that are open.
    pub(crate) fn open_streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Whole at any time: nothing that holds one of these locks can panic half way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
