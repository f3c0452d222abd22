//! One `lab run`: its folder, its processes, and the order in which phases play.
//!
//! Phases are independent, so they run side by side; but a phase that measures time must not wait
//! for a processor behind one that makes load. Each says how many calls a second it makes, and
//! phases start while their sum fits what this machine's processors carry easily.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{process::Command, task::JoinSet};

use crate::{
    clock::unix_s,
    envoy::Found,
    error::LabError,
    examples::{Example, Phase, mesh},
    istiod,
    process::Nursery,
    programs,
    progress::Progress,
    reexec::{EXEC, PARENT_ENV},
    report::{ExampleReport, Mark, PhaseReport, RunReport, SCHEMA},
    spans::{self, Spans},
};

#[cfg(test)]
mod tests;

/// Calls a second, client and backends together, that one processor carries at about half load.
const CALLS_PER_CPU: u32 = if cfg!(debug_assertions) { 350 } else { 900 };
/// Environment of the user that children keep. Nothing else: an exported GREETER_DELAY would
/// change what the lab measures.
const ENV_KEPT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"];
/// Lines of a child's log that an error message repeats.
const TAIL_LINES: usize = 15;
/// Marks of one phase; a rolling restart of 1,000 pods makes as many.
const MARKS_MAX: usize = 2_000;
/// SIGKILL was sent; this only bounds the wait for the kernel.
const LAST_CHILD_LIMIT: Duration = Duration::from_secs(5);

/// What all phases of a run share.
pub(crate) struct Run {
    exe: PathBuf,
    folder: Folder,
    nursery: Nursery,
    progress: Progress,
    settings: Settings,
    spans: spans::Book,
    /// What was said of each phase that is not reported yet.
    marks: Mutex<BTreeMap<String, Vec<Mark>>>,
}

/// What the command line says of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The folder stays when the run is over.
    pub(crate) keep: bool,
    /// Pods that a rolling restart replaces.
    pub(crate) restarts: u16,
    /// The Envoy to run, of a run that needs one.
    pub(crate) envoy: Option<Found>,
    /// Worker threads of each Envoy.
    pub(crate) envoy_concurrency: u16,
    /// The control plane of example 4, instead of our balancer.
    pub(crate) istiod: Option<istiod::Found>,
    /// Where greeter, client and grpclb are, when the lab is not to be them itself.
    pub(crate) programs: Option<PathBuf>,
    /// Every process of a phase traces its calls.
    pub(crate) traced: bool,
    /// Every backend shows a page for Prometheus.
    pub(crate) metered: bool,
}

impl Run {
    /// Makes the run's folder; it is removed when the value is dropped unless it is to be kept.
    ///
    /// # Errors
    ///
    /// When the folder can't be made or this program can't be found.
    pub(crate) fn new(settings: Settings) -> Result<Self, LabError> {
        let exe = std::env::current_exe().map_err(LabError::io("can't find this program"))?;
        let (folder, nursery) = (Folder::make(settings.keep)?, Nursery::new());
        let (progress, spans) = (Progress::start(), spans::Book::default());
        Ok(Self { exe, folder, nursery, progress, settings, spans, marks: Mutex::default() })
    }

    /// Says what happens in `phase`, and keeps it for the phase's report.
    pub(crate) fn mark(&self, phase: &str, what: &str) {
        self.progress.say(phase, what);
        let mark = Mark { unix_s: unix_s(), what: what.to_owned() };
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = marks.entry(phase.to_owned()).or_default();
        if marks.len() < MARKS_MAX {
            marks.push(mark);
        }
    }

    /// What was said of `phase` up to now; it is no longer kept.
    pub(crate) fn take_marks(&self, phase: &str) -> Vec<Mark> {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.remove(phase).unwrap_or_default()
    }

    /// A command that runs `child`: the lab again, or the program of that name in `--programs`.
    pub(crate) fn command(&self, child: &str) -> Command {
        match self.settings.programs.as_deref().filter(|_| programs::NAMES.contains(&child)) {
            Some(folder) => self.tied(&folder.join(child)),
            None => self.again(child),
        }
    }

    /// A command that re-executes the lab as `child`.
    fn again(&self, child: &str) -> Command {
        let mut command = Command::new(&self.exe);
        command.arg(child).env_clear().env(PARENT_ENV, std::process::id().to_string());
        command.envs(ENV_KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }

    /// A command for another program, with the environment of our own children, which dies with the
    /// lab as they do.
    pub(crate) fn tied(&self, program: &Path) -> Command {
        let mut command = self.again(EXEC);
        command.arg(program);
        command
    }

    /// The Envoy of this run.
    ///
    /// # Errors
    ///
    /// When the run was started without one, for examples that need none.
    pub(crate) fn envoy(&self) -> Result<&Found, LabError> {
        self.settings.envoy.as_ref().ok_or(LabError::Unlooked)
    }

    /// Worker threads of each Envoy.
    pub(crate) fn envoy_concurrency(&self) -> u16 {
        self.settings.envoy_concurrency
    }

    /// istiod, where it is the control plane of example 4.
    pub(crate) fn istiod(&self) -> Option<&istiod::Found> {
        self.settings.istiod.as_ref()
    }

    /// A receiver for the spans of `phase`, if it is traced.
    ///
    /// # Errors
    ///
    /// When it can't listen.
    pub(crate) async fn trace(&self, phase: &str) -> Result<Option<Arc<Spans>>, LabError> {
        if self.settings.traced { self.spans.open(phase).await } else { Ok(None) }
    }

    /// Whether every backend shows a page for Prometheus.
    pub(crate) fn is_metered(&self) -> bool {
        self.settings.metered
    }

    /// The receivers.
    pub(crate) fn spans(&self) -> &spans::Book {
        &self.spans
    }

    /// Where child processes are started.
    pub(crate) fn nursery(&self) -> &Nursery {
        &self.nursery
    }

    /// Progress lines.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Pods that a rolling restart replaces, one after the other.
    pub(crate) fn restarts(&self) -> u16 {
        self.settings.restarts
    }

    /// The run's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// A file of the run's folder.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        // Phases are named `example/phase`; the folder is flat.
        self.folder.path.join(file.replace('/', "-"))
    }

    /// Waits until every child is gone. All of them have been sent SIGKILL when this is called.
    pub(crate) async fn childless(&self) {
        if tokio::time::timeout(LAST_CHILD_LIMIT, self.nursery.empty()).await.is_err() {
            self.progress.say("lab", "a child does not die; the kernel ends it with this process");
        }
    }
}

/// The last lines of a child's log, indented, for an error message: the folder may be gone when it
/// is read.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    if lines.is_empty() {
        return format!("  ({} is empty)", log.display());
    }
    lines[from..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The folder of a run.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn make(keep: bool) -> Result<Self, LabError> {
        let name = format!("evenkeel-lab-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(LabError::io(format!("can't make {}", path.display())))?;
        Ok(Self { path, keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing to do about a folder that can't be removed; it is in the temporary folder.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// A phase that waits for its turn, with its place in the report.
struct Waiting {
    example: usize,
    place: usize,
    phase: &'static Phase,
}

type Played = (usize, usize, u32, Result<PhaseReport, LabError>);

/// Plays `chosen` and reports. Dropping the future ends everything it started.
///
/// # Errors
///
/// The first phase that could not run; the others are ended.
pub(crate) async fn play(
    run: &Arc<Run>,
    chosen: &[(&'static Example, Vec<&'static Phase>)],
) -> Result<RunReport, LabError> {
    let (started_unix_s, cpus) = (unix_s(), cpus());
    let budget = u32::try_from(cpus).unwrap_or(u32::MAX).saturating_mul(CALLS_PER_CPU);
    let mut waiting = in_order(chosen);
    let mut free = budget;
    let mut playing: JoinSet<Played> = JoinSet::new();
    let mut names = HashMap::new();
    let mut played: Vec<(usize, usize, PhaseReport)> = Vec::new();
    loop {
        while let Some(next) = first_that_fits(&waiting, free, playing.is_empty()) {
            let Waiting { example, place, phase } =
                waiting.remove(next).expect("the index was found in this queue");
            let cost = phase.calls_per_s.min(free);
            free -= cost;
            let name = format!("{}/{}", chosen[example].0.name, phase.name);
            run.progress().say(&name, phase.what);
            let play = (phase.play)(Arc::clone(run), name.clone());
            let play = spans::judged(Arc::clone(run), name.clone(), play);
            let (run, of) = (Arc::clone(run), name.clone());
            let task = playing.spawn(async move {
                let mut played = play.await;
                if let Ok(report) = &mut played {
                    report.marks = run.take_marks(&of);
                }
                (example, place, cost, played)
            });
            names.insert(task.id(), name);
        }
        match playing.join_next().await {
            None => break,
            Some(Err(error)) => {
                let phase = names.remove(&error.id()).unwrap_or_default();
                return Err(LabError::Panicked { phase, message: message_of(error) });
            }
            Some(Ok((example, place, cost, report))) => {
                let report = report?;
                say_result(run, chosen[example].0.name, &report);
                free += cost;
                played.push((example, place, report));
            }
        }
    }
    played.sort_by_key(|(example, place, _)| (*example, *place));
    let examples = chosen.iter().enumerate().map(|(index, (example, _))| {
        let phases = played.iter().filter(|(of, ..)| *of == index);
        let phases = phases.map(|(.., report)| report.clone()).collect();
        let mut report = ExampleReport::new(example, phases);
        if run.istiod().is_some() && example.name == mesh::EXAMPLE.name {
            mesh::istiod::tell(&mut report);
        }
        report
    });
    Ok(RunReport {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        started_unix_s,
        wall_s: run.progress().elapsed_s(),
        cpus,
        holds: played.iter().all(|(.., report)| report.holds()),
        examples: examples.collect(),
        not_run: Vec::new(),
    })
}

/// Processors that this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The longest phases first: then the short ones fill the gaps.
fn in_order(chosen: &[(&'static Example, Vec<&'static Phase>)]) -> VecDeque<Waiting> {
    let mut all: Vec<Waiting> = chosen
        .iter()
        .enumerate()
        .flat_map(|(example, (_, phases))| {
            phases.iter().enumerate().map(move |(place, phase)| Waiting { example, place, phase })
        })
        .collect();
    all.sort_by_key(|waiting| std::cmp::Reverse(waiting.phase.seconds));
    all.into()
}

/// The first phase whose load fits into what is free. A phase that is too big for this machine
/// plays alone.
fn first_that_fits(waiting: &VecDeque<Waiting>, free: u32, alone: bool) -> Option<usize> {
    let fits = waiting.iter().position(|waiting| waiting.phase.calls_per_s <= free);
    fits.or((alone && !waiting.is_empty()).then_some(0))
}

fn message_of(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panic.downcast::<String>().map_or_else(
            |other| other.downcast::<&str>().map_or_else(|_| "?".to_owned(), |text| (*text).into()),
            |text| *text,
        ),
        Err(cancelled) => cancelled.to_string(),
    }
}

fn say_result(run: &Run, example: &str, report: &PhaseReport) {
    let failed = report.checks.iter().filter(|check| !check.holds).count();
    let name = format!("{example}/{}", report.name);
    let all = report.checks.len();
    if failed == 0 {
        run.progress().say(&name, &format!("√ all {all} checks hold"));
    } else {
        run.progress().say(&name, &format!("× {failed} of {all} checks failed"));
    }
}
