//! `helloworld.Greeter`, the backend of every example: thin, from flags and environment to
//! `evenkeel-server` and an exit code. A library, so that the lab can re-execute itself as it.

mod args;
mod duration;
mod hello;
mod load;
mod tls;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser as _;
use evenkeel_channelz::Channelz;
use evenkeel_server::{
    Builder, ConfigError, ServeError, Server, ServerView, Termination,
    orca::{Orca, ServerMetrics},
    tls::TlsError,
};
use helloworld::greeter_server::GreeterServer;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{server::NamedService, service::Routes};
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;

use crate::{args::Args, hello::Hello, load::Load};

/// The exit code for bad configuration, EX_USAGE of sysexits.
const EXIT_CONFIG: u8 = 64;
/// The exit code for a failure to start or to go on.
const EXIT_FAILURE: u8 = 1;

/// Why the greeter did not run, or stopped.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("bad configuration: {0}")]
    Config(#[from] ConfigError),
    #[error(
        "could not listen on {address}: {source}; free it or choose another with --listen or \
         GREETER_LISTEN"
    )]
    Listen { address: SocketAddr, source: io::Error },
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
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to tell when even this can't be written.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_CONFIG } else { 0 });
        }
    };
    start_log();
    for (flag, value) in args.bare_numbers() {
        warn!(flag, "a duration without unit is read as milliseconds: {value:?}");
    }
    match run_to_the_end(args) {
        Ok(code) => code.into(),
        Err(error) => {
            error!("{error}");
            ExitCode::from(match error {
                Error::Config(_) | Error::Tls(_) => EXIT_CONFIG,
                _ => EXIT_FAILURE,
            })
        }
    }
}

fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Already set when another entry point of the same process was here first; then that one stays.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}

fn run_to_the_end(args: Args) -> Result<u8, Error> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(run(args));
    // Waits for nothing: after a second signal nothing may hold the process.
    runtime.shutdown_background();
    result
}

async fn run(args: Args) -> Result<u8, Error> {
    let load = Load::new(args.capacity);
    let service = GreeterServer::new(Hello::new(&args, &load));
    let view = ServerView::new();
    let channelz = Channelz::of_servers([view.clone()]);
    let mut builder = Server::builder()
        .drain_delay(args.drain_delay.value)
        .drain_grace(args.drain_grace.value)
        .max_connection_idle(args.max_connection_idle.value)
        .max_connections(args.max_connections)
        .health([service_name(&service)])
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
    if let Some(tls) = tls::of(&args)? {
        builder = builder.tls(tls)?;
    }
    let server = builder.build(Routes::new(service).add_service(channelz.into_service()))?;
    let signals = Termination::install().map_err(Error::Signals)?;
    let mut listeners = Vec::new();
    for address in args.listen {
        listeners.push(listen(address).await?);
    }
    announce(&listeners);
    Ok(signals.serve(server, listeners).await?.exit_code())
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

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Says the real ports: the kernel accepts connections from `listen` on. One line for each port.
fn announce(listeners: &[TcpListener]) {
    let mut ports: Vec<_> =
        listeners.iter().filter_map(|one| one.local_addr().ok()).map(|at| at.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        // A closed standard output is no reason not to serve.
        let _ = writeln!(io::stdout(), "Started server on port {port}");
    }
}
