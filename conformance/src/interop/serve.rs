//! `conformance-server`: the test service on `evenkeel-server`, as a program.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{ArgAction, Parser};
use evenkeel_server::{
    ConfigError, ServeError, Server, Termination,
    orca::Orca,
    tls::{Identity, ServerTls, TlsError},
};
use rustls::crypto::ring;
use tokio::net::TcpListener;
use tonic::service::Routes;

use super::{echo::Echo, proto::test_service_server::TestServiceServer, service::TestServer};

/// Exit code for wrong usage (EX_USAGE).
const EXIT_USAGE: u8 = 64;
/// Nobody waits for calls of a test that is over.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// Of load reports out of band; the case waits for changed ones.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// gRPC's interop test server on evenkeel-server.
#[derive(Clone, Debug, Parser)]
#[command(name = "conformance-server", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port to listen on (0: any that is free)
    #[arg(long, default_value = "10000")]
    port: u16,

    /// Whether to use TLS
    #[arg(long = "use_tls", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true",
          requires_ifs([("true", "tls_cert_file"), ("true", "tls_key_file")]))]
    use_tls: bool,

    /// PEM file with the certificate
    #[arg(long = "tls_cert_file", value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,

    /// PEM file with its key
    #[arg(long = "tls_key_file", value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
}

/// Why the server did not run, or stopped.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("bad configuration: {0}")]
    Config(#[from] ConfigError),
    #[error("bad configuration: {0}")]
    Tls(#[from] TlsError),
    #[error("could not listen on {address}: {source}; free it or choose another with --port")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("could not start: {0}")]
    Start(#[from] io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// The test service with the metadata that it echoes.
#[must_use]
pub fn routes(server: TestServer) -> Routes {
    Routes::new(Echo(TestServiceServer::new(server)))
}

/// Is the program `conformance-server`: serves until SIGTERM or SIGINT. `args[0]` is the program's
/// name. Starts a tokio runtime of its own, so it must not be called inside one.
///
/// Exit codes: 0 after a drain, 1 when it can't start, 64 for wrong usage.
pub fn server_main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(answer) => {
            // Nobody reads: nothing to tell.
            let _ = answer.print();
            return ExitCode::from(if answer.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(serve(&flags))) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("conformance-server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(flags: &Flags) -> Result<u8, Error> {
    let address = SocketAddr::new(flags.host, flags.port);
    let mut builder = Server::builder().drain_delay(Duration::ZERO).drain_grace(DRAIN_GRACE);
    if let (true, Some(chain), Some(key)) =
        (flags.use_tls, &flags.tls_cert_file, &flags.tls_key_file)
    {
        let tls = ServerTls::new(Identity::watch(chain, key)?);
        builder = builder.tls(tls.provider(Arc::new(ring::default_provider())))?;
    }
    let service = TestServer::new(own_id());
    builder = builder.orca(Orca::new(service.metrics()).min_report_interval(REPORT_INTERVAL));
    let server = builder.build(routes(service))?;
    let signals = Termination::install()?;
    let listener =
        TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    // A closed standard output is no reason not to serve.
    let _ = writeln!(io::stdout(), "Started server on port {}", listener.local_addr()?.port());
    Ok(signals.serve(server, [listener]).await?.exit_code())
}

/// Other servers, also of other times, have other ones.
fn own_id() -> String {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("evenkeel-{}-{}", std::process::id(), clock.as_nanos())
}
