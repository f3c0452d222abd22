//! The greeter's client: one load-balanced channel, an honest load generator, a report per backend.
//!
//! A library, so that the lab can be this program without installing it, and so that the
//! conformance client shares the load loop ([`load`]), the tallies ([`tally`]) and the quantiles
//! ([`histogram`]) instead of having its own.

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

mod admin;
pub mod attempts;
pub mod cost;
pub mod duration;
pub mod events;
pub mod flags;
pub mod greeting;
pub mod histogram;
pub mod load;
pub mod pacing;
pub mod report;
mod run;
pub mod status;
pub mod stop;
pub mod table;
pub mod tally;

/// Exit code for bad configuration (EX_USAGE).
pub const EXIT_CONFIG: u8 = 64;

/// Is the program `client`: reads flags and environment, runs, prints the report. `args[0]` is the
/// program's name. Starts a tokio runtime of its own, so it must not be called inside one.
///
/// Exit codes: 0 for a run, whatever became of its calls; 64 for bad configuration; 1 when the run
/// could not be made or its report not be written.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match flags::Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_CONFIG)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // Lines of a log between the events would make stderr unreadable for a program.
    let level = if flags.events { "off" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // A subscriber that is set already is the caller's.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("client: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run::run(flags));
    // Calls that were given up may still be running; the report is out and they don't matter.
    runtime.shutdown_background();
    code
}
