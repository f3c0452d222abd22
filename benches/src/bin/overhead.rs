//! What metrics and spans cost a channel's calls; see the README. The hidden commands are for the
//! processes that it starts.

use std::{net::SocketAddr, process::ExitCode};

use benches::{backends, overhead};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: overhead::Options,
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

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { role, options } = Arguments::parse();
    let ended = match role {
        Some(Role::Server { listeners }) => {
            backends::run(listeners).await.map_err(|e| format!("servers: {e}"))
        }
        Some(Role::Sink) => overhead::sink().await,
        Some(Role::Worker { kind, sink, backends }) => {
            overhead::worker(kind, sink, &backends).await
        }
        None => overhead::run(options).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overhead: {error}");
            ExitCode::FAILURE
        }
    }
}
