//! When each call of an open loop is meant to start, and how to wake up then.
//!
//! The start of call `k` is computed from `k`, never from the call before, so the rate is exact on
//! average whatever the wake-ups do. tokio's timer has a resolution of 1 ms and rounds up: at 1,000
//! calls/s it would add up to a millisecond to each latency that is counted from the intended
//! start. On Linux a timerfd wakes the loop within some tens of microseconds on the runtime's own
//! thread; a thread that sleeps would cost a context switch and a wake-up of the runtime for each
//! call.

use std::{
    io,
    time::{Duration, Instant},
};

/// The intended starts of an open loop.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    rate: f64,
}

impl Schedule {
    /// Starts `rate` calls a second. `rate` is finite and more than zero; the flags see to it.
    pub fn new(rate: f64) -> Self {
        Self { rate }
    }

    /// How long after the beginning call `k` (from 0) starts; `None` when that is beyond what a
    /// clock can hold, which means never.
    pub fn offset(&self, k: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(k as f64 / self.rate).ok()
    }
}

/// Wakes a task at an instant, as exactly as the system allows.
#[cfg(target_os = "linux")]
pub struct Alarm {
    timer: tokio::io::unix::AsyncFd<rustix::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// An alarm of the current runtime.
    ///
    /// # Errors
    ///
    /// The system has no file descriptor left.
    #[expect(
        deprecated,
        reason = "tokio's replacement is unsafe because a foreign AsRawFd may change its \
                  descriptor; an OwnedFd never does"
    )]
    pub fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interest = tokio::io::Interest::READABLE;
        Ok(Self { timer: tokio::io::unix::AsyncFd::with_interest(timer, interest)? })
    }

    /// Returns at `at` or just after it; at once, without yielding, when it has passed.
    ///
    /// # Errors
    ///
    /// The system refuses to set or read the timer.
    pub async fn until(&self, at: Instant) -> io::Result<()> {
        loop {
            let wait = at.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            self.set(wait)?;
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0u8; 8];
            match rustix::io::read(self.timer.get_ref(), &mut expirations) {
                Ok(_) | Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn set(&self, wait: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let spec = Itimerspec { it_interval: once, it_value: value };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

/// Wakes a task at an instant; without timerfd only to the millisecond.
#[cfg(not(target_os = "linux"))]
pub struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// An alarm of the current runtime.
    ///
    /// # Errors
    ///
    /// None on this system.
    pub fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Returns at `at` or up to a millisecond after it.
    ///
    /// # Errors
    ///
    /// None on this system.
    pub async fn until(&self, at: Instant) -> io::Result<()> {
        if at > Instant::now() {
            tokio::time::sleep_until(at.into()).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_exact_on_average_and_does_not_drift() {
        for rate in [0.001, 1.0, 3.0, 7.0, 500.0, 999.9, 1_000_000.0] {
            let schedule = Schedule::new(rate);
            for k in [0, 1, 2, 1_000, 1_000_000, 1_000_000_000] {
                let got = schedule.offset(k).unwrap().as_secs_f64();
                let want = k as f64 / rate;
                assert!((got - want).abs() <= 1e-9 + want * 1e-15, "rate {rate}, call {k}: {got}");
            }
        }
    }

    #[test]
    fn starts_never_go_backwards() {
        let schedule = Schedule::new(3_333.3);
        let offsets: Vec<_> = (0..10_000).map(|k| schedule.offset(k).unwrap()).collect();
        assert!(offsets.is_sorted());
    }

    #[test]
    fn a_start_beyond_the_clock_is_never() {
        assert_eq!(Schedule::new(1e-300).offset(1), None);
        assert_eq!(Schedule::new(1e-300).offset(0), Some(Duration::ZERO));
    }

    #[tokio::test]
    async fn an_alarm_rings_at_its_instant_and_can_be_set_again() {
        let alarm = Alarm::new().unwrap();
        let begin = Instant::now();
        for k in 1..=20u32 {
            let at = begin + Duration::from_micros(700) * k;
            let rung = tokio::time::timeout(Duration::from_secs(10), alarm.until(at)).await;
            rung.expect("rings within its limit").unwrap();
            assert!(Instant::now() >= at, "call {k} started too early");
        }
        alarm.until(begin).await.unwrap();
    }

    #[tokio::test]
    async fn an_alarm_that_was_given_up_does_not_ring_into_the_next() {
        let alarm = Alarm::new().unwrap();
        let soon = Instant::now() + Duration::from_millis(2);
        tokio::select! {
            biased;
            _ = alarm.until(soon) => panic!("not yet"),
            _ = tokio::task::yield_now() => {}
        }
        let later = Instant::now() + Duration::from_millis(20);
        alarm.until(later).await.unwrap();
        assert!(Instant::now() >= later);
    }
}
