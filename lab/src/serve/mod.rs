//! `lab serve`: a page on this machine on which a person breaks things and looks.
//!
//! The page is a view of a [`show`]: one example that runs, with a client that calls all the time.
//! What a button asks for goes to the show as a [`show::Wish`]; what happened comes back as
//! server-sent events, so that a second page, or `curl`, sees the same. Nothing here can be reached
//! from another machine or by another site's page ([`guard`]).

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use tokio::net::TcpListener;

use crate::{
    cli::{could_not_run, emit, interrupted},
    envoy::{self, Found},
    error::LabError,
    examples,
    progress::Progress,
    run::{Run, Settings},
};

mod deeds;
mod guard;
mod hub;
mod show;
mod web;
mod window;

use show::Show;

/// What can be said on the command line.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The example to begin with
    #[arg(value_name = "EXAMPLE", default_value = "round-robin")]
    example: String,
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Calls a second
    #[arg(long, value_name = "PER_S", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// The Envoy of examples 2 to 4, instead of $ENVOY, one on $PATH, or the pinned wheel
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
}

/// Serves until it is interrupted.
pub(crate) async fn execute(arguments: ServeArgs) -> ExitCode {
    match serve(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => could_not_run(&error),
    }
}

async fn serve(arguments: &ServeArgs) -> Result<(), String> {
    let example = examples::find(&arguments.example)?;
    let says = |error: LabError| error.to_string();
    let address = SocketAddr::from(([127, 0, 0, 1], arguments.port));
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| {
        format!("can't listen on {address}: {error}; choose another port with --port, 0 for any")
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let (envoy, no_envoy) = tokio::select! {
        found = look(arguments) => found,
        // Nothing runs yet.
        _ = interrupted() => return Ok(()),
    };
    if let (true, Some(why)) = (example.needs_envoy, &no_envoy) {
        return Err(why.clone());
    }
    let settings = Settings {
        envoy,
        envoy_concurrency: 1,
        traced: true,
        metered: true,
        ..Settings::default()
    };
    let run = Arc::new(Run::new(settings).map_err(says)?);
    let (show, hub) = Show::new(Arc::clone(&run), example, arguments.rate, no_envoy);
    emit(&format!("http://{address}/\n"))?;
    run.progress().say("lab", "Ctrl-C ends it");
    tokio::select! {
        () = show.go_on() => {}
        () = web::serve(listener, address, hub) => {}
        signal = interrupted() => run.progress().say("lab", &format!("ended by {signal}")),
    }
    // The show is dropped by now, and with it every child was sent SIGKILL.
    run.childless().await;
    Ok(())
}

/// The Envoy for the examples that need one, or why they can't be shown.
async fn look(arguments: &ServeArgs) -> (Option<Found>, Option<String>) {
    match envoy::find(arguments.envoy.as_deref(), &Progress::start()).await {
        Ok(found) => (Some(found), None),
        Err(missing) => (None, Some(missing.to_string())),
    }
}
