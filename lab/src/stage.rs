//! Where one phase plays: a block of addresses, a DNS server on it, an API server if it needs one,
//! and a fleet. Phases share nothing, so they run side by side without disturbing each other's
//! figures.

use std::{
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use crate::{
    blocks::{BACKEND_PORT, Block},
    client::{Client, all_ready},
    dns::{self, Dns},
    error::LabError,
    fleet::Fleet,
    istiod::Files,
    run::Run,
    slices::{SERVICE, Slices},
    spans::Spans,
};

/// How long a client may take to have a READY subchannel to every backend.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// The surroundings of one phase.
pub(crate) struct Stage {
    pub(crate) run: Arc<Run>,
    pub(crate) phase: String,
    pub(crate) block: Arc<Block>,
    pub(crate) dns: Dns,
    pub(crate) fleet: Fleet,
    /// Of a phase whose clients watch EndpointSlices.
    pub(crate) slices: Option<Slices>,
    /// Of a phase whose control plane follows files.
    pub(crate) files: Option<Arc<Files>>,
    /// Where all processes of a phase that is traced send their spans.
    pub(crate) spans: Option<Arc<Spans>>,
    published: Vec<u8>,
    /// Deleted and not gone yet: their slice says so.
    terminating: Vec<u8>,
    client_env: Vec<(&'static str, String)>,
    /// What clients call instead of the Service.
    sidecar: Option<SocketAddrV4>,
}

impl Stage {
    /// Takes a block and starts its DNS server. `settings` go to every greeter.
    ///
    /// # Errors
    ///
    /// When no block is free or the DNS server can't start.
    pub(crate) async fn open(
        run: Arc<Run>,
        phase: &str,
        settings: &[(&'static str, &str)],
    ) -> Result<Self, LabError> {
        let block = Arc::new(Block::claim()?);
        let dns = Dns::start(block.dns_ip()).await?;
        let spans = run.trace(phase).await?;
        let mut fleet = Fleet::new(Arc::clone(&run), phase, Arc::clone(&block), settings);
        fleet.trace_to(spans.clone());
        let phase = phase.to_owned();
        Ok(Self {
            run,
            phase,
            block,
            dns,
            fleet,
            slices: None,
            files: None,
            spans,
            published: Vec::new(),
            terminating: Vec::new(),
            client_env: Vec::new(),
            sidecar: None,
        })
    }

    /// The same with an API server, which the clients of this phase watch instead of DNS.
    ///
    /// # Errors
    ///
    /// When no block is free, or one of the servers can't start.
    pub(crate) async fn open_with_api(
        run: Arc<Run>,
        phase: &str,
        settings: &[(&'static str, &str)],
    ) -> Result<Self, LabError> {
        let mut stage = Self::open(run, phase, settings).await?;
        let slices = Slices::start(&stage.run, phase, &stage.block).await?;
        stage.client_env.push(("KUBECONFIG", slices.kubeconfig()));
        stage.slices = Some(slices);
        Ok(stage)
    }

    /// From now on clients call the proxy at `address`, over one connection: they know of no other
    /// address, and whose turn it is is not theirs to say.
    pub(crate) fn call_through(&mut self, address: SocketAddrV4) {
        self.sidecar = Some(address);
    }

    /// `flags` after those that every client of this phase has, but for the target.
    pub(crate) fn with_policy<'a>(&self, flags: &[&'a str]) -> Vec<&'a str> {
        let policy: &[&str] =
            if self.sidecar.is_some() { &["--lb-policy", "pick_first"] } else { &[] };
        policy.iter().chain(flags).copied().collect()
    }

    /// Says what happens in this phase: on stderr, and as a mark of its report.
    pub(crate) fn say(&self, what: &str) {
        self.run.mark(&self.phase, what);
    }

    /// The target of every client of this phase: a sidecar, or a Service, asked for at our API
    /// server or else, as a headless one, at our DNS server.
    pub(crate) fn target(&self) -> String {
        if let Some(sidecar) = self.sidecar {
            return format!("ipv4:{sidecar}");
        }
        if self.slices.is_some() {
            return format!("kubernetes:///{SERVICE}.default:{BACKEND_PORT}");
        }
        dns::target(SocketAddr::V4(self.dns.address()), BACKEND_PORT)
    }

    /// Adds `hosts` to the Service's records and returns when.
    pub(crate) async fn publish(&mut self, hosts: &[u8]) -> f64 {
        self.exchange(&[], hosts).await
    }

    /// Takes `hosts` out of the Service's records and returns when.
    pub(crate) async fn unpublish(&mut self, hosts: &[u8]) -> f64 {
        self.exchange(hosts, &[]).await
    }

    /// Puts `new` into the place of `old` in the Service's records, in one change, and returns
    /// when.
    pub(crate) async fn exchange(&mut self, old: &[u8], new: &[u8]) -> f64 {
        self.published.retain(|host| !old.contains(host));
        self.published.extend(new);
        self.terminating.retain(|host| !new.contains(host));
        self.terminating.extend(old);
        let at = self.tell().await;
        if let Some(spans) = &self.spans {
            spans.published(&self.fleet.names(new), at);
        }
        at
    }

    /// Tells whoever knows the endpoints, and returns when.
    async fn tell(&self) -> f64 {
        if let Some(files) = &self.files {
            return files.publish(&self.fleet.ips(&self.published));
        }
        if let Some(at) = self.apply_slice() {
            return at;
        }
        self.dns.publish(&self.fleet.ips(&self.published)).await
    }

    /// The pods `hosts` have ended: they leave the Service's slice.
    pub(crate) fn forget(&mut self, hosts: &[u8]) {
        self.terminating.retain(|host| !hosts.contains(host));
        self.apply_slice();
    }

    /// Writes the slice as the EndpointSlice controller does and returns when, if there is one.
    fn apply_slice(&self) -> Option<f64> {
        let ips = |hosts: &[u8]| self.fleet.ips(hosts);
        self.slices.as_ref().map(|s| s.publish(&ips(&self.published), &ips(&self.terminating)))
    }

    /// Starts a client of this phase with `--target` and `flags`.
    ///
    /// # Errors
    ///
    /// When it can't be started.
    pub(crate) async fn client(&self, flags: &[&str]) -> Result<Client, LabError> {
        self.client_named("client", flags).await
    }

    /// Client `number` of several that run at once.
    ///
    /// # Errors
    ///
    /// When it can't be started.
    pub(crate) async fn one_of_many(
        &self,
        number: usize,
        flags: &[&str],
    ) -> Result<Client, LabError> {
        self.client_named(&format!("client-{number}"), flags).await
    }

    async fn client_named(&self, name: &str, flags: &[&str]) -> Result<Client, LabError> {
        // What a chart is drawn from; phases that judge by slots choose their length.
        let slots = if flags.contains(&"--slots") { &[][..] } else { &["--slots", "100ms"] };
        let flags = self.flags(&[flags, slots].concat());
        let name = format!("{}-{name}", self.phase);
        let spans = self.spans.as_ref();
        Client::start(&self.run, &name, &flags, &self.client_env, spans).await
    }

    /// Starts a client and waits until it has a READY subchannel to each of `hosts`, or to the
    /// sidecar. A backend
    /// that never gets READY is not an error: the checks on its share will say so.
    ///
    /// # Errors
    ///
    /// When it can't be started, or ends.
    pub(crate) async fn connected_client(
        &self,
        hosts: &[u8],
        flags: &[&str],
    ) -> Result<Client, LabError> {
        let client = self.client(flags).await?;
        let wanted = match self.sidecar {
            Some(sidecar) => vec![sidecar.to_string()],
            None => self.fleet.addresses(hosts),
        };
        let ready = client.until(READY_LIMIT, |events| all_ready(events, &wanted)).await?;
        if ready {
            self.say(&format!("the client is READY to {}", wanted.join(", ")));
        } else {
            self.say("the client is not READY to every backend after 10 s; going on");
        }
        Ok(client)
    }

    /// The original output of the example: a short run of the client in text.
    ///
    /// # Errors
    ///
    /// When it does not end within 20 s.
    pub(crate) async fn original_lines(&self, flags: &[&str]) -> Result<Vec<String>, LabError> {
        let name = format!("{}-lines", self.phase);
        let flags = self.flags(flags);
        let limit = Duration::from_secs(20);
        let lines = Client::lines(&self.run, &name, &flags, &self.client_env, limit).await?;
        let original = ["Will use", "Creating channel", "Greeting:", "Error invoking"];
        let is_original = |line: &String| original.iter().any(|start| line.starts_with(start));
        Ok(lines.into_iter().filter(is_original).collect())
    }

    fn flags(&self, flags: &[&str]) -> Vec<String> {
        let target = ["--target".to_owned(), self.target()];
        let flags = self.with_policy(flags).into_iter().map(str::to_owned);
        target.into_iter().chain(flags).collect()
    }
}
