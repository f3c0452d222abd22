//! The command line of `conformance`, and its exit codes: 0 all rows pass, 1 a row fails, 2 the run
//! could not be made, 3 skipped because the peers are not here, 64 usage, 130 ended by a signal.

use super::error::Error;
use super::expect::Expectations;
use super::facility::Facility;
use super::peers::{Ended, Plan};
use super::report::Report;
use super::row::Row;
use super::saved;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compares our channel with other gRPC clients.
#[derive(Debug, Parser)]
#[command(name = "conformance", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scenarios and judge each row by expect.toml.
    Peers(Peers),
    /// Make docs/conformance.md again from the saved runs.
    Docs {
        /// Folder that holds `peers` [default: $EVENKEEL_SHARED, else ../shared].
        #[arg(long)]
        shared: Option<PathBuf>,
    },
    /// Judge saved rows (such as another client's figures) without running anything.
    Judge {
        /// A file of rows, one JSON object a line.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Peers {
    /// Folder that holds `peers` [default: $EVENKEEL_SHARED, else ../shared beside the workspace].
    #[arg(long)]
    shared: Option<PathBuf>,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Save the rows and make docs/conformance.md of them.
    #[arg(long, conflicts_with = "client")]
    write_docs: bool,
    /// How often; a row has to pass each time, and the worst of them is saved.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    runs: u32,
    /// The client to drive, a command as a shell splits it [default: conformance-client].
    #[arg(long)]
    client: Option<String>,
    /// Our greeter [default: the one beside this binary].
    #[arg(long)]
    greeter: Option<PathBuf>,
}

/// Runs the command line; `args[0]` is the program's name.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(answer) => {
            let code = if answer.use_stderr() { 64 } else { 0 };
            // Nobody reads: nothing to tell.
            let _ = answer.print();
            return ExitCode::from(code);
        }
    };
    let done = match cli.command {
        Command::Peers(peers) => run_peers(&peers, &command_line(&args)),
        Command::Docs { shared } => run_docs(shared.as_deref()),
        Command::Judge { file } => run_judge(&file),
    };
    ExitCode::from(done.unwrap_or_else(|error| {
        match &error {
            Error::Skip(why) => println!("skipped: {why}"),
            other => eprintln!("conformance: {other}"),
        }
        error.exit_code()
    }))
}

fn run_peers(peers: &Peers, command: &str) -> Result<u8, Error> {
    let expectations = Expectations::built_in()?;
    let plan = Plan::new(
        Facility::find(peers.shared.as_deref())?,
        &peers.only,
        peers.client.as_deref(),
        peers.greeter.clone(),
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))?;
    let mut report = Report::new(&expectations, std::io::stdout());
    let well = match runtime.block_on(plan.run(peers.runs, &mut report))? {
        Ended::Whole(well) => well,
        Ended::BySignal => {
            eprintln!("conformance: ended by a signal; every process that it started is ended");
            return Ok(130);
        }
    };
    if peers.write_docs {
        saved::save(report.into_rows(), command)?;
        saved::write_page(&expectations, plan.facility())?;
    }
    Ok(u8::from(!well))
}

fn run_docs(shared: Option<&Path>) -> Result<u8, Error> {
    let expectations = Expectations::built_in()?;
    saved::write_page(&expectations, &Facility::find(shared)?)?;
    Ok(0)
}

fn run_judge(file: &Path) -> Result<u8, Error> {
    let expectations = Expectations::built_in()?;
    let mut report = Report::new(&expectations, std::io::stdout());
    for row in Row::read_file(file)? {
        // A file may hold scenarios of later issues; those are nobody's promise yet.
        if expectations.rows.iter().any(|expected| expected.scenario == row.scenario) {
            report.row(row);
        }
    }
    Ok(u8::from(!report.sum()))
}

/// The command as a reader would type it: without the folder of the binary.
fn command_line(args: &[OsString]) -> String {
    let mut words: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    if let Some(program) = words.first_mut() {
        *program = program.rsplit('/').next().unwrap_or_default().to_owned();
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn refuses_bad_usage_and_answers_help() {
        let code = |words: &[&str]| main_from(words.iter().map(OsString::from));
        assert_eq!(code(&["conformance", "peer"]), ExitCode::from(64));
        assert_eq!(code(&["conformance", "peers", "--runs", "0"]), ExitCode::from(64));
        let both = ["conformance", "peers", "--client", "x", "--write-docs"];
        assert_eq!(code(&both), ExitCode::from(64));
        assert_eq!(code(&["conformance", "--help"]), ExitCode::SUCCESS);
        let nowhere = ["conformance", "peers", "--shared", "/nowhere"];
        assert_eq!(code(&nowhere), ExitCode::from(3));
    }

    #[test]
    fn tells_the_command_without_folders() {
        let args = ["/work/target/conformance", "peers", "--write-docs"].map(OsString::from);
        assert_eq!(command_line(&args), "conformance peers --write-docs");
    }
}
