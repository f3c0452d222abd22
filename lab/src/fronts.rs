//! The Envoy before each backend of a mesh. A pod is two processes then, the application and the
//! Envoy at the pod's address, and a fault that hits a pod hits both: the fleet has one of these,
//! so that every room of the lab plays on a mesh without knowing of it.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use rustix::process::Signal;

use crate::{
    envoy::{Envoy, Setup},
    error::LabError,
    run::Run,
};

/// Makes the bootstrap of the Envoy of the pod with an IP.
pub(crate) type Bootstrap = Box<dyn Fn(Ipv4Addr) -> Result<String, LabError> + Send + Sync>;

/// The Envoys before the backends of a phase, by the backends' numbers.
pub(crate) struct Fronts {
    run: Arc<Run>,
    phase: String,
    bootstrap: Bootstrap,
    running: BTreeMap<u8, Envoy>,
}

impl Fronts {
    /// None runs yet.
    pub(crate) fn new(run: Arc<Run>, phase: &str, bootstrap: Bootstrap) -> Self {
        Self { run, phase: phase.to_owned(), bootstrap, running: BTreeMap::new() }
    }

    /// Starts those of `pods` at once and waits until each serves.
    ///
    /// # Errors
    ///
    /// When one can't be started or is not LIVE in time.
    pub(crate) async fn start(&mut self, pods: &[(u8, Ipv4Addr)]) -> Result<(), LabError> {
        let mut starting = Vec::new();
        for (host, ip) in pods {
            let config = (self.bootstrap)(*ip)?;
            let name = format!("{}-envoy-{ip}", self.phase);
            // One application is behind it.
            let setup = Setup { name: &name, config: &config, concurrency: 1 };
            starting.push((*host, Envoy::spawn(&self.run, setup)?));
        }
        for (host, starting) in starting {
            self.running.insert(host, starting.ready().await?);
        }
        Ok(())
    }

    /// Sends `signal` to the one of `host`; `false` when it does not run.
    pub(crate) fn signal(&self, host: u8, signal: Signal) -> bool {
        self.running.get(&host).is_some_and(|envoy| envoy.signal(signal))
    }

    /// Ends the one of `host`, whose application has ended: as the kubelet ends a sidecar, last.
    ///
    /// # Errors
    ///
    /// When it does not end within 10 s.
    pub(crate) async fn end(&mut self, host: u8) -> Result<(), LabError> {
        let Some(envoy) = self.running.remove(&host) else { return Ok(()) };
        // False when it was killed together with its application.
        envoy.signal(Signal::TERM);
        envoy.gone("SIGTERM").await.map(|_| ())
    }

    /// Those that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Envoy> {
        self.running.values()
    }
}
