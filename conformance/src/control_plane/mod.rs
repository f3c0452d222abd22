//! `conformance-xds`: our balancer's xDS under the flags, the JSON and the events of `peer xds`, so
//! that the scenarios that measured grpc-go, C-core and Envoy under go-control-plane run against
//! ours as they are. Everything that clients are told comes from `evenkeel-control`; here is the
//! translation of the peer's file into our YAML, and the counts.

mod events;
mod serve;
mod translate;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;

/// Exit code for wrong usage (EX_USAGE).
const EXIT_USAGE: u8 = 64;

/// Our balancer as an xDS control plane, in the place of `peer xds`.
#[derive(Clone, Debug, Parser)]
#[command(name = "conformance-xds", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:18000")]
    listen: SocketAddr,

    /// JSON file in the form of `peer xds`; read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    snapshot: PathBuf,

    /// Write a bootstrap file for gRPC clients, and FILE.http with a scheme in server_uri
    #[arg(long, value_name = "FILE")]
    write_bootstrap: Option<PathBuf>,

    /// Print each response that is sent
    #[arg(long)]
    verbose: bool,
}

/// Is the program `conformance-xds`: serves until SIGTERM or SIGINT. `args[0]` is the program's
/// name. Starts a tokio runtime of its own, so it must not be called inside one.
///
/// Exit codes: 0 after a signal, 1 when it can't start, 64 for wrong usage.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(answer) => {
            // Nobody reads: nothing to tell.
            let _ = answer.print();
            return ExitCode::from(if answer.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime
        .map_err(|error| format!("could not start: {error}"))
        .and_then(|runtime| runtime.block_on(serve::serve(&flags)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance-xds: {error}");
            ExitCode::FAILURE
        }
    }
}
