//! The backends of one phase: real greeter processes, each on an address of its own.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    process::ExitStatus,
    sync::Arc,
};

use rustix::process::Signal;

use crate::{
    blocks::{APPLICATION_PORT, Block, METRICS_PORT},
    clock::unix_s,
    envoy::Envoy,
    error::LabError,
    fronts::Fronts,
    run::Run,
    service::{Service, Starting},
    spans::{self, Spans},
};

/// The backends of a phase by their number in the block (127.x.y.N).
pub(crate) struct Fleet {
    run: Arc<Run>,
    phase: String,
    block: Arc<Block>,
    settings: Vec<(&'static str, String)>,
    /// What single backends have beside those.
    own: BTreeMap<u8, Vec<(&'static str, String)>>,
    backends: BTreeMap<u8, Service>,
    /// Of a mesh: what listens at the pods' addresses instead of the applications.
    fronts: Option<Fronts>,
    /// Where their spans go.
    spans: Option<Arc<Spans>>,
}

impl Fleet {
    /// A fleet without backends. `settings` are environment variables of every greeter, by the
    /// names of services/greeter/README.md; they override the lab's own drain settings.
    pub(crate) fn new(
        run: Arc<Run>,
        phase: &str,
        block: Arc<Block>,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let lab = [("GREETER_DRAIN_DELAY", "0s"), ("GREETER_DRAIN_GRACE", "10s")];
        let settings =
            lab.iter().chain(settings).map(|(name, value)| (*name, (*value).to_owned())).collect();
        let (own, backends) = (BTreeMap::new(), BTreeMap::new());
        let (phase, fronts, spans) = (phase.to_owned(), None, None);
        Self { run, phase, block, settings, own, backends, fronts, spans }
    }

    /// Has each backend that is started from now on trace its calls.
    pub(crate) fn trace_to(&mut self, spans: Option<Arc<Spans>>) {
        self.spans = spans;
    }

    /// Puts an Envoy before each backend that is started from now on; the backend itself listens
    /// on [`APPLICATION_PORT`].
    pub(crate) fn put_behind(&mut self, fronts: Fronts) {
        self.fronts = Some(fronts);
    }

    /// The Envoys before the backends.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = &Envoy> {
        self.fronts.iter().flat_map(Fronts::running)
    }

    /// Gives backend `host` a setting of its own, from its next start on.
    pub(crate) fn set(&mut self, host: u8, name: &'static str, value: &str) {
        self.own.entry(host).or_default().push((name, value.to_owned()));
    }

    /// Takes those settings back, from its next start on.
    pub(crate) fn reset(&mut self, host: u8) {
        self.own.remove(&host);
    }

    /// Where the page for Prometheus of backend `host` is, in a run whose backends have one.
    pub(crate) fn metrics(&self, host: u8) -> SocketAddrV4 {
        SocketAddrV4::new(*self.address(host).ip(), METRICS_PORT)
    }

    /// The address of backend `host`.
    pub(crate) fn address(&self, host: u8) -> SocketAddrV4 {
        self.block.backend(host)
    }

    /// Where the application of backend `host` listens.
    pub(crate) fn application(&self, host: u8) -> SocketAddrV4 {
        let mut address = self.address(host);
        if self.fronts.is_some() {
            address.set_port(APPLICATION_PORT);
        }
        address
    }

    /// The IPs of `hosts`.
    pub(crate) fn ips(&self, hosts: &[u8]) -> Vec<Ipv4Addr> {
        hosts.iter().map(|host| *self.address(*host).ip()).collect()
    }

    /// The IPs of `hosts` as the replies name them.
    pub(crate) fn names(&self, hosts: &[u8]) -> Vec<String> {
        self.ips(hosts).iter().map(Ipv4Addr::to_string).collect()
    }

    /// The addresses of `hosts` as the client's events name them.
    pub(crate) fn addresses(&self, hosts: &[u8]) -> Vec<String> {
        hosts.iter().map(|host| self.address(*host).to_string()).collect()
    }

    /// When backend `host` said that it accepts connections; 0 when it does not run.
    pub(crate) fn ready_unix_s(&self, host: u8) -> f64 {
        self.backends.get(&host).map_or(0.0, |backend| backend.ready_unix_s)
    }

    /// Starts the backends `hosts` at once and waits until each accepts connections.
    ///
    /// # Errors
    ///
    /// When one can't be started or is not ready within 10 s.
    pub(crate) async fn start(&mut self, hosts: &[u8]) -> Result<(), LabError> {
        let mut starting = Vec::new();
        for host in hosts {
            starting.push((*host, self.spawn(*host)?));
        }
        for (host, starting) in starting {
            self.backends.insert(host, starting.ready().await?);
        }
        self.start_fronts(hosts).await
    }

    /// Starts what stands before `hosts`, of which the lab itself may be the applications.
    ///
    /// # Errors
    ///
    /// When one is not ready in time.
    pub(crate) async fn start_fronts(&mut self, hosts: &[u8]) -> Result<(), LabError> {
        let pods: Vec<_> = hosts.iter().map(|host| (*host, *self.address(*host).ip())).collect();
        match &mut self.fronts {
            Some(fronts) => fronts.start(&pods).await,
            None => Ok(()),
        }
    }

    fn spawn(&self, host: u8) -> Result<Starting, LabError> {
        let address = self.address(host);
        let mut command = self.run.command("greeter");
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        if self.run.is_metered() {
            command.env("GREETER_METRICS_LISTEN", self.metrics(host).to_string());
        }
        let own = self.own.get(&host).into_iter().flatten();
        command.envs(own.map(|(key, value)| (key, value)));
        let traced = self.spans.iter();
        let name = address.ip().to_string();
        command.envs(traced.flat_map(|spans| spans.env(spans::GREETER, &name)));
        command.env("GREETER_LISTEN", self.application(host).to_string()).env("MY_POD_IP", name);
        Starting::spawn(&self.run, format!("{}-{}", self.phase, address.ip()), command)
    }

    /// Sends `signal` to backend `host` and returns when.
    ///
    /// # Errors
    ///
    /// [`LabError::Gone`] when it does not run.
    pub(crate) fn signal(
        &self,
        host: u8,
        signal: Signal,
        signal_name: &'static str,
    ) -> Result<f64, LabError> {
        let at = unix_s();
        // A pod that is told to end ends its application first.
        if let (Some(fronts), true) = (&self.fronts, signal != Signal::TERM) {
            fronts.signal(host, signal);
        }
        if let (Some(spans), true) = (&self.spans, signal == Signal::KILL) {
            spans.killed(self.address(host).ip().to_string());
        }
        let sent = self.backends.get(&host).is_some_and(|backend| backend.signal(signal));
        if sent {
            Ok(at)
        } else {
            let name = format!("{} backend {}", self.phase, self.address(host));
            Err(LabError::Gone { name, signal: signal_name })
        }
    }

    /// Waits until backend `host`, which was sent `signal_name`, has ended, and forgets it.
    /// Returns its status and when that was.
    ///
    /// # Errors
    ///
    /// When it does not run, or lingers for 15 s.
    pub(crate) async fn gone(
        &mut self,
        host: u8,
        signal_name: &'static str,
    ) -> Result<(ExitStatus, f64), LabError> {
        let Some(backend) = self.backends.remove(&host) else {
            let name = format!("{} backend {}", self.phase, self.address(host));
            return Err(LabError::Gone { name, signal: signal_name });
        };
        let gone = backend.gone(signal_name).await?;
        if let Some(fronts) = &mut self.fronts {
            fronts.end(host).await?;
        }
        Ok(gone)
    }

    /// The process ids of those that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.backends.values().map(Service::pid).collect()
    }

    /// Fails when a backend that nobody ended has ended.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with the backend's last log lines.
    pub(crate) fn all_alive(&self) -> Result<(), LabError> {
        self.backends.values().try_for_each(Service::alive)?;
        self.fronts().try_for_each(Envoy::alive)
    }
}
