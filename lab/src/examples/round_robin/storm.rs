//! A storm of GOAWAYs: connections end so soon after they began that at any moment one of them is
//! draining, and calls are in flight on it. What an age of minutes does once in a while, 15 times a
//! second.

use std::sync::Arc;

use super::age::{self, Ages};
use crate::{error::LabError, report::PhaseReport, run::Run};

const STORM: Ages = Ages {
    phase: "storm",
    // Calls of 5 ms: some are in flight on each connection that ends.
    env: &[("GRPC_MAX_CONNECTION_AGE", "200ms"), ("GREETER_DELAY", "5ms")],
    flags: &["--count", "10500", "--rate", "1000", "--warmup", "5s"],
    // 10.5 s hold 47 ages of 200 ms + 10 %; half of them on a machine that is busy.
    renewals_min: 24,
    none_failed: [
        "round-robin.storm.none_failed",
        "GRPC_MAX_CONNECTION_AGE_GRACE=1ms: a grace below a call of 5 ms",
    ],
    aged: ["round-robin.storm.connections_aged", "GRPC_MAX_CONNECTION_AGE=5s: no storm"],
};

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    age::watch(run, name, &STORM).await
}
