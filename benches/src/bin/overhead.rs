//! What metrics and spans cost a channel's calls; see the README. The hidden commands are for the
//! processes that it starts.

use std::{net::SocketAddr, process::ExitCode};

use benches::{backends, cores::Side, overhead};
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

#[derive(Parser)]
#[command(about, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: overhead::Options,
    #[arg(long, hide = true, global = true)]
    side: Option<Side>,
}

#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Server { listeners: usize },
    #[command(hide = true)]
    Sink,
    #[command(hide = true)]
    Worker {
        kind: overhead::Kind,
        sink: SocketAddr,
        #[arg(value_delimiter = ',')]
        backends: Vec<SocketAddr>,
    },
}

fn main() -> ExitCode {
    let Arguments { role, options, side } = Arguments::parse();
    // Before the runtime, which has as many threads as there are cores.
    let ended = side.map_or(Ok(()), Side::take).and_then(|()| {
        let runtime = Runtime::new().map_err(|e| format!("runtime: {e}"))?;
        runtime.block_on(run(role, options))
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overhead: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(role: Option<Role>, options: overhead::Options) -> Result<(), String> {
    match role {
        Some(Role::Server { listeners }) => {
            backends::run(listeners).await.map_err(|e| format!("servers: {e}"))
        }
        Some(Role::Sink) => overhead::sink().await,
        Some(Role::Worker { kind, sink, backends }) => {
            overhead::worker(kind, sink, &backends).await
        }
        None => overhead::run(options).await,
    }
}
