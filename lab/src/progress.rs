//! Progress lines on stderr. Results go to stdout, so that `lab run --output json | jq` works while
//! a person still sees what the lab is doing.

use std::time::Instant;

/// Prints lines with the time since the run began.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    began: Instant,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Seconds since the run began.
    pub(crate) fn elapsed_s(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(crate) fn say(&self, who: &str, what: &str) {
        eprintln!("[{:6.2} s] {who}: {what}", self.elapsed_s());
    }
}
