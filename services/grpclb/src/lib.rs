//! A lookaside balancer and control plane: thin, from flags and environment to `evenkeel-control`
//! over `evenkeel-server` and an exit code. A library, so that the lab can re-execute itself as it.

mod admin;
mod args;

use std::{collections::BTreeSet, ffi::OsString, io, process::ExitCode, sync::Arc};

use evenkeel_channelz::Channelz;
use evenkeel_control::{
    Control,
    config::Config,
    grpclb::{Grpclb, GrpclbSettings, SERVICE_NAME},
    names::{self, NameRules},
    sources::{file::FileSource, kubernetes},
    weights,
    xds::{ADS_SERVICE_NAME, NodeViews, Xds, XdsSettings},
};
use evenkeel_kubernetes::Cluster;
use evenkeel_proto::{ENVOY_FILE_DESCRIPTOR_SET, grpc::lb::v1::FILE_DESCRIPTOR_SET};
use evenkeel_server::{
    ConfigError, Health, ServeError, Server, ServerView, ShutdownHandle, Termination, tls::TlsError,
};
use evenkeel_telemetry::{SettingsError, Telemetry};
use program::{Counting, EXIT_CONFIG, EXIT_FAILURE, ListenError, SPANS_WAIT, tls};
use tokio::{task::JoinSet, time::Instant};
use tonic::service::Routes;
use tracing::{error, info};

use crate::{admin::Shown, args::Args};

/// The health service's name for "the process lives": SERVING from the start.
const LIVENESS: &str = "liveness";
/// The health service's name for "clients may come": SERVING from the first sync on.
const READINESS: &str = "readiness";
/// The health service's name for "what is served is what is true now": SERVING while no source is
/// bad. Not for probes: all replicas watch the same API server, and would go together.
const SOURCES: &str = "sources";

/// Why the balancer did not run, or stopped.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("bad configuration: {0}")]
    Config(String),
    #[error("bad configuration: {0}")]
    Server(#[from] ConfigError),
    #[error("bad configuration: {0}")]
    Telemetry(#[from] SettingsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("{0}")]
    Admin(io::Error),
    #[error("could not catch SIGTERM and SIGINT: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("could not start the runtime: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs a balancer until SIGTERM or SIGINT, on a runtime of its own, with `args` as its command
/// line (the first is the program's name) and the process's environment.
///
/// Exit codes: 0 after a drain, 1 when it can't start, 64 for bad configuration, and 128 plus the
/// signal's number when a second signal cuts the drain short.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Args = match program::arguments(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    if let Err(code) = program::start_log("info") {
        return code;
    }
    match program::block_on(run(args)).map_err(Error::Runtime).flatten() {
        Ok(code) => code.into(),
        Err(error) => {
            error!("{error}");
            ExitCode::from(match error {
                Error::Config(_) | Error::Server(_) | Error::Telemetry(_) | Error::Tls(_) => {
                    EXIT_CONFIG
                }
                _ => EXIT_FAILURE,
            })
        }
    }
}

async fn run(args: Args) -> Result<u8, Error> {
    let shows = if args.admin_listen.is_some() { Counting::Kept } else { Counting::AsAsked };
    let telemetry = program::telemetry("grpclb", shows)?;
    let (control, mut tasks) = start_sources(&args)?;
    let mut settings = GrpclbSettings::default();
    settings.client_stats_interval = args.client_stats_interval;
    let grpclb = Grpclb::new(control.clone(), settings);
    let xds = args.xds.then(|| {
        let views = NodeViews::new(control.clone());
        tasks.spawn(views.clone().run());
        let mut settings = XdsSettings::default();
        settings.load_report_interval = args.client_stats_interval;
        Xds::new(control.clone(), Arc::new(views), settings)
    });
    let server = server(&args, &telemetry, grpclb.clone(), xds.as_ref())?;
    if let Some(health) = server.health() {
        let names = ready_names(args.xds);
        for name in &names {
            health.set(name, false).await;
        }
        tasks.spawn(say_when_ready(control.clone(), health.clone(), names));
        tasks.spawn(say_whether_good(control.clone(), health));
    }
    let ending = (grpclb.clone(), xds.clone());
    tasks.spawn(end_streams(server.shutdown_handle(), args.drain_delay, ending));
    let signals = Termination::install().map_err(Error::Signals)?;
    let shown =
        Shown { control, grpclb, xds, server: server.stats(), telemetry: telemetry.clone() };
    // Without itself: it would keep itself alive.
    let counted = Shown { telemetry: Telemetry::off(), ..shown.clone() };
    telemetry.add_metrics(move |out| out.extend(admin::families(counted.own_metrics())));
    if let Some(address) = telemetry.serve_page().await.map_err(Error::Admin)? {
        info!("metrics: http://{address}/metrics");
    }
    if let Some(address) = args.admin_listen {
        let listener = admin::listen(address).await.map_err(Error::Admin)?;
        let address = listener.local_addr().map_err(Error::Admin)?;
        info!("status: http://{address}/status, metrics: http://{address}/metrics");
        tasks.spawn(admin::serve(listener, shown));
    }
    let listeners = program::listen(&args.listen, "--listen or GRPCLB_LISTEN").await?;
    program::announce(&listeners);
    let code = signals.serve(server, listeners).await?.exit_code();
    if code == 0 {
        telemetry.shutdown(SPANS_WAIT).await;
    }
    Ok(code)
}

/// The tasks end with the set.
fn start_sources(args: &Args) -> Result<(Control, JoinSet<()>), Error> {
    let mut rules = NameRules {
        default_namespace: args.namespace.clone(),
        cluster_domain: args.cluster_domain.clone(),
        own: args.own_names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        default_service: None,
        namespaces: args.namespaces.iter().filter(|name| !name.is_empty()).cloned().collect(),
    };
    let on_demand = !rules.namespaces.is_empty();
    if let Some(name) = &args.backend_service_name {
        let key = names::service_of(name, &rules)
            .map_err(|error| Error::Config(format!("BACKEND_SERVICE_NAME: {error}")))?;
        rules.default_service = Some(key);
    }
    let control = Control::new(rules, args.flags().map_err(Error::Config)?);
    let mut tasks = JoinSet::new();
    if let Some(path) = &args.config {
        let (source, config) = FileSource::open(path, &args.namespace)
            .map_err(|error| Error::Config(error.to_string()))?;
        control.configure(&config);
        tasks.spawn(source.run(control.clone()));
    } else {
        // Flags are all there is.
        control.configure(&Config::default());
    }
    let mut wanted = BTreeSet::clone(&control.wanted().borrow());
    wanted.extend(control.client_services().borrow().iter().cloned());
    let kubeconfig = args.kubeconfig.clone();
    let cluster = move || {
        let cluster = kubeconfig.as_ref().map_or_else(Cluster::infer, Cluster::kubeconfig);
        cluster.map_err(|error| error.to_string())
    };
    if on_demand || !wanted.is_empty() {
        cluster().map_err(|error| {
            let services = wanted.iter().map(ToString::to_string);
            let services: Vec<String> = services.chain(args.namespaces.clone()).collect();
            let services = services.join(", ");
            Error::Config(format!("the endpoints of {services} are in Kubernetes: {error}"))
        })?;
    }
    tasks.spawn(kubernetes::run(control.clone(), cluster));
    tasks.spawn(weights::run(control.clone()));
    Ok((control, tasks))
}

fn server(
    args: &Args,
    telemetry: &Telemetry,
    grpclb: Grpclb,
    xds: Option<&Xds>,
) -> Result<Server, Error> {
    let view = ServerView::new();
    let channelz = Channelz::of_servers([view.clone()]);
    let mut builder = telemetry
        .server(Server::builder())
        .drain_delay(args.drain_delay)
        .drain_grace(args.drain_grace)
        .max_connection_age_grace(args.max_connection_age_grace)
        .max_connections(args.max_connections)
        .health(ready_names(args.xds).into_iter().skip(1).chain([LIVENESS, SOURCES]))
        .view(&view)
        .reflection([
            FILE_DESCRIPTOR_SET,
            ENVOY_FILE_DESCRIPTOR_SET,
            evenkeel_channelz::FILE_DESCRIPTOR_SET,
        ]);
    if let Some(age) = args.max_connection_age {
        builder = builder.max_connection_age(age);
    }
    let (cert, key) = (args.tls_cert.as_deref(), args.tls_key.as_deref());
    if let Some(tls) = tls::server(cert, key, args.tls_client_ca.as_deref())? {
        builder = builder.tls(tls)?;
    }
    let mut routes = Routes::new(grpclb).add_service(channelz.into_service());
    if let Some(xds) = xds {
        routes = routes.add_service(xds.ads()).add_service(xds.lrs());
    }
    Ok(builder.build(routes)?)
}

/// What turns to SERVING with the first sync.
fn ready_names(xds: bool) -> Vec<&'static str> {
    let ads = xds.then_some(ADS_SERVICE_NAME);
    ["", SERVICE_NAME, READINESS].into_iter().chain(ads).collect()
}

async fn say_when_ready(control: Control, health: Health, names: Vec<&'static str>) {
    // Its sender lives as long as `control`.
    if control.synced().wait_for(|synced| *synced).await.is_err() {
        return;
    }
    info!("every service has been read; ready");
    for name in names {
        health.set(name, true).await;
    }
}

async fn say_whether_good(control: Control, health: Health) {
    let mut good = control.good();
    loop {
        let serving = *good.borrow_and_update();
        health.set(SOURCES, serving).await;
        if good.changed().await.is_err() {
            return;
        }
    }
}

/// Streams have no end of their own, and would hold the drain until its grace is over. They are
/// ended when connections get their GOAWAY: before it, clients would come back on the same ones.
async fn end_streams(
    shutdown: ShutdownHandle,
    delay: std::time::Duration,
    (grpclb, xds): (Grpclb, Option<Xds>),
) {
    shutdown.draining().await;
    let at = Instant::now() + delay;
    tokio::time::sleep_until(at).await;
    grpclb.end_streams();
    if let Some(xds) = xds {
        xds.end_streams();
    }
}
