//! `helloworld.Greeter`, the backend of every example: thin, from flags and environment to
//! `evenkeel-server` and an exit code. A library, so that the lab can re-execute itself as it.

mod args;
mod duration;
mod hello;
mod load;

use std::{ffi::OsString, io, process::ExitCode, sync::Arc, time::Duration};

use evenkeel_channelz::Channelz;
use evenkeel_server::{
    Builder, ConfigError, ServeError, Server, ServerView, Termination,
    orca::{Orca, ServerMetrics},
    tls::TlsError,
};
use evenkeel_telemetry::SettingsError;
use helloworld::greeter_server::GreeterServer;
use program::{EXIT_CONFIG, EXIT_FAILURE, ListenError, SPANS_WAIT, tls};
use tokio::task::JoinHandle;
use tonic::{server::NamedService, service::Routes};
use tracing::{error, info, warn};

use crate::{args::Args, hello::Hello, load::Load};

/// The health service's name for "the process lives": what a probe restarts the greeter by. It
/// must never ask for more, or a dependency that is away would restart every backend at once.
const LIVENESS: &str = "liveness";
/// The health service's name for "calls may come": what a probe takes the greeter out by.
const READINESS: &str = "readiness";

/// Why the greeter did not run, or stopped.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("bad configuration: {0}")]
    Config(#[from] ConfigError),
    #[error("bad configuration: {0}")]
    Telemetry(#[from] SettingsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("{0} with --metrics-listen or GREETER_METRICS_LISTEN")]
    Metrics(io::Error),
    #[error("could not catch SIGTERM and SIGINT: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("could not start the runtime: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs a greeter until SIGTERM or SIGINT, on a runtime of its own, with `args` as its command line
/// (the first is the program's name) and the process's environment.
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
    for (flag, value) in args.bare_numbers() {
        warn!(flag, "a duration without unit is read as milliseconds: {value:?}");
    }
    match program::block_on(run(args)).map_err(Error::Runtime).flatten() {
        Ok(code) => code.into(),
        Err(error) => {
            error!("{error}");
            ExitCode::from(match error {
                Error::Config(_) | Error::Telemetry(_) | Error::Tls(_) => EXIT_CONFIG,
                _ => EXIT_FAILURE,
            })
        }
    }
}

async fn run(args: Args) -> Result<u8, Error> {
    let telemetry = program::telemetry("greeter", args.metrics_listen.into())?;
    let load = Load::new(args.capacity);
    let service = GreeterServer::new(Hello::new(&args, &load));
    let view = ServerView::new();
    let channelz = Channelz::of_servers([view.clone()]);
    let mut builder = telemetry
        .server(Server::builder())
        .drain_delay(args.drain_delay.value)
        .drain_grace(args.drain_grace.value)
        .max_connection_idle(args.max_connection_idle.value)
        .max_connections(args.max_connections)
        .health([service_name(&service), LIVENESS, READINESS])
        .view(&view)
        .reflection([helloworld::FILE_DESCRIPTOR_SET, evenkeel_channelz::FILE_DESCRIPTOR_SET]);
    if let Some(age) = &args.max_connection_age {
        builder = builder.max_connection_age(age.value);
    }
    if let Some(grace) = &args.max_connection_age_grace {
        builder = builder.max_connection_age_grace(grace.value);
    }
    // The runtime's end ends the task: it has as long a life as the server.
    let _reporting = args.orca.then(|| report(&mut builder, load, args.orca_oob_min.value));
    let (cert, key) = (args.tls_cert.as_deref(), args.tls_key.as_deref());
    if let Some(tls) = tls::server(cert, key, args.tls_client_ca.as_deref())? {
        builder = builder.tls(tls)?;
    }
    let server = builder.build(Routes::new(service).add_service(channelz.into_service()))?;
    let signals = Termination::install().map_err(Error::Signals)?;
    telemetry.watch_server(server.stats());
    if let Some(address) = telemetry.serve_page().await.map_err(Error::Metrics)? {
        info!("metrics: http://{address}/metrics");
    }
    let listeners = program::listen(&args.listen, "--listen or GREETER_LISTEN").await?;
    program::announce(&listeners);
    let code = signals.serve(server, listeners).await?.exit_code();
    if code == 0 {
        telemetry.shutdown(SPANS_WAIT).await;
    }
    Ok(code)
}

/// Makes the server report its load, and starts what measures it.
fn report(builder: &mut Builder, load: Arc<Load>, min_interval: Duration) -> JoinHandle<()> {
    let metrics = ServerMetrics::new();
    let orca = Orca::new(&metrics).min_report_interval(min_interval);
    *builder = std::mem::take(builder).orca(orca);
    tokio::spawn(load.report_to(metrics))
}

fn service_name<S: NamedService>(_service: &S) -> &'static str {
    S::NAME
}
