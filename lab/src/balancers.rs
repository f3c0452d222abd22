//! The balancers of one phase: real `grpclb` processes that watch the phase's API server, each on
//! an address of its own, and their status pages.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::{
    blocks::Block,
    clock::unix_s,
    error::LabError,
    http,
    run::Run,
    service::{Service, Starting},
    slices::Slices,
    spans::{self, Spans},
};

/// The port of grpclb, and of its status page.
const PORT: u16 = 9000;
const ADMIN_PORT: u16 = 9001;
/// How often clients report.
const REPORT_INTERVAL: &str = "1s";
/// How long a client's last report may be on its way.
const SETTLE_LIMIT: Duration = Duration::from_secs(3);

/// The balancers of a phase by their number.
pub(crate) struct Balancers {
    run: Arc<Run>,
    phase: String,
    block: Arc<Block>,
    kubeconfig: String,
    config: PathBuf,
    running: BTreeMap<u8, Service>,
    /// Where their spans go.
    spans: Option<Arc<Spans>>,
}

/// A balancer's status page, as far as the lab reads it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) clients_total: usize,
    pub(crate) services: Vec<ServiceStatus>,
}

/// One service in it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ServiceStatus {
    pub(crate) lists_sent: u64,
    pub(crate) client_stats: Totals,
}

/// Sums of what clients reported.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) reports: u64,
    pub(crate) started: u64,
    pub(crate) finished: u64,
    pub(crate) failed_to_send: u64,
    pub(crate) known_received: u64,
    pub(crate) dropped: BTreeMap<String, u64>,
}

/// Where the status page of balancer `number` of a block is; its metrics are there, too.
pub(crate) fn admin(block: &Block, number: u8) -> SocketAddr {
    SocketAddr::from((block.balancer_ip(number), ADMIN_PORT))
}

impl Balancers {
    /// None runs yet. `rules` are lines of YAML of the Service, such as its drops.
    ///
    /// # Errors
    ///
    /// When the configuration can't be written.
    pub(crate) fn new(
        run: Arc<Run>,
        phase: &str,
        block: Arc<Block>,
        slices: &Slices,
        rules: &str,
    ) -> Result<Self, LabError> {
        let config = run.path(&format!("{phase}-grpclb.yaml"));
        let (kubeconfig, phase) = (slices.kubeconfig(), phase.to_owned());
        let running = BTreeMap::new();
        let balancers = Self { run, phase, block, kubeconfig, config, running, spans: None };
        balancers.configure(rules)?;
        Ok(balancers)
    }

    /// Has each that is started from now on trace its streams.
    pub(crate) fn trace_to(&mut self, spans: Option<Arc<Spans>>) {
        self.spans = spans;
    }

    /// Writes the configuration anew, with `rules`; those that run follow it within about a second.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub(crate) fn configure(&self, rules: &str) -> Result<(), LabError> {
        let service = "services:\n- name: greeter\n  namespace: default\n  port: 8000\n";
        let (path, new) = (&self.config, self.config.with_extension("new"));
        // In one step: half a file would be read as a bad one.
        std::fs::write(&new, format!("{service}{rules}"))
            .and_then(|()| std::fs::rename(&new, path))
            .map_err(LabError::io(format!("can't write {}", path.display())))
    }

    /// Where balancer `number` is.
    pub(crate) fn address(&self, number: u8) -> SocketAddrV4 {
        SocketAddrV4::new(self.block.balancer_ip(number), PORT)
    }

    /// Starts balancers and waits until each accepts connections.
    ///
    /// # Errors
    ///
    /// When one can't be started or is not ready within 10 s.
    pub(crate) async fn start(&mut self, numbers: &[u8]) -> Result<(), LabError> {
        let spawned: Result<Vec<_>, _> = numbers
            .iter()
            .map(|number| {
                let mut command = self.run.command("grpclb");
                command
                    .env("GRPCLB_LISTEN", self.address(*number).to_string())
                    .env("GRPCLB_ADMIN_LISTEN", self.admin(*number).to_string())
                    .env("GRPCLB_CONFIG", &self.config)
                    .env("GRPCLB_KUBECONFIG", &self.kubeconfig)
                    .env("GRPCLB_CLIENT_STATS_INTERVAL", REPORT_INTERVAL)
                    .env("GRPCLB_DRAIN_DELAY", "0s");
                let name = format!("{}-balancer-{number}", self.phase);
                let traced = self.spans.iter();
                command.envs(traced.flat_map(|spans| spans.env(spans::BALANCER, &name)));
                Starting::spawn(&self.run, name, command).map(|starting| (*number, starting))
            })
            .collect();
        for (number, starting) in spawned? {
            self.running.insert(number, starting.ready().await?);
        }
        Ok(())
    }

    fn admin(&self, number: u8) -> SocketAddr {
        admin(&self.block, number)
    }

    /// The process ids of those that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.running.values().map(Service::pid).collect()
    }

    /// Kills balancer `number` without warning. Returns when.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub(crate) async fn kill_9(&mut self, number: u8) -> Result<f64, LabError> {
        let at = unix_s();
        let name = format!("{} balancer {number}", self.phase);
        match self.running.remove(&number) {
            Some(balancer) if balancer.signal(Signal::KILL) => {
                balancer.gone("SIGKILL").await?;
                Ok(at)
            }
            _ => Err(LabError::Gone { name, signal: "SIGKILL" }),
        }
    }

    /// Fails when one that nobody ended has ended.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with its last log lines.
    pub(crate) fn all_alive(&self) -> Result<(), LabError> {
        self.running.values().try_for_each(Service::alive)
    }

    /// The first of them that has a client.
    ///
    /// # Errors
    ///
    /// When one has no status.
    pub(crate) async fn with_client(&self) -> Result<Option<u8>, LabError> {
        for number in self.running.keys() {
            if self.status(*number).await?.clients_total > 0 {
                return Ok(Some(*number));
            }
        }
        Ok(None)
    }

    /// Lists that were sent, by all that run.
    ///
    /// # Errors
    ///
    /// When one has no status.
    pub(crate) async fn lists_sent(&self) -> Result<u64, LabError> {
        let mut sum = 0;
        for number in self.running.keys() {
            let services = self.status(*number).await?.services;
            sum += services.iter().map(|service| service.lists_sent).sum::<u64>();
        }
        Ok(sum)
    }

    /// What clients have reported to all that run. The last report may still be on its way when a
    /// client has ended: waits until `wanted` have started, for 3 s at most.
    ///
    /// # Errors
    ///
    /// When one has no status.
    pub(crate) async fn totals(&self, wanted: u64) -> Result<Totals, LabError> {
        let limit = Instant::now() + SETTLE_LIMIT;
        loop {
            let mut sum = Totals::default();
            for number in self.running.keys() {
                for service in self.status(*number).await?.services {
                    sum.add(&service.client_stats);
                }
            }
            if sum.started >= wanted || Instant::now() >= limit {
                return Ok(sum);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The status page of balancer `number`.
    ///
    /// # Errors
    ///
    /// When it does not answer within 5 s, or not as it should.
    pub(crate) async fn status(&self, number: u8) -> Result<Status, LabError> {
        let address = self.admin(number);
        let what = format!("the status of the balancer at http://{address}/status");
        let body = http::get(address, "/status").await.map_err(LabError::io(&what))?;
        serde_json::from_str(&body).map_err(|error| LabError::io(what)(error.into()))
    }
}

impl Totals {
    /// What was added since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        let less = |now: &mut u64, before: u64| *now = now.saturating_sub(before);
        less(&mut self.reports, before.reports);
        less(&mut self.started, before.started);
        less(&mut self.finished, before.finished);
        less(&mut self.failed_to_send, before.failed_to_send);
        less(&mut self.known_received, before.known_received);
        for (token, count) in &before.dropped {
            less(self.dropped.entry(token.clone()).or_default(), *count);
        }
        self
    }

    /// Adds another balancer's sums.
    pub(crate) fn add(&mut self, other: &Self) {
        self.reports += other.reports;
        self.started += other.started;
        self.finished += other.finished;
        self.failed_to_send += other.failed_to_send;
        self.known_received += other.known_received;
        for (token, count) in &other.dropped {
            *self.dropped.entry(token.clone()).or_default() += count;
        }
    }
}
