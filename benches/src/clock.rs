//! CPU time of this process and what one measured slice gave.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What one candidate did in one slice of time.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Slice {
    /// Calls or messages that ended well.
    pub count: u64,
    /// Calls or messages that did not.
    pub failed: u64,
    /// From the slice's start to the end of its last call, in seconds.
    pub wall_s: f64,
    /// User and system time of the candidate's process, in seconds.
    pub cpu_s: f64,
}

impl Slice {
    /// Calls or messages a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.wall_s
    }

    /// CPU of each call or message, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.count as f64
    }
}

/// Starts to measure this process.
pub struct Clock {
    wall: Instant,
    cpu_s: f64,
}

impl Clock {
    /// Starts now.
    #[expect(clippy::new_without_default, reason = "a default that reads two clocks surprises")]
    pub fn new() -> Self {
        Self { wall: Instant::now(), cpu_s: cpu_s() }
    }

    /// What was done since the start.
    pub fn stop(self, count: u64, failed: u64) -> Slice {
        let wall_s = self.wall.elapsed().as_secs_f64();
        Slice { count, failed, wall_s, cpu_s: cpu_s() - self.cpu_s }
    }
}

/// User and system time of this process, in seconds: what getrusage says, at the resolution of
/// nanoseconds.
fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
