//! Changes inputs at random and runs them. An input whose result nobody has seen before is kept and
//! changed further, so that the search follows error messages and statuses into the depth. The same
//! seed makes the same inputs.

use std::{
    collections::{HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

pub use crate::findings::Finding;
use crate::{Target, findings, mutate::Mutator};

/// An input that runs longer takes for ever: they take milliseconds, on a busy machine some more.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);
/// Inputs that are kept, at most.
const KEPT_MAX: usize = 4_096;
/// How often somebody looks for inputs that take for ever.
const LOOK_EACH: Duration = Duration::from_millis(200);

/// Inputs from which a search starts.
pub type Corpus = Vec<Vec<u8>>;

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// For each target.
    pub time: Duration,
    /// Targets at once; 2 when nobody knows.
    pub jobs: Option<usize>,
    /// Where the random numbers start.
    pub seed: u64,
}

/// What came of one target.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub target: &'static str,
    /// Inputs that were run.
    pub inputs: u64,
    /// How many of them gave a result that no other had.
    pub kept: usize,
    /// The first finding; the search for more begins when it is mended.
    pub finding: Option<Finding>,
}

/// What a job does now.
#[derive(Default)]
struct Job {
    running: Option<(&'static str, Instant, Vec<u8>)>,
    inputs: u64,
    kept: usize,
}

/// Searches all targets, in the order in which they are given, some at once. A job that hangs is
/// left where it is; the targets after it are taken by the others, or by nobody.
pub fn run(targets: Vec<(Target, Corpus)>, settings: &Settings) -> Vec<Outcome> {
    findings::listen();
    let (wanted, jobs) = (targets.len(), settings.jobs.unwrap_or(2).max(1));
    let targets = Arc::new(Mutex::new(VecDeque::from(targets)));
    let (done, outcomes) = sync_channel(wanted);
    let jobs: Vec<_> = (0..jobs.min(wanted))
        .map(|_| {
            let (job, targets) = (Arc::new(Mutex::new(Job::default())), targets.clone());
            let (of_thread, done, settings) = (job.clone(), done.clone(), *settings);
            thread::spawn(move || work(&of_thread, &targets, &done, &settings));
            job
        })
        .collect();
    drop(done);
    let mut all = Vec::new();
    loop {
        match outcomes.recv_timeout(LOOK_EACH) {
            Ok(outcome) => all.push(outcome),
            Err(RecvTimeoutError::Disconnected) => return all,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let hanging: Vec<Outcome> = jobs.iter().filter_map(|job| hangs(job)).collect();
        if !hanging.is_empty() {
            all.extend(hanging);
            return all;
        }
    }
}

fn hangs(job: &Mutex<Job>) -> Option<Outcome> {
    let mut job = lock(job);
    let Job { running, inputs, kept } = &mut *job;
    let (target, _, input) = running.take_if(|(_, began, _)| began.elapsed() > INPUT_TIME_MAX)?;
    let why = format!("an input takes more than {INPUT_TIME_MAX:?}");
    let finding = Some(Finding { input, why });
    Some(Outcome { target, inputs: *inputs, kept: *kept, finding })
}

fn work(
    job: &Mutex<Job>,
    targets: &Mutex<VecDeque<(Target, Corpus)>>,
    done: &SyncSender<Outcome>,
    settings: &Settings,
) {
    loop {
        let next = lock(targets).pop_front();
        let Some((target, corpus)) = next else { return };
        let until = Instant::now() + settings.time;
        let more = |_| Instant::now() < until;
        let outcome = search(&target, corpus, settings.seed, more, job);
        if done.send(outcome).is_err() {
            return;
        }
    }
}

/// Searches one target on this thread until `more`, which is told the number of inputs so far, says
/// no.
pub fn search_while(
    target: &Target,
    corpus: Corpus,
    seed: u64,
    more: impl Fn(u64) -> bool,
) -> Outcome {
    findings::listen();
    search(target, corpus, seed, more, &Mutex::default())
}

fn search(
    target: &Target,
    corpus: Corpus,
    seed: u64,
    more: impl Fn(u64) -> bool,
    job: &Mutex<Job>,
) -> Outcome {
    let mut mutator = Mutator::new(target, seed);
    let (mut kept, mut seen) = (Vec::new(), HashSet::new());
    let mut first = corpus.into_iter();
    let (mut inputs, mut finding) = (0, None);
    while finding.is_none() && more(inputs) {
        // The corpus as it is comes first.
        let input = first.next().unwrap_or_else(|| mutator.next(&kept));
        *lock(job) = Job {
            running: Some((target.name, Instant::now(), input.clone())),
            inputs,
            kept: kept.len(),
        };
        inputs += 1;
        match run_one(target, &input) {
            Err(why) => finding = Some(Finding { input, why }),
            Ok(result) => {
                if kept.len() < KEPT_MAX && seen.insert(result) {
                    kept.push(input);
                }
            }
        }
    }
    lock(job).running = None;
    Outcome { target: target.name, inputs, kept: kept.len(), finding }
}

/// Runs one input.
///
/// # Errors
///
/// The message of the first panic.
pub fn run_one(target: &Target, input: &[u8]) -> Result<String, String> {
    findings::heard();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    match (findings::heard(), result) {
        (None, Ok(result)) => Ok(result),
        (Some(why), _) => Err(why),
        (None, Err(_)) => Err("a panic that nobody heard".into()),
    }
}

/// No code that holds these locks can panic; should it ever, the data is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
