//! The greeter's client: one load-balanced channel, an honest load generator, a report per backend.
//!
//! A library, so that the lab can be this program without installing it, and so that the
//! conformance client shares the load loop ([`load`]), the tallies ([`tally`]) and the quantiles
//! ([`histogram`]) instead of having its own.

use std::{ffi::OsString, process::ExitCode};

mod admin;
pub mod attempts;
pub mod cost;
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

/// Is the program `client`: reads flags and environment, runs, prints the report. `args[0]` is the
/// program's name. Starts a tokio runtime of its own, so it must not be called inside one.
///
/// Exit codes: 0 for a run, whatever became of its calls; 64 for bad configuration; 1 when the run
/// could not be made or its report not be written.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags: flags::Flags = match program::arguments(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    // Lines of a log between the events would make stderr unreadable for a program.
    if let Err(code) = program::start_log(if flags.events { "off" } else { "warn" }) {
        return code;
    }
    program::block_on(run::run(flags)).unwrap_or_else(|error| {
        eprintln!("client: no runtime: {error}");
        ExitCode::FAILURE
    })
}
