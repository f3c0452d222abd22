//! The load generator: drives any asynchronous call in an open or a closed loop. It knows nothing
//! of gRPC or of results, so that the greeter's client and the conformance client share it.
//!
//! The open loop starts calls by the clock whether or not earlier ones have returned, and each
//! sample keeps its *intended* start: a generator that waits for a slow answer, or that counts from
//! when it got round to sending, hides exactly the stalls that it should show (coordinated
//! omission). What it can't send because too many calls are in flight is counted as shed, never
//! silently postponed.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    pacing::{Alarm, Schedule},
    stop::Stop,
};

/// The most calls that can be in flight, and the most workers.
pub const IN_FLIGHT_MAX: u32 = 1_000_000;
/// The highest rate of the open loop in calls per second.
pub const RATE_MAX: f64 = 1_000_000.0;
/// Starts in a row, when the loop is late, before other tasks get their turn.
const BURST_MAX: u64 = 32;

/// How calls are started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// By the clock.
    Open {
        /// Calls per second, more than 0 and at most [`RATE_MAX`].
        rate: f64,
        /// Calls in flight beyond which a start is shed, 1 to [`IN_FLIGHT_MAX`].
        in_flight_max: u32,
    },
    /// By workers, each of which has one call in flight.
    Closed {
        /// 1 to [`IN_FLIGHT_MAX`].
        workers: u32,
        /// Pause of a worker between its calls; zero for none.
        pause: Duration,
    },
}

/// What to run and until when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// How calls are started.
    pub mode: Mode,
    /// Calls to start; `None` for no limit. Shed starts count in the open loop.
    pub count: Option<u64>,
    /// No call starts after this time; those in flight finish.
    pub duration: Option<Duration>,
}

/// One call that ended.
#[derive(Debug)]
pub struct Sample<T> {
    /// When it was meant to start.
    pub intended: Instant,
    /// When its result was there.
    pub done: Instant,
    /// Its result.
    pub result: T,
}

/// What the loop itself has to say; results went to the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that were started. Those without a sample were in flight at [`Stop::cut`].
    pub started: u64,
    /// Starts that were due while too many calls were in flight.
    pub shed: u64,
    /// From `begin` to the last result.
    pub wall: Duration,
}

/// Runs a plan. `call` gets the call's number from 0 and makes one call; `sink` gets each sample as
/// it completes, on the task that made the call. Returns when every started call has ended, or
/// after [`Stop::cut`]; the sink may still get samples then and should ignore them.
///
/// # Errors
///
/// The alarm of the open loop can't be set up.
pub async fn run<T, C, F, S>(
    plan: &Plan,
    begin: Instant,
    call: C,
    sink: S,
    stop: &Stop,
) -> io::Result<Outcome>
where
    T: Send + 'static,
    C: Fn(u64) -> F + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
    S: Fn(Sample<T>) + Send + Sync + 'static,
{
    let target = Arc::new(Target { call, sink, started: AtomicU64::new(0) });
    let limit = match plan.mode {
        Mode::Open { in_flight_max, .. } => in_flight_max,
        Mode::Closed { workers, .. } => workers,
    };
    let slots = Arc::new(Semaphore::new(limit as usize));
    let shed = match plan.mode {
        Mode::Open { rate, .. } => open_loop(plan, rate, begin, &target, &slots, stop).await?,
        Mode::Closed { pause, .. } => {
            closed_loop(plan, pause, begin, &target, &slots, stop).await;
            0
        }
    };
    tokio::select! {
        _ = slots.acquire_many(limit) => {}
        _ = stop.cut_off() => {}
    }
    Ok(Outcome { started: target.started.load(Ordering::Relaxed), shed, wall: begin.elapsed() })
}

/// The call and where its samples go, shared by the tasks.
struct Target<C, S> {
    call: C,
    sink: S,
    started: AtomicU64,
}

impl<C, S> Target<C, S> {
    async fn call<T, F>(&self, k: u64, intended: Instant)
    where
        C: Fn(u64) -> F,
        F: Future<Output = T>,
        S: Fn(Sample<T>),
    {
        let result = (self.call)(k).await;
        (self.sink)(Sample { intended, done: Instant::now(), result });
    }
}

/// Starts calls by the clock; returns how many starts were shed.
async fn open_loop<T, C, F, S>(
    plan: &Plan,
    rate: f64,
    begin: Instant,
    target: &Arc<Target<C, S>>,
    slots: &Arc<Semaphore>,
    stop: &Stop,
) -> io::Result<u64>
where
    T: Send + 'static,
    C: Fn(u64) -> F + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
    S: Fn(Sample<T>) + Send + Sync + 'static,
{
    let schedule = Schedule::new(rate);
    let alarm = Alarm::new()?;
    let (mut shed, mut burst) = (0, 0);
    for k in 0..plan.count.unwrap_or(u64::MAX) {
        let offset = schedule.offset(k).filter(|at| plan.duration.is_none_or(|end| *at < end));
        let Some(intended) = offset.and_then(|offset| begin.checked_add(offset)) else { break };
        if intended > Instant::now() {
            burst = 0;
            tokio::select! {
                rung = alarm.until(intended) => rung?,
                _ = stop.draining() => {}
            }
        } else {
            burst += 1;
            if burst % BURST_MAX == 0 {
                tokio::task::yield_now().await;
            }
        }
        if stop.is_draining() {
            break;
        }
        match Arc::clone(slots).try_acquire_owned() {
            Ok(slot) => spawn_call(target, k, intended, slot),
            Err(_) => shed += 1,
        }
    }
    wait_for_end(plan, begin, stop).await;
    Ok(shed)
}

/// Sleeps until `wake`, or for good without one; returns early when the run is to end.
async fn sleep_until(wake: Option<Instant>, stop: &Stop) {
    let sleep = async {
        match wake {
            Some(wake) => tokio::time::sleep_until(wake.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = sleep => {}
        _ = stop.draining() => {}
    }
}

/// A run of fixed duration lasts that long even when the next start would be after its end: a rate
/// of 1 per second for 1.5 s is a run of 1.5 s.
async fn wait_for_end(plan: &Plan, begin: Instant, stop: &Stop) {
    if let (Some(duration), None) = (plan.duration, plan.count) {
        sleep_until(begin.checked_add(duration), stop).await;
    }
}

fn spawn_call<T, C, F, S>(
    target: &Arc<Target<C, S>>,
    k: u64,
    intended: Instant,
    slot: OwnedSemaphorePermit,
) where
    T: Send + 'static,
    C: Fn(u64) -> F + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
    S: Fn(Sample<T>) + Send + Sync + 'static,
{
    let target = Arc::clone(target);
    target.started.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        target.call(k, intended).await;
        drop(slot);
    });
}

/// Starts the workers; each holds a slot while it lives.
async fn closed_loop<T, C, F, S>(
    plan: &Plan,
    pause: Duration,
    begin: Instant,
    target: &Arc<Target<C, S>>,
    slots: &Arc<Semaphore>,
    stop: &Stop,
) where
    T: Send + 'static,
    C: Fn(u64) -> F + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
    S: Fn(Sample<T>) + Send + Sync + 'static,
{
    let end = plan.duration.and_then(|duration| begin.checked_add(duration));
    let count = plan.count.unwrap_or(u64::MAX);
    let next = Arc::new(AtomicU64::new(0));
    while let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        let (target, next, stop) = (Arc::clone(target), Arc::clone(&next), stop.clone());
        tokio::spawn(async move {
            while !stop.is_draining() && end.is_none_or(|end| Instant::now() < end) {
                let k = next.fetch_add(1, Ordering::Relaxed);
                if k >= count {
                    break;
                }
                target.started.fetch_add(1, Ordering::Relaxed);
                target.call(k, Instant::now()).await;
                if !pause.is_zero() {
                    let wake = Instant::now().checked_add(pause).into_iter().chain(end).min();
                    sleep_until(wake, &stop).await;
                }
            }
            drop(slot);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn plan(mode: Mode, count: Option<u64>, duration: Option<Duration>) -> Plan {
        Plan { mode, count, duration }
    }

    /// Runs with a call that answers its number after `wait`; the samples in order of completion.
    async fn collect(
        plan: Plan,
        stop: &Stop,
        wait: Duration,
    ) -> (Outcome, Instant, Vec<Sample<u64>>) {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let begin = Instant::now();
        let sink = {
            let samples = Arc::clone(&samples);
            move |sample| samples.lock().unwrap().push(sample)
        };
        let call = move |k| async move {
            if !wait.is_zero() {
                // A call that takes its time.
                tokio::time::sleep(wait).await;
            }
            k
        };
        let run = run(&plan, begin, call, sink, stop);
        let outcome =
            tokio::time::timeout(LIMIT, run).await.expect("ends within its limit").unwrap();
        let samples = std::mem::take(&mut *samples.lock().unwrap());
        (outcome, begin, samples)
    }

    #[tokio::test]
    async fn the_open_loop_starts_each_call_at_its_intended_time() {
        let mode = Mode::Open { rate: 2_000.0, in_flight_max: 100 };
        let (outcome, begin, mut samples) =
            collect(plan(mode, Some(100), None), &Stop::default(), Duration::ZERO).await;
        assert_eq!((outcome.shed, outcome.started, samples.len()), (0, 100, 100));
        samples.sort_by_key(|sample| sample.result);
        for sample in &samples {
            let want = begin + Schedule::new(2_000.0).offset(sample.result).unwrap();
            assert_eq!(sample.intended, want, "call {}", sample.result);
            assert!(sample.done >= sample.intended, "no call starts early");
        }
        assert!(outcome.wall >= Duration::from_micros(99 * 500));
    }

    #[tokio::test]
    async fn latency_counts_the_delay_of_a_stalled_generator() {
        let mode = Mode::Open { rate: 1_000.0, in_flight_max: 100 };
        let samples = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let samples = Arc::clone(&samples);
            move |sample: Sample<u64>| {
                // Holds the only thread once, as a stall of the whole process would.
                let stall = Duration::from_millis(30);
                while sample.result == 0 && sample.done.elapsed() < stall {
                    std::hint::spin_loop();
                }
                samples.lock().unwrap().push(sample);
            }
        };
        let (plan, stop) = (plan(mode, Some(30), None), Stop::default());
        let run = run(&plan, Instant::now(), |k| async move { k }, sink, &stop);
        tokio::time::timeout(LIMIT, run).await.expect("ends within its limit").unwrap();
        let samples = samples.lock().unwrap();
        let of_call = |k| samples.iter().find(|sample| sample.result == k).unwrap();
        let late = of_call(5);
        assert!(late.done - late.intended >= Duration::from_millis(20), "{:?}", late);
    }

    #[tokio::test]
    async fn what_exceeds_the_limit_in_flight_is_shed_and_counted() {
        let mode = Mode::Open { rate: 10_000.0, in_flight_max: 3 };
        let (outcome, _, samples) =
            collect(plan(mode, Some(50), None), &Stop::default(), Duration::from_millis(200)).await;
        assert_eq!((outcome.shed, samples.len()), (47, 3));
    }

    #[tokio::test]
    async fn the_open_loop_ends_with_its_duration() {
        let mode = Mode::Open { rate: 1_000.0, in_flight_max: 100 };
        let duration = Duration::from_millis(50);
        let (outcome, _, samples) =
            collect(plan(mode, None, Some(duration)), &Stop::default(), Duration::ZERO).await;
        assert_eq!(samples.len(), 50);
        assert!(outcome.wall >= duration);
    }

    #[tokio::test]
    async fn a_slow_rate_still_fills_the_duration() {
        let mode = Mode::Open { rate: 0.001, in_flight_max: 100 };
        let duration = Duration::from_millis(30);
        let (outcome, _, samples) =
            collect(plan(mode, None, Some(duration)), &Stop::default(), Duration::ZERO).await;
        assert_eq!(samples.len(), 1);
        assert!(outcome.wall >= duration);
    }

    #[tokio::test]
    async fn the_closed_loop_keeps_one_call_per_worker_and_counts_exactly() {
        let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let done = Arc::new(AtomicU64::new(0));
        let call = {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            move |_| {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    now.fetch_sub(1, Ordering::SeqCst);
                }
            }
        };
        let sink = {
            let done = Arc::clone(&done);
            move |_| {
                done.fetch_add(1, Ordering::SeqCst);
            }
        };
        let plan = plan(Mode::Closed { workers: 4, pause: Duration::ZERO }, Some(101), None);
        let stop = Stop::default();
        let run = run(&plan, Instant::now(), call, sink, &stop);
        tokio::time::timeout(LIMIT, run).await.expect("ends within its limit").unwrap();
        assert_eq!((done.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (101, 4));
    }

    #[tokio::test]
    async fn draining_lets_calls_in_flight_finish() {
        for mode in [
            Mode::Open { rate: 1_000.0, in_flight_max: 10 },
            Mode::Closed { workers: 10, pause: Duration::from_secs(60) },
        ] {
            let stop = Stop::default();
            let stopper = stop.clone();
            let calls = Arc::new(AtomicU64::new(0));
            let done = Arc::new(AtomicU64::new(0));
            let call = {
                let calls = Arc::clone(&calls);
                move |_| {
                    if calls.fetch_add(1, Ordering::SeqCst) == 4 {
                        stopper.drain();
                    }
                    // A call that takes its time.
                    tokio::time::sleep(Duration::from_millis(20))
                }
            };
            let sink = {
                let done = Arc::clone(&done);
                move |_| {
                    done.fetch_add(1, Ordering::SeqCst);
                }
            };
            let plan = plan(mode, None, None);
            let run = run(&plan, Instant::now(), call, sink, &stop);
            let outcome =
                tokio::time::timeout(LIMIT, run).await.expect("ends within its limit").unwrap();
            assert_eq!(done.load(Ordering::SeqCst), outcome.started, "{mode:?}");
            assert!(outcome.started >= 5, "{mode:?}");
        }
    }

    #[tokio::test]
    async fn cutting_gives_up_calls_that_never_end() {
        for mode in [
            Mode::Open { rate: 1_000.0, in_flight_max: 5 },
            Mode::Closed { workers: 5, pause: Duration::ZERO },
        ] {
            let stop = Stop::default();
            let stopper = stop.clone();
            let calls = Arc::new(AtomicU64::new(0));
            let call = move |_| {
                if calls.fetch_add(1, Ordering::SeqCst) == 4 {
                    stopper.cut();
                }
                std::future::pending::<()>()
            };
            let plan = plan(mode, None, None);
            let run = run(&plan, Instant::now(), call, |_| {}, &stop);
            let outcome =
                tokio::time::timeout(LIMIT, run).await.expect("ends within its limit").unwrap();
            assert_eq!(outcome.started, 5, "{mode:?}");
        }
    }
}
