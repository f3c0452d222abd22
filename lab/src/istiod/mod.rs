//! Istio's own control plane, `pilot-discovery`, in the place of our balancer: unmodified, outside
//! of a cluster, on files that it follows. What a cluster would tell it, the files say: a Service
//! is a ServiceEntry, a pod an endpoint of it, and where an Envoy listens is a Sidecar. A double
//! would show what we think of Istio, and a cluster needs root and minutes.
//!
//! Outside of a cluster it certifies nobody, because certificates need the cluster's tokens: there
//! is no mutual TLS then, and what is promised of it is not run.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::{
    blocks::Block,
    clock::unix_s,
    error::LabError,
    faults::CallFault,
    http,
    process::Process,
    run::{Run, tail},
};

mod files;
mod find;
mod stub;

pub(crate) use files::bootstrap;
pub(crate) use find::{Found, find};
use stub::Stub;

/// Its ports: xDS without TLS, readiness, metrics.
const XDS_PORT: u16 = 15010;
const DEBUG_PORT: u16 = 15080;
const METRICS_PORT: u16 = 15014;
/// It takes 1 s; several at once on a busy machine take longer.
const READY_LIMIT_S: u64 = 40;
/// Backends that a phase may have.
const PODS_MAX: u8 = 8;
const EXIT_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
/// Nothing that a stock Envoy lacks, xDS in plain text, certificates for nobody, and nothing
/// written to the API server.
const SETTINGS: [(&str, &str); 12] = [
    ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
    ("PILOT_ENABLE_ALPN_FILTER", "false"),
    ("XDS_AUTH", "false"),
    ("PILOT_CERT_PROVIDER", "none"),
    ("ENABLE_CA_SERVER", "false"),
    ("ENABLE_LEADER_ELECTION", "false"),
    ("PILOT_ENABLE_IP_AUTOALLOCATE", "false"),
    ("PILOT_ENABLE_GATEWAY_API", "false"),
    ("VALIDATION_WEBHOOK_CONFIG_NAME", ""),
    ("INJECTION_WEBHOOK_CONFIG_NAME", ""),
    ("POD_NAME", "istiod"),
    ("POD_NAMESPACE", "istio-system"),
];

/// istiod of one phase.
pub(crate) struct Istiod {
    run: Arc<Run>,
    name: String,
    program: PathBuf,
    ip: Ipv4Addr,
    files: Arc<Files>,
    kubeconfig: PathBuf,
    _stub: Stub,
    running: Option<Process>,
}

/// The folder that it follows.
pub(crate) struct Files {
    folder: PathBuf,
    /// Where the Service is called.
    listen: SocketAddrV4,
    /// The first file that could not be written.
    failed: Mutex<Option<io::Error>>,
}

impl Istiod {
    /// Writes the files of a Service that is called at `listen` and whose calls have `fault`,
    /// starts istiod and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When a file can't be written, or it is not ready in time.
    pub(crate) async fn start(
        run: &Arc<Run>,
        phase: &str,
        block: &Block,
        (listen, fault): (SocketAddrV4, CallFault),
        program: &Path,
    ) -> Result<Self, LabError> {
        let name = format!("{phase}-istiod");
        let ip = block.balancer_ip(1);
        let pods: Vec<Ipv4Addr> = (1..=PODS_MAX).map(|host| *block.backend(host).ip()).collect();
        let folder = run.path(&format!("{name}-files"));
        let files = Files::make(folder, listen, fault, &pods);
        let files = Arc::new(files.map_err(LabError::io(format!("can't make {name}'s files")))?);
        let stub = Stub::start(SocketAddr::from((block.api_ip(), 0))).await;
        let stub = stub.map_err(LabError::io("the API server of istiod"))?;
        let kubeconfig = run.path(&format!("{name}-kubeconfig.yaml"));
        let mesh = run.path(&format!("{name}-mesh.yaml"));
        for (path, text) in [(&kubeconfig, stub.kubeconfig()), (&mesh, files::MESH.to_owned())] {
            fs::write(path, text)
                .map_err(LabError::io(format!("can't write {}", path.display())))?;
        }
        let (run, program, running) = (Arc::clone(run), program.to_owned(), None);
        let mut this = Self { run, name, program, ip, files, kubeconfig, _stub: stub, running };
        this.restart().await?;
        Ok(this)
    }

    /// Starts it again after [`Istiod::kill_9`].
    ///
    /// # Errors
    ///
    /// When it is not ready in time.
    pub(crate) async fn restart(&mut self) -> Result<(), LabError> {
        let log = self.log();
        let said = fs::OpenOptions::new().create(true).append(true).open(&log);
        let said = said.map_err(LabError::io(format!("can't create {}", log.display())))?;
        let says = said.try_clone().map_err(LabError::io("can't share a log"))?;
        let at = |port: u16| format!("{}:{port}", self.ip);
        let mesh = self.run.path(&format!("{}-mesh.yaml", self.name));
        let mut command = self.run.tied(&self.program);
        command.envs(SETTINGS).arg("discovery").arg("--configDir").arg(&self.files.folder);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--meshConfig").arg(mesh);
        command.args(["--grpcAddr", &at(XDS_PORT), "--httpAddr", &at(DEBUG_PORT)]);
        command.args(["--monitoringAddr", &at(METRICS_PORT), "--secureGRPCAddr", ""]);
        command.args(["--httpsAddr", "", "--ctrlz_port", "0", "--shutdownDuration", "1s"]);
        command.stdin(Stdio::null()).stdout(says).stderr(said);
        let spawned = self.run.nursery().spawn(&self.name, &mut command);
        let what = format!("can't start {} ({})", self.name, self.program.display());
        let process = spawned.map_err(LabError::io(what))?.process;
        let limit = Instant::now() + Duration::from_secs(READY_LIMIT_S);
        let debug = SocketAddr::from((self.ip, DEBUG_PORT));
        while http::get(debug, "/ready").await.is_err() {
            let (name, log) = (self.name.clone(), tail(&log));
            if let Some(status) = process.status() {
                return Err(LabError::Ended { name, status: status.to_string(), log });
            }
            if Instant::now() >= limit {
                return Err(LabError::NotReady { name, limit_s: READY_LIMIT_S, log });
            }
            sleep(POLL).await;
        }
        self.running = Some(process);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.run.path(&format!("{}.log", self.name))
    }

    /// Where it speaks xDS.
    pub(crate) fn xds(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip, XDS_PORT)
    }

    /// The folder that it follows.
    pub(crate) fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files)
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Process::pid)
    }

    /// Kills it without warning. Returns when.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub(crate) async fn kill_9(&mut self) -> Result<f64, LabError> {
        let at = unix_s();
        let (name, signal) = (self.name.clone(), "SIGKILL");
        match self.running.take() {
            Some(process) if process.signal(Signal::KILL) => {
                process.exited(EXIT_LIMIT).await;
                Ok(at)
            }
            _ => Err(LabError::Gone { name, signal }),
        }
    }

    /// Fails when it has ended, which nobody asked for, or was not told something.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with its last log lines, or what could not be written.
    pub(crate) fn all_alive(&self) -> Result<(), LabError> {
        if let Some(error) = self.files.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            return Err(LabError::io(format!("can't write a file of {}", self.name))(error));
        }
        match self.running.as_ref().and_then(Process::status) {
            Some(status) => {
                let (name, log) = (self.name.clone(), tail(&self.log()));
                Err(LabError::Ended { name, status: status.to_string(), log })
            }
            None => Ok(()),
        }
    }
}

impl Files {
    /// Everything is there before istiod starts, and before any Envoy asks: what came later would
    /// have it listen elsewhere, or call without the fault, for a moment.
    fn make(
        folder: PathBuf,
        listen: SocketAddrV4,
        fault: CallFault,
        pods: &[Ipv4Addr],
    ) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let files = Self { folder, listen, failed: Mutex::default() };
        let fronts: String = pods.iter().map(|ip| files::front(*ip)).collect();
        files.write("fronts.yaml", &fronts)?;
        files.write("settings.yaml", &files::settings(listen))?;
        files.write("service.yaml", &files::service(listen, &[]))?;
        files.write("routes.yaml", &files::routes(fault))?;
        Ok(files)
    }

    /// Writes the pods that are ready, and returns when. An error is told by
    /// [`Istiod::all_alive`].
    pub(crate) fn publish(&self, ready: &[Ipv4Addr]) -> f64 {
        let at = unix_s();
        self.note(self.write("service.yaml", &files::service(self.listen, ready)));
        at
    }

    /// Writes the routes with `fault`.
    pub(crate) fn say(&self, fault: CallFault) {
        self.note(self.write("routes.yaml", &files::routes(fault)));
    }

    fn note(&self, written: io::Result<()>) {
        if let Err(error) = written {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
        }
    }

    /// In one step: half a file would be read as a bad one. The new text has no name that istiod
    /// reads.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let new = self.folder.join(format!("{name}.new"));
        fs::write(&new, text)?;
        fs::rename(new, self.folder.join(name))
    }
}
