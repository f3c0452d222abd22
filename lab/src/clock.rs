//! The one clock of the lab: seconds since 1970 as a float, because the client's report and events
//! carry the same and all processes run on this machine.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(crate) fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
