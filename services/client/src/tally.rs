//! Counts samples as they come, in bounded memory, for every report: the client's table and JSON,
//! and the conformance line. Adding a sample is one short lock in the caller.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tonic::{Code, Status};

use crate::{
    histogram::Histogram,
    load::Sample,
    status::{code_name, cut},
};

/// Backends that are told apart; answers of others count under [`OTHERS`].
pub const BACKENDS_MAX: usize = 1_000;
/// The name under which backends beyond [`BACKENDS_MAX`] are counted.
pub const OTHERS: &str = "(others)";
/// Failures that are kept one by one.
pub const FAILURES_MAX: usize = 10_000;
/// The longest message that is kept of a failure, in bytes.
pub const FAILURE_TEXT_LEN_MAX: usize = 500;
/// Different error texts that are counted.
pub const ERRORS_MAX: usize = 12;
/// Where an error text is cut, in bytes.
pub const ERROR_TEXT_LEN_MAX: usize = 200;
/// Slots of a timeline; later samples are counted in [`Tally::slots_omitted`].
pub const SLOTS_MAX: u64 = 100_000;

/// When a run began, on the clock that measures and on the one that people read.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    /// The beginning on the monotonic clock.
    pub begin: Instant,
    unix: Duration,
}

impl Epoch {
    /// The run begins now.
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begin: Instant::now(), unix }
    }

    /// Seconds from the beginning to `at`, negative before it.
    pub fn since_s(&self, at: Instant) -> f64 {
        let after = at.saturating_duration_since(self.begin).as_secs_f64();
        after - self.begin.saturating_duration_since(at).as_secs_f64()
    }

    /// Unix time of `at` in seconds. It advances with the monotonic clock, so that a step of the
    /// wall clock during the run does not reorder events.
    pub fn unix_s(&self, at: Instant) -> f64 {
        self.unix.as_secs_f64() + self.since_s(at)
    }
}

/// The answers of one backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Latencies of its answers; their count is the number of calls.
    pub latency: Histogram,
    /// When its first answer came.
    pub first: Instant,
    /// When its last answer came.
    pub last: Instant,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its intended start.
    pub start: Instant,
    /// When it failed.
    pub end: Instant,
    /// The canonical name of its code.
    pub code: &'static str,
    /// The status message, at most [`FAILURE_TEXT_LEN_MAX`] bytes.
    pub message: String,
}

/// What completed within one slot of the timeline.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Answers of each backend.
    pub by_backend: BTreeMap<String, u64>,
    /// Calls that failed.
    pub fail: u64,
    /// The longest latency, failed calls included.
    pub latency_max: Duration,
}

/// Results of a run so far.
#[derive(Clone, Debug)]
pub struct Tally {
    /// When the run began.
    pub epoch: Epoch,
    /// Answers of each backend.
    pub by_backend: BTreeMap<String, Backend>,
    /// Failed calls by code name.
    pub by_code: BTreeMap<&'static str, u64>,
    /// Failed calls by message, the first [`ERRORS_MAX`] different ones.
    pub errors: BTreeMap<String, u64>,
    /// Latencies of all answers; their count is the number of calls that succeeded.
    pub latency: Histogram,
    /// How long failed calls took; their count leaves out those given up.
    pub fail_latency: Histogram,
    /// Failed calls, those given up included.
    pub fail: u64,
    /// When the first and the last call failed.
    pub fail_first_last: Option<(Instant, Instant)>,
    /// When the first answer came.
    pub ok_first: Option<Instant>,
    /// The first [`FAILURES_MAX`] failures.
    pub failures: Vec<Failure>,
    /// Failures that are not among [`Tally::failures`].
    pub failures_omitted: u64,
    /// Most answers in a row from one backend, by completion.
    pub longest_run: u64,
    /// The timeline by slot number; empty when no slot length is set.
    pub slots: BTreeMap<u64, Slot>,
    /// Samples that came after the last slot.
    pub slots_omitted: u64,
    slot_len: Option<Duration>,
    run: (String, u64),
}

impl Tally {
    /// An empty tally; `slot_len` (more than zero) turns the timeline on.
    pub fn new(epoch: Epoch, slot_len: Option<Duration>) -> Self {
        Self {
            epoch,
            by_backend: BTreeMap::new(),
            by_code: BTreeMap::new(),
            errors: BTreeMap::new(),
            latency: Histogram::default(),
            fail_latency: Histogram::default(),
            fail: 0,
            fail_first_last: None,
            ok_first: None,
            failures: Vec::new(),
            failures_omitted: 0,
            longest_run: 0,
            slots: BTreeMap::new(),
            slots_omitted: 0,
            slot_len,
            run: (String::new(), 0),
        }
    }

    /// Calls that succeeded.
    pub fn ok(&self) -> u64 {
        self.latency.count()
    }

    /// Calls that ended or were given up.
    pub fn calls(&self) -> u64 {
        self.ok() + self.fail
    }

    /// Length of a slot; `None` when the timeline is off.
    pub fn slot_len(&self) -> Option<Duration> {
        self.slot_len
    }

    /// The start of slot `k` as time since the beginning.
    pub fn slot_start(&self, k: u64) -> Duration {
        let start_s = self.slot_len.unwrap_or_default().as_secs_f64() * k as f64;
        Duration::try_from_secs_f64(start_s).unwrap_or(Duration::MAX)
    }

    /// Counts a call that ended. Its result names the backend that answered, or says why it failed.
    /// Returns the backend's name when this is its first answer.
    pub fn add(&mut self, sample: Sample<Result<String, Status>>) -> Option<String> {
        let Sample { intended, done, result } = sample;
        let latency = done.saturating_duration_since(intended);
        let result = result.map(|backend| self.counted_name(backend));
        if let Some(slot) = self.slot(done) {
            slot.latency_max = slot.latency_max.max(latency);
            match &result {
                Ok(backend) => *slot.by_backend.entry(backend.clone()).or_default() += 1,
                Err(_) => slot.fail += 1,
            }
        }
        match result {
            Ok(backend) => self.answered(backend, latency, done),
            Err(status) => {
                self.failed(&status, latency, intended, done);
                None
            }
        }
    }

    /// The name under which a backend's answers are counted.
    fn counted_name(&self, backend: String) -> String {
        if self.by_backend.len() < BACKENDS_MAX || self.by_backend.contains_key(&backend) {
            backend
        } else {
            OTHERS.into()
        }
    }

    /// Counts calls that were given up in flight when the run was ended.
    fn abandon(&mut self, calls: u64) {
        if calls > 0 {
            self.fail += calls;
            self.failures_omitted += calls;
            *self.by_code.entry(code_name(Code::Cancelled)).or_default() += calls;
        }
    }

    fn slot(&mut self, at: Instant) -> Option<&mut Slot> {
        let slot_len = self.slot_len?;
        let since = at.saturating_duration_since(self.epoch.begin);
        let k = u64::try_from(since.as_nanos() / slot_len.as_nanos()).unwrap_or(u64::MAX);
        if k >= SLOTS_MAX {
            self.slots_omitted += 1;
            return None;
        }
        Some(self.slots.entry(k).or_default())
    }

    fn answered(&mut self, backend: String, latency: Duration, done: Instant) -> Option<String> {
        self.ok_first.get_or_insert(done);
        self.latency.record(latency);
        if self.run.0 == backend {
            self.run.1 += 1;
        } else {
            self.run.0.clone_from(&backend);
            self.run.1 = 1;
        }
        self.longest_run = self.longest_run.max(self.run.1);
        if let Some(known) = self.by_backend.get_mut(&backend) {
            known.latency.record(latency);
            known.last = done;
            return None;
        }
        let mut new = Backend { latency: Histogram::default(), first: done, last: done };
        new.latency.record(latency);
        self.by_backend.insert(backend.clone(), new);
        Some(backend)
    }

    fn failed(&mut self, status: &Status, latency: Duration, start: Instant, end: Instant) {
        let code = code_name(status.code());
        self.fail += 1;
        self.fail_latency.record(latency);
        *self.by_code.entry(code).or_default() += 1;
        self.fail_first_last = Some((self.fail_first_last.map_or(end, |(first, _)| first), end));
        let text = cut(status.message(), ERROR_TEXT_LEN_MAX);
        if let Some(n) = self.errors.get_mut(text) {
            *n += 1;
        } else if self.errors.len() < ERRORS_MAX {
            self.errors.insert(text.into(), 1);
        }
        if self.failures.len() < FAILURES_MAX {
            let message = cut(status.message(), FAILURE_TEXT_LEN_MAX).into();
            self.failures.push(Failure { start, end, code, message });
        } else {
            self.failures_omitted += 1;
        }
    }
}

/// A tally that the tasks of a run share, until it is closed.
#[derive(Clone)]
pub struct SharedTally {
    open: Arc<Mutex<(Tally, bool)>>,
}

impl SharedTally {
    /// Shares an empty tally; see [`Tally::new`].
    pub fn new(epoch: Epoch, slot_len: Option<Duration>) -> Self {
        Self { open: Arc::new(Mutex::new((Tally::new(epoch, slot_len), true))) }
    }

    /// Counts a sample as [`Tally::add`] does; one that comes after [`SharedTally::close`] is
    /// counted there already.
    pub fn add(&self, sample: Sample<Result<String, Status>>) -> Option<String> {
        let mut guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (tally, open) = &mut *guard;
        if *open { tally.add(sample) } else { None }
    }

    /// The sums up to now.
    pub fn so_far(&self) -> SoFar {
        let guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = &guard.0;
        let calls = |(name, backend): (&String, &Backend)| (name.clone(), backend.latency.count());
        SoFar {
            by_backend: tally.by_backend.iter().map(calls).collect(),
            fail: tally.fail,
            latency: tally.latency.clone(),
        }
    }

    /// Ends the count and takes it. Of the `started` calls, those that have not ended count as
    /// given up.
    pub fn close(&self, started: u64) -> Tally {
        let mut guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (tally, open) = &mut *guard;
        *open = false;
        let empty = Tally::new(tally.epoch, None);
        let mut tally = std::mem::replace(tally, empty);
        tally.abandon(started.saturating_sub(tally.calls()));
        tally
    }
}

/// Sums while a run goes on.
#[derive(Clone, Debug, Default)]
pub struct SoFar {
    /// Answers of each backend.
    pub by_backend: BTreeMap<String, u64>,
    /// Calls that failed.
    pub fail: u64,
    /// Latencies of all answers.
    pub latency: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn tally(slot_len: Option<Duration>) -> Tally {
        Tally::new(Epoch::now(), slot_len)
    }

    /// A sample that started `start` ms after the beginning and took 1 ms.
    fn sample(
        tally: &Tally,
        start: u32,
        result: Result<&str, Status>,
    ) -> Sample<Result<String, Status>> {
        let intended = tally.epoch.begin + MS * start;
        Sample { intended, done: intended + MS, result: result.map(str::to_owned) }
    }

    #[test]
    fn counts_answers_and_runs_per_backend() {
        let mut tally = tally(None);
        let firsts: Vec<bool> = ["a", "a", "b", "a", "a", "a", "b"]
            .iter()
            .zip(0..)
            .map(|(backend, start)| tally.add(sample(&tally, start, Ok(backend))).is_some())
            .collect();
        assert_eq!(firsts, [true, false, true, false, false, false, false]);
        assert_eq!((tally.ok(), tally.calls(), tally.longest_run), (7, 7, 3));
        let a = &tally.by_backend["a"];
        assert_eq!(a.latency.count(), 5);
        assert_eq!(a.last - a.first, MS * 5);
        assert_eq!(tally.ok_first, Some(tally.epoch.begin + MS));
        assert!(tally.slots.is_empty());
    }

    #[test]
    fn keeps_failures_with_code_text_and_times() {
        let mut tally = tally(None);
        tally.add(sample(&tally, 3, Err(Status::unavailable("gone"))));
        tally.add(sample(&tally, 5, Err(Status::unavailable("gone"))));
        tally.add(sample(&tally, 9, Err(Status::deadline_exceeded("late"))));
        assert_eq!(tally.by_code, BTreeMap::from([("UNAVAILABLE", 2), ("DEADLINE_EXCEEDED", 1)]));
        assert_eq!(tally.errors, BTreeMap::from([("gone".into(), 2), ("late".into(), 1)]));
        let (first, last) = tally.fail_first_last.unwrap();
        assert_eq!((tally.epoch.since_s(first), tally.epoch.since_s(last)), (0.004, 0.01));
        assert_eq!(tally.failures[2].message, "late");
        assert_eq!((tally.ok(), tally.fail, tally.ok_first), (0, 3, None));
    }

    #[test]
    fn keeps_within_its_limits() {
        let mut tally = tally(Some(MS));
        for k in 0..FAILURES_MAX as u32 + 5 {
            let text = format!("{}{k}", "é".repeat(150));
            tally.add(sample(&tally, k, Err(Status::unknown(text))));
        }
        assert_eq!((tally.failures.len(), tally.failures_omitted), (FAILURES_MAX, 5));
        assert!(tally.errors.len() <= ERRORS_MAX);
        assert!(tally.errors.keys().all(|text| text.len() <= ERROR_TEXT_LEN_MAX));
        for k in 0..BACKENDS_MAX + 5 {
            tally.add(sample(&tally, 0, Ok(&format!("backend {k}"))));
        }
        assert_eq!(tally.by_backend.len(), BACKENDS_MAX + 1);
        assert_eq!(tally.by_backend[OTHERS].latency.count(), 5);
        tally.add(sample(&tally, SLOTS_MAX as u32, Ok("late")));
        assert_eq!(tally.slots_omitted, 1);
    }

    #[test]
    fn a_timeline_has_the_slot_in_which_a_call_completed() {
        let mut tally = tally(Some(MS * 10));
        tally.add(sample(&tally, 0, Ok("a")));
        tally.add(sample(&tally, 9, Ok("b")));
        tally.add(sample(&tally, 12, Err(Status::unavailable("gone"))));
        assert_eq!(tally.slots[&0].by_backend, BTreeMap::from([("a".into(), 1)]));
        assert_eq!(tally.slots[&1].by_backend, BTreeMap::from([("b".into(), 1)]));
        assert_eq!((tally.slots[&1].fail, tally.slots[&1].latency_max), (1, MS));
        assert_eq!(tally.slot_start(3), MS * 30);
    }

    #[test]
    fn calls_given_up_are_failures_too() {
        let mut tally = tally(None);
        tally.abandon(0);
        assert!(tally.by_code.is_empty());
        tally.abandon(3);
        assert_eq!((tally.calls(), tally.fail, tally.by_code["CANCELLED"]), (3, 3, 3));
        assert_eq!(tally.failures_omitted, 3);
    }

    #[test]
    fn a_closed_tally_counts_each_started_call_once() {
        let epoch = Epoch::now();
        let shared = SharedTally::new(epoch, None);
        let sample = || Sample { intended: epoch.begin, done: epoch.begin, result: Ok("a".into()) };
        assert_eq!(shared.add(sample()).as_deref(), Some("a"));
        assert_eq!(shared.add(sample()), None);
        assert_eq!(shared.so_far().by_backend["a"], 2);
        let tally = shared.close(5);
        assert_eq!((tally.ok(), tally.fail, tally.calls()), (2, 3, 5));
        assert_eq!(shared.add(sample()), None, "a late sample is not counted again");
        assert_eq!(shared.close(0).calls(), 0);
    }
}
