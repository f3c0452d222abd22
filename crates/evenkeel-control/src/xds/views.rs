//! The views that have clients, kept up to date: this is what streams ask. One loop makes all views
//! anew when there is news, instead of each stream its own, so that the work grows with the views
//! and not with the clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use evenkeel_proto::envoy::config::core::v3::Node;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tonic::Status;

use super::{
    resource::{Followed, Kind, Resources, Views},
    say::{Assignments, World, make},
    secrets::{LOOK_INTERVAL, SecretSource},
    view::{Role, View},
};
use crate::{
    control::{Control, lock},
    names::{NameError, normal},
    peer::Peer,
};

/// The most views that have clients.
pub const VIEWS_MAX: usize = 1_000;
/// The most names beside the usual forms that clients of a view may ask for.
pub const ASKED_MAX: usize = 1_000;
/// How long clients wait for services of which no source has told endpoints; then they get the
/// others.
pub const SYNC_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long news is gathered before views are made: a rolling update is many events.
const GATHER: Duration = Duration::from_millis(10);

/// The views of a process; clones are the same.
#[derive(Clone)]
pub struct NodeViews {
    inner: Arc<Inner>,
}

struct Inner {
    control: Control,
    secrets: Mutex<SecretSource>,
    since: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    views: BTreeMap<View, Live>,
    assignments: Assignments,
}

/// A view that has, or just had, clients.
struct Live {
    resources: watch::Sender<Option<Arc<Resources>>>,
    asked: BTreeSet<String>,
}

impl NodeViews {
    /// The views of what `control` knows. They follow it while [`NodeViews::run`] runs.
    #[must_use]
    pub fn new(control: Control) -> Self {
        let inner = Inner {
            control,
            secrets: Mutex::default(),
            since: Instant::now(),
            state: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Keeps all views up to date, for ever.
    pub async fn run(self) {
        let mut news = self.inner.control.news();
        // What came before this began is news too.
        news.mark_changed();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let in_time = self.inner.since + SYNC_WAIT_MAX;
        let mut waits = true;
        loop {
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                _ = looks.tick() => if !self.look().await { continue },
                () = sleep_until(in_time), if waits => waits = false,
            }
            sleep(GATHER).await;
            news.borrow_and_update();
            self.refresh();
        }
    }

    /// Looks at the files of identities; true when something in them is new.
    async fn look(&self) -> bool {
        let views = self.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let Inner { control, secrets, .. } = &*views.inner;
            let identities = control.directory().config.identities.clone();
            lock(secrets).look(&identities, control)
        });
        looked.await.unwrap_or(false)
    }

    /// Makes all views anew that have clients, and lets go of those that have none.
    fn refresh(&self) {
        let world = self.world();
        let mut state = lock(&self.inner.state);
        let State { views, assignments } = &mut *state;
        views.retain(|_, live| live.resources.receiver_count() > 0);
        for (view, live) in views {
            // What does not exist now is asked for again by who wants it.
            live.asked.retain(|name| {
                world.names.resolve(name).is_ok() || world.names.on_demand(name).is_none()
            });
            self.make(&world, view, live, assignments);
        }
        assignments.keep(&world);
    }

    fn make(&self, world: &World, view: &View, live: &Live, assignments: &mut Assignments) {
        if !self.is_ready() {
            return;
        }
        let before = live.resources.borrow().clone();
        let made = make(world, view, &live.asked, assignments, before.as_deref());
        if before.as_deref() != Some(&made) {
            live.resources.send_replace(Some(Arc::new(made)));
        }
    }

    /// Whether clients are answered, from then on. Before all services are known, most clients
    /// would be told of clusters without endpoints.
    fn is_ready(&self) -> bool {
        let Inner { since, control, .. } = &*self.inner;
        *control.synced().borrow() || since.elapsed() >= SYNC_WAIT_MAX
    }

    fn world(&self) -> World {
        let directory = self.inner.control.directory();
        let snapshots = directory.services.iter().filter_map(|(key, service)| {
            Some((key.clone(), service.current().snapshot()?.clone()))
        });
        World {
            config: directory.config.clone(),
            on_demand: directory.on_demand.clone(),
            names: directory.names.clone(),
            snapshots: snapshots.collect(),
            secrets: lock(&self.inner.secrets).known().clone(),
        }
    }

    /// An ingress has to be of a service that has one.
    fn check(&self, view: &View) -> Result<(), Status> {
        let Role::Ingress { service, .. } = &view.role else { return Ok(()) };
        let directory = self.inner.control.directory();
        let key = directory.names.resolve(service).map_err(|error| match error {
            NameError::Bad(message) => Status::invalid_argument(message),
            NameError::Unknown(message) => Status::not_found(message),
        })?;
        match directory.config.services.get(key).and_then(|service| service.xds.ingress.as_ref()) {
            Some(_) => Ok(()),
            None => {
                let message = format!("expected a service with `xds: {{ingress: …}}`, got {key}");
                Err(Status::failed_precondition(message))
            }
        }
    }
}

impl Views for NodeViews {
    fn follow(&self, node: &Node, peer: &Peer) -> Result<Followed, Status> {
        let view = View::of(node, peer)?;
        self.check(&view)?;
        let name = view.name();
        let world = self.world();
        let mut state = lock(&self.inner.state);
        let State { views, assignments } = &mut *state;
        if views.len() >= VIEWS_MAX && !views.contains_key(&view) {
            views.retain(|_, live| live.resources.receiver_count() > 0);
            if views.len() >= VIEWS_MAX {
                let message = format!("there are {VIEWS_MAX} views; nodes differ too much");
                return Err(Status::resource_exhausted(message));
            }
        }
        let live = views.entry(view.clone()).or_insert_with(|| Live {
            resources: watch::Sender::new(None),
            asked: BTreeSet::new(),
        });
        let resources = live.resources.subscribe();
        // Made now, and not only for the first: the newest is ready for who comes now.
        self.make(&world, &view, live, assignments);
        Ok(Followed { view: name, resources })
    }

    fn asked(
        &self,
        followed: &watch::Receiver<Option<Arc<Resources>>>,
        kind: Kind,
        names: &[String],
    ) {
        let current = followed.borrow().clone();
        let known = current.as_deref().and_then(|all| all.kind(kind));
        let is_new = |name: &&String| {
            known.is_none_or(|all| !all.by_name.contains_key(&name[..])) && normal(name).is_ok()
        };
        let mut new = names.iter().filter(is_new).peekable();
        // Nearly always: each answer to a response names everything again.
        if new.peek().is_none() {
            return;
        }
        let world = self.world();
        let mut state = lock(&self.inner.state);
        let State { views, assignments } = &mut *state;
        let is_followed = |live: &Live| live.resources.subscribe().same_channel(followed);
        let Some((view, live)) = views.iter_mut().find(|(_, live)| is_followed(live)) else {
            return;
        };
        let before = live.asked.len();
        let leads_somewhere = |name: &&String| world.names.resolve(name).is_ok();
        for name in new.filter(leads_somewhere).take(ASKED_MAX - before) {
            live.asked.insert(name.clone());
        }
        if live.asked.len() > before {
            self.make(&world, view, live, assignments);
        }
    }
}

impl fmt::Debug for NodeViews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let views = lock(&self.inner.state).views.len();
        f.debug_struct("NodeViews").field("views", &views).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
