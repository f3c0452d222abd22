//! CPU per call and calls a second of `evenkeel::Channel` against its rivals; see the README. The
//! hidden commands are for the processes that it starts.

use std::{net::SocketAddr, process::ExitCode};

use benches::{backends, callers::Candidate, candidate, ratios};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: ratios::Options,
}

#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Server { listeners: usize },
    #[command(hide = true)]
    Candidate {
        candidate: Candidate,
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
        Some(Role::Candidate { candidate, backends }) => candidate::run(candidate, &backends).await,
        None => ratios::run(options).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ratios: {error}");
            ExitCode::FAILURE
        }
    }
}
