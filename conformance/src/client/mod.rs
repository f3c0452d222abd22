//! The client under test: our channel under the flags, the commands and the JSON line of the
//! clients in `../shared/peers`, so that one scenario runner drives grpc-go, C-core, tonic and us
//! and the figures can stand side by side. The load loop, tallies and quantiles are those of the
//! service `client`; what is here is the peers' command line.

mod commands;
mod flags;
mod line;
mod output;
mod run;
mod static_resolver;

use std::{ffi::OsString, process::ExitCode};

use flags::Flags;

/// Exit code for flags that this client does not take.
pub const EXIT_FLAGS: u8 = 2;

/// Is the program `conformance-client`. `args[0]` is the program's name. Starts a tokio runtime of
/// its own, so it must not be called inside one.
///
/// Exit codes: 0 for a run, whatever became of its calls; 2 for flags that it does not take, with
/// the reason on stderr; 1 when the run could not be made.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match Flags::read(args) {
        Ok(flags) => flags,
        Err(error) => {
            error.print();
            return ExitCode::from(error.exit_code());
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("conformance-client: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run::run(flags));
    // Calls that were given up may still be running; the line is out and they don't matter.
    runtime.shutdown_background();
    code
}
