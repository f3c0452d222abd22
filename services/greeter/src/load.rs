//! The greeter's load, measured and not configured: calls and failures a second, CPU of the
//! process, and how much of the capacity is at work. A capacity makes the greeter a queue with
//! servers, as a backend with a pool of threads is: beyond it calls wait in line, and a backend at
//! half speed gets slow the way a real one does.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use evenkeel_server::orca::ServerMetrics;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    time::{MissedTickBehavior, interval},
};
use tonic::Status;

/// How often the load is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// A report is of the last ten intervals.
const SAMPLES_MAX: usize = 11;
/// Calls that may wait in line beyond the capacity.
const WAITING_MAX: usize = 10_000;

/// What the calls tell of themselves.
pub(crate) struct Load {
    capacity: Option<Capacity>,
    counts: Mutex<Counts>,
}

struct Capacity {
    calls: usize,
    free: Arc<Semaphore>,
    /// Places in line and at work.
    places: Arc<Semaphore>,
}

/// Sums since the start.
#[derive(Debug, Clone, Copy)]
struct Counts {
    finished: u64,
    failed: u64,
    working: u32,
    /// Time that calls were worked on, those now at work until `at`.
    busy: Duration,
    at: Instant,
}

impl Counts {
    /// Brings `busy` up to now, before `working` changes.
    fn advance(&mut self, now: Instant) {
        self.busy += now.saturating_duration_since(self.at) * self.working;
        self.at = now;
    }
}

/// A call at work; dropped without [`Work::done`] it failed.
pub(crate) struct Work {
    load: Arc<Load>,
    ok: bool,
    _places: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Load {
    /// `capacity`: calls that are worked on at once; `None`: as many as come.
    pub(crate) fn new(capacity: Option<usize>) -> Arc<Self> {
        let capacity = capacity.map(|calls| Capacity {
            calls,
            free: Arc::new(Semaphore::new(calls)),
            places: Arc::new(Semaphore::new(calls + WAITING_MAX)),
        });
        let at = Instant::now();
        let counts = Counts { finished: 0, failed: 0, working: 0, busy: Duration::ZERO, at };
        Arc::new(Self { capacity, counts: Mutex::new(counts) })
    }

    /// Waits for its turn. A call that is dropped while it waits was never at work, and does not
    /// count.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<Work, Status> {
        let places = match &self.capacity {
            None => None,
            Some(capacity) => {
                let place = Arc::clone(&capacity.places).try_acquire_owned();
                let place = place.map_err(|error| full(&error))?;
                let free = Arc::clone(&capacity.free).acquire_owned().await;
                Some((free.expect("the semaphore is never closed"), place))
            }
        };
        let mut counts = self.counts();
        counts.advance(Instant::now());
        counts.working += 1;
        drop(counts);
        Ok(Work { load: Arc::clone(self), ok: false, _places: places })
    }

    /// Records into `metrics` until it is dropped.
    pub(crate) async fn report_to(self: Arc<Self>, metrics: ServerMetrics) {
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cpus = thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64);
        let mut window = VecDeque::with_capacity(SAMPLES_MAX);
        loop {
            ticks.tick().await;
            if window.len() == SAMPLES_MAX {
                window.pop_front();
            }
            window.push_back(self.sample());
            let (Some(old), Some(new)) = (window.front(), window.back()) else { continue };
            let Some(rates) = Rates::between(old, new) else { continue };
            metrics.set_qps(rates.qps);
            metrics.set_eps(rates.eps);
            metrics.set_cpu_utilization(rates.cpus / cpus);
            let share = |capacity: &Capacity| rates.working / capacity.calls as f64;
            metrics.set_application_utilization(self.capacity.as_ref().map(share));
        }
    }

    fn sample(&self) -> Sample {
        let mut counts = self.counts();
        counts.advance(Instant::now());
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Sample { counts: *counts, cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9 }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Whole at any time.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(_error: &TryAcquireError) -> Status {
    let text = format!("{WAITING_MAX} calls wait in line already; GREETER_CAPACITY is set");
    Status::resource_exhausted(text)
}

impl Work {
    /// The call ended well.
    pub(crate) fn done(mut self) {
        self.ok = true;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut counts = self.load.counts();
        counts.advance(Instant::now());
        counts.working -= 1;
        counts.finished += 1;
        counts.failed += u64::from(!self.ok);
    }
}

/// The sums at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    counts: Counts,
    cpu_s: f64,
}

/// What happened between two samples.
#[derive(Debug, PartialEq)]
struct Rates {
    /// Finished calls a second.
    qps: f64,
    /// Failed ones of them.
    eps: f64,
    /// CPUs in use, on average.
    cpus: f64,
    /// Calls at work, on average.
    working: f64,
}

impl Rates {
    /// `None` when no time lies between.
    fn between(old: &Sample, new: &Sample) -> Option<Self> {
        let span_s = new.counts.at.saturating_duration_since(old.counts.at).as_secs_f64();
        if span_s <= 0.0 {
            return None;
        }
        let per_second = |old: u64, new: u64| new.saturating_sub(old) as f64 / span_s;
        Some(Self {
            qps: per_second(old.counts.finished, new.counts.finished),
            eps: per_second(old.counts.failed, new.counts.failed),
            cpus: (new.cpu_s - old.cpu_s).max(0.0) / span_s,
            working: new.counts.busy.saturating_sub(old.counts.busy).as_secs_f64() / span_s,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_happened_between_two_samples() {
        let at = Instant::now();
        let counts = Counts { finished: 10, failed: 1, working: 3, busy: Duration::ZERO, at };
        let old = Sample { counts, cpu_s: 4.0 };
        let mut counts = counts;
        counts.advance(at + Duration::from_secs(1));
        counts.working = 1;
        counts.advance(at + Duration::from_secs(2));
        (counts.finished, counts.failed) = (30, 6);
        let new = Sample { counts, cpu_s: 5.0 };
        let expected = Rates { qps: 10.0, eps: 2.5, cpus: 0.5, working: 2.0 };
        assert_eq!(Rates::between(&old, &new), Some(expected));
        assert_eq!(Rates::between(&new, &new), None);
    }

    #[tokio::test]
    async fn beyond_the_capacity_calls_wait_in_line() {
        let load = Load::new(Some(2));
        let first = load.begin().await.expect("a place");
        let _second = load.begin().await.expect("a place");
        let mut third = Box::pin(load.begin());
        assert!(polled(third.as_mut()).is_none(), "two are at work");
        let counts = || *load.counts();
        assert_eq!(counts().working, 2);
        first.done();
        let third = polled(third.as_mut()).expect("a place is free").expect("a place");
        assert_eq!((counts().working, counts().finished), (2, 1));
        drop(third);
        assert_eq!((counts().finished, counts().failed), (2, 1));
    }

    #[tokio::test]
    async fn the_line_has_an_end() {
        let load = Load::new(Some(1));
        let _working = load.begin().await.expect("a place");
        let mut line = Vec::new();
        for _ in 0..WAITING_MAX {
            let mut waiting = Box::pin(load.begin());
            assert!(polled(waiting.as_mut()).is_none());
            line.push(waiting);
        }
        let refused = load.begin().await.err().expect("the line is full");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }

    /// One poll.
    fn polled<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
