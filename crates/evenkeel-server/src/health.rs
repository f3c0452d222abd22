//! Health that knows of the drain: once it started, nothing can say SERVING again, as in grpc-go's
//! `health.Server.Shutdown`. tonic-health alone would let a service's own check undo it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tokio::sync::Mutex;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::{HealthReporter, health_reporter},
};

/// Sets what `grpc.health.v1.Health` answers; from [`crate::Server::health`].
#[derive(Clone)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

struct State {
    reporter: HealthReporter,
    serving: BTreeMap<String, bool>,
    draining: bool,
}

impl fmt::Debug for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    /// Services start as SERVING, and so does the empty name, which is the server as a whole.
    pub(crate) fn new(services: Vec<String>) -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = health_reporter();
        let serving = services.into_iter().map(|name| (name, true)).collect();
        let state = State { reporter, serving, draining: false };
        (Self { state: Arc::new(Mutex::new(state)) }, service)
    }

    /// Says whether `service` (the empty name: the server) is serving. Once a drain has started it
    /// has no effect.
    pub async fn set(&self, service: &str, serving: bool) {
        let mut state = self.state.lock().await;
        if state.draining {
            return;
        }
        state.serving.insert(service.to_owned(), serving);
        state.reporter.set_service_status(service, status(serving)).await;
    }

    /// Hands the configured names to the reporter, whose interface is asynchronous.
    pub(crate) async fn publish(&self) {
        let state = self.state.lock().await;
        for (name, serving) in &state.serving {
            state.reporter.set_service_status(name, status(*serving)).await;
        }
    }

    pub(crate) async fn start_drain(&self) {
        let mut state = self.state.lock().await;
        state.draining = true;
        state.reporter.set_service_status("", ServingStatus::NotServing).await;
        for name in state.serving.keys() {
            state.reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
    }

    /// Ends the `Watch` streams, which have no end of their own and would hold their connections
    /// until the grace is over.
    pub(crate) async fn end_watches(&self) {
        let mut state = self.state.lock().await;
        state.reporter.clear_service_status("").await;
        for name in std::mem::take(&mut state.serving).into_keys() {
            state.reporter.clear_service_status(&name).await;
        }
    }
}

fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}
