//! The command line: `lab doctor | list | run | serve | bench | report | explain | envoy`.
//!
//! Exit codes: 0 all checks hold, 1 a check failed, 2 could not run (bad usage included, which is
//! clap's own code for it).

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    bench,
    cluster::{self, Place, Where},
    doctor,
    envoy::{self, Found},
    error::LabError,
    examples::{
        self, Example, Phase,
        mesh::{self, istiod::NO_IDENTITIES},
    },
    explain::{self, Question},
    istiod, list, programs,
    progress::Progress,
    reexec,
    report::{NotRun, RunReport, json, page, text},
    run::{self, Run, Settings},
    serve,
};

pub(crate) const FAILED: u8 = 1;
pub(crate) const COULD_NOT_RUN: u8 = 2;
/// Where `run --all` leaves its page, below the current folder.
const REPORT_FOLDER: &str = "lab-report";

/// Runs and measures gRPC load-balancing examples with real processes on this machine.
#[derive(Debug, Parser)]
#[command(name = "lab", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says whether this machine, or a cluster, can run the examples, and what to do if not
    Doctor {
        /// The Envoy of examples 2 and later, instead of $ENVOY, one on $PATH, or the pinned wheel
        #[arg(long, value_name = "FILE")]
        envoy: Option<PathBuf>,
        #[command(flatten)]
        at: Where,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Lists the examples and their phases
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Says why a gRPC service on a cluster is not balanced; reads, and changes nothing
    Explain {
        #[command(flatten)]
        question: Question,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Runs examples and checks their promises
    Run(RunArgs),
    /// Measures what each way to balance costs, all of them in one run
    Bench(bench::BenchArgs),
    /// Serves a page on this machine on which you break things and look
    Serve(serve::ServeArgs),
    /// Makes the page of a run again, with a measurement if there is one
    Report(page::ReportArgs),
    /// Prints the path of the Envoy that a run would use, and installs the wheel if it has to
    Envoy {
        /// The Envoy to use, instead of $ENVOY, one on $PATH, or the pinned wheel
        #[arg(long, value_name = "FILE")]
        envoy: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Names or numbers, as `lab list` shows them
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "EXAMPLE")]
    examples: Vec<String>,
    /// Every example
    #[arg(long)]
    all: bool,
    /// Only this phase of each example; may be repeated
    #[arg(long, value_name = "PHASE")]
    phase: Vec<String>,
    /// Pods that the phase `rolling` replaces, one after the other
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = value_parser!(u16).range(1..=1000))]
    restarts: u16,
    /// The Envoy to run, instead of $ENVOY, one on $PATH, or the pinned wheel
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Worker threads of each Envoy; each takes turns of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = value_parser!(u16).range(1..=64))]
    envoy_concurrency: u16,
    /// Who tells Envoys everything, where both can: example 4 here, example 3 on a cluster
    #[arg(long, value_enum, value_name = "WHO")]
    control_plane: Option<ControlPlane>,
    /// Istio's pilot-discovery, instead of $ISTIOD or one on $PATH
    #[arg(long, value_name = "FILE")]
    istiod: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
    /// With --on cluster: do not ask before the first change
    #[arg(long)]
    yes: bool,
    /// Write report.html and report.json into this folder [default with --all: lab-report]
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// Run client, greeter and grpclb from this folder, instead of the lab as each of them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Trace nothing: fewer checks, and less work for the machine
    #[arg(long)]
    without_spans: bool,
    /// Keep the run's folder (the children's logs and reports) and print its path
    #[arg(long)]
    keep: bool,
    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON document on stdout
    Json,
}

/// Who tells Envoys everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ControlPlane {
    /// Our balancer, by xDS; so it is without this flag
    Balancer,
    /// Istio's own; without a cluster it follows files, and there is no mutual TLS
    Istiod,
}

type Chosen = Vec<(&'static Example, Vec<&'static Phase>)>;

/// Runs the lab with `arguments`, the first of which is the program's name.
///
/// `lab greeter …`, `lab client …` and `lab grpclb …` become the service of that name; the lab
/// starts its children so. Never panics on bad arguments: they are exit code 2 and a message.
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(ended) = reexec::become_child(&arguments) {
        return ended;
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are successes; a broken pipe leaves nowhere to tell.
            error.print().ok();
            return if error.use_stderr() { COULD_NOT_RUN.into() } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return could_not_run(&format!("can't start tokio: {error}")),
    };
    runtime.block_on(execute(cli.command))
}

async fn execute(command: Command) -> ExitCode {
    match command {
        Command::Doctor { envoy, at, output } => {
            let findings = match at.on {
                Place::Machine => Ok(doctor::examine(envoy.as_deref()).await),
                Place::Cluster => cluster::doctor::examine(&at).await,
            };
            let findings = match findings {
                Ok(findings) => findings,
                Err(error) => return could_not_run(&error.to_string()),
            };
            let printed = pick(output, || doctor::text(&findings), || json::print(&findings));
            if let Err(error) = emit(&printed) {
                return could_not_run(&error);
            }
            if findings.iter().all(|finding| finding.ok || !finding.required) {
                ExitCode::SUCCESS
            } else {
                FAILED.into()
            }
        }
        Command::List { output } => {
            let rows = list::rows();
            let printed = pick(output, || list::text(&rows), || json::print(&rows));
            emit(&printed).map_or_else(|error| could_not_run(&error), |()| ExitCode::SUCCESS)
        }
        Command::Explain { question, output } => answer(&question, output).await,
        Command::Envoy { envoy } => show_envoy(envoy.as_deref()).await,
        Command::Run(arguments) if arguments.at.on == Place::Cluster => {
            run_on_cluster(&arguments).await
        }
        Command::Run(arguments) => match choose(&arguments) {
            Ok(chosen) => tokio::select! {
                equipped = equip(&arguments, chosen) => run_chosen(&arguments, equipped).await,
                signal = interrupted() => {
                    could_not_run(&LabError::Interrupted(signal).to_string())
                }
            },
            Err(message) => could_not_run(&message),
        },
        Command::Bench(arguments) => bench::execute(arguments).await,
        Command::Serve(arguments) => serve::execute(arguments).await,
        Command::Report(arguments) => match arguments.write() {
            Ok(page) => emit(&format!("{}\n", page.display()))
                .map_or_else(|error| could_not_run(&error), |()| ExitCode::SUCCESS),
            Err(error) => could_not_run(&error.to_string()),
        },
    }
}

async fn answer(question: &Question, output: Output) -> ExitCode {
    match explain::explain(question).await {
        Ok(answer) => {
            let printed = pick(output, || answer.text(), || json::print(&answer));
            let code = if answer.holds { ExitCode::SUCCESS } else { FAILED.into() };
            emit(&printed).map_or_else(|error| could_not_run(&error), |()| code)
        }
        Err(error) => could_not_run(&error.to_string()),
    }
}

async fn show_envoy(named: Option<&Path>) -> ExitCode {
    let progress = Progress::start();
    let found = tokio::select! {
        found = envoy::find(named, &progress) => found.map_err(LabError::from),
        signal = interrupted() => Err(LabError::Interrupted(signal)),
    };
    let printed = found.map_err(|missing| missing.to_string());
    match printed.and_then(|found| emit(&format!("{}\n", found.path.display()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => could_not_run(&message),
    }
}

pub(crate) fn pick(
    output: Output,
    text: impl FnOnce() -> String,
    json: impl FnOnce() -> String,
) -> String {
    match output {
        Output::Text => text(),
        Output::Json => json(),
    }
}

/// Writes results to stdout. `print!` would panic when the reader is gone (`lab list | head -1`).
pub(crate) fn emit(text: &str) -> Result<(), String> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| format!("can't write the results to stdout: {error}"))
}

/// What is played, and with which programs of others.
struct Equipped {
    chosen: Chosen,
    envoy: Option<Found>,
    istiod: Option<istiod::Found>,
    not_run: Vec<NotRun>,
}

/// Finds an Envoy and an istiod if an example needs one. Without any, those examples are not run;
/// the others are.
async fn equip(arguments: &RunArgs, chosen: Chosen) -> Equipped {
    let mut equipped = Equipped { chosen, envoy: None, istiod: None, not_run: Vec::new() };
    let progress = Progress::start();
    let has = |equipped: &Equipped, needs: fn(&Example) -> bool| {
        equipped.chosen.iter().any(|(example, _)| needs(example))
    };
    let with_istiod = arguments.control_plane == Some(ControlPlane::Istiod);
    if with_istiod && has(&equipped, is_mesh) {
        match istiod::find(arguments.istiod.as_deref()) {
            Ok(found) => {
                let istiod::Found { path, by } = &found;
                progress.say("lab", &format!("istiod: {}, by {by}", path.display()));
                equipped.istiod = Some(found);
            }
            Err(missing) => equipped.leave_out(is_mesh, &missing.to_string()),
        }
    }
    let needs_envoy = |example: &Example| example.needs_envoy;
    if has(&equipped, needs_envoy) {
        match envoy::find(arguments.envoy.as_deref(), &progress).await {
            Ok(found) => {
                let Found { path, version, by } = &found;
                progress.say("lab", &format!("Envoy {version}: {}, by {by}", path.display()));
                equipped.envoy = Some(found);
            }
            Err(missing) => equipped.leave_out(needs_envoy, &missing.to_string()),
        }
    }
    equipped
}

/// The one whose control plane can be chosen on one machine.
fn is_mesh(example: &Example) -> bool {
    example.name == mesh::EXAMPLE.name
}

impl Equipped {
    fn leave_out(&mut self, lacks: fn(&Example) -> bool, why: &str) {
        let chosen = std::mem::take(&mut self.chosen);
        let (without, with): (Chosen, Chosen) =
            chosen.into_iter().partition(|(example, _)| lacks(example));
        self.not_run.extend(without.iter().map(|(example, _)| NotRun::new(example, why)));
        self.chosen = with;
    }
}

async fn run_chosen(arguments: &RunArgs, equipped: Equipped) -> ExitCode {
    let Equipped { chosen, envoy, istiod, not_run } = equipped;
    if let (true, Some(first)) = (chosen.is_empty(), not_run.first()) {
        return could_not_run(&first.why);
    }
    let programs = match arguments.programs.as_deref().map(programs::in_folder).transpose() {
        Ok(programs) => programs,
        Err(error) => return could_not_run(&error.to_string()),
    };
    let settings = Settings {
        istiod,
        keep: arguments.keep,
        restarts: arguments.restarts,
        envoy,
        envoy_concurrency: arguments.envoy_concurrency,
        programs,
        metered: false,
        traced: !arguments.without_spans,
    };
    let run = match Run::new(settings) {
        Ok(run) => Arc::new(run),
        Err(error) => return could_not_run(&error.to_string()),
    };
    let outcome = tokio::select! {
        outcome = run::play(&run, &chosen) => outcome,
        signal = interrupted() => Err(LabError::Interrupted(signal)),
    };
    // The phases are dropped by now, and with them every child was sent SIGKILL.
    run.childless().await;
    if arguments.keep {
        run.progress().say("lab", &format!("kept {}", run.folder().display()));
    }
    match outcome {
        Ok(mut report) => {
            report.not_run = not_run;
            show(&run, &report, arguments)
        }
        Err(error) => could_not_run(&error.to_string()),
    }
}

/// The same on a cluster: other pods, the same checks, report and exit code.
async fn run_on_cluster(arguments: &RunArgs) -> ExitCode {
    if arguments.programs.is_some() {
        return could_not_run("--programs is for this machine; a cluster runs images");
    }
    let at = &arguments.at;
    let plan = match cluster::plan(
        &arguments.examples,
        arguments.all,
        &arguments.phase,
        (at, arguments.control_plane),
        arguments.yes,
    ) {
        Ok(plan) => plan,
        Err(message) => return could_not_run(&message),
    };
    let settings = Settings { keep: arguments.keep, ..Settings::default() };
    let run = match Run::new(settings) {
        Ok(run) => Arc::new(run),
        Err(error) => return could_not_run(&error.to_string()),
    };
    let outcome = tokio::select! {
        outcome = plan.play(&run) => outcome,
        signal = interrupted() => Err(LabError::Interrupted(signal)),
    };
    plan.clean(&run).await;
    run.childless().await;
    match outcome {
        Ok(report) => show(&run, &report, arguments),
        Err(error) => could_not_run(&error.to_string()),
    }
}

/// Prints what a run found, leaves its page, and says the exit code.
fn show(run: &Run, report: &RunReport, arguments: &RunArgs) -> ExitCode {
    let default = || arguments.all.then(|| PathBuf::from(REPORT_FOLDER));
    if let Some(folder) = arguments.report.clone().or_else(default) {
        match page::write(&folder, report) {
            Ok(page) => run.progress().say("lab", &format!("wrote {}", page.display())),
            Err(error) => return could_not_run(&error.to_string()),
        }
    }
    let printed = pick(arguments.output, || text::print(report), || json::print(report));
    let code = verdict(report, arguments);
    emit(&printed).map_or_else(|error| could_not_run(&error), |()| code.into())
}

/// A check that failed says more than an example that was not run. `--all` means all that this
/// machine can run; an example, an Envoy or a control plane that was asked for has to be there.
fn verdict(report: &RunReport, arguments: &RunArgs) -> u8 {
    let named = arguments.envoy.is_some() || arguments.control_plane.is_some();
    let by_name = !arguments.all || named;
    match (report.holds, report.not_run.is_empty()) {
        (false, _) => FAILED,
        (true, false) if by_name => COULD_NOT_RUN,
        (true, _) => 0,
    }
}

/// Completes on Ctrl-C, SIGTERM or a closed terminal, with the signal's name.
pub(crate) async fn interrupted() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        // Without handlers the default action ends the lab, and the kernel its children.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    }
}

/// The examples and phases that the arguments name, each example once.
fn choose(arguments: &RunArgs) -> Result<Chosen, String> {
    let mut examples: Vec<&'static Example> = Vec::new();
    if arguments.all {
        examples.extend(examples::ALL);
    }
    for word in &arguments.examples {
        let example = examples::find(word)?;
        if examples.iter().all(|other| other.name != example.name) {
            examples.push(example);
        }
    }
    let wanted = &arguments.phase;
    for name in wanted {
        let known: Vec<&str> = phases_of(&examples).map(|phase| phase.name).collect();
        if !known.contains(&name.as_str()) {
            return Err(format!("unknown phase \"{name}\"; known are {}", known.join(", ")));
        }
    }
    let under_istiod = |example: &Example| {
        arguments.control_plane == Some(ControlPlane::Istiod) && is_mesh(example)
    };
    let cannot = wanted.iter().find(|name| !mesh::istiod::plays(name));
    if let (Some(name), true) = (cannot, examples.iter().any(|example| under_istiod(example))) {
        return Err(format!("phase \"{name}\" is not played under istiod: {NO_IDENTITIES}"));
    }
    let of_example = |example: &'static Example| {
        let phases = example.phases.iter();
        let taken = phases.filter(|phase| {
            let can = !under_istiod(example) || mesh::istiod::plays(phase.name);
            can && (wanted.is_empty() || wanted.iter().any(|w| w == phase.name))
        });
        (example, taken.collect())
    };
    Ok(examples.into_iter().map(of_example).collect())
}

fn phases_of(examples: &[&'static Example]) -> impl Iterator<Item = &'static Phase> {
    examples.iter().flat_map(|example| example.phases)
}

pub(crate) fn could_not_run(message: &str) -> ExitCode {
    eprintln!("lab: could not run: {message}");
    COULD_NOT_RUN.into()
}

#[cfg(test)]
mod tests;
