//! A storm of GOAWAYs: connections end so soon after they began that at any moment one of them is
//! draining, and calls are in flight on it. What an age of minutes does once in a while, 15 times a
//! second.

use std::{sync::Arc, time::Duration};

use super::{
    age::{renewals, sum},
    phase,
};
use crate::{
    checks::{aged, none_failed},
    error::LabError,
    report::{Distribution, PhaseReport},
    run::Run,
    stage::Stage,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const CALLS_MIN: u64 = 10_000;
/// Calls of 5 ms: some are in flight on each connection that ends.
const ENV: [(&str, &str); 2] = [("GRPC_MAX_CONNECTION_AGE", "200ms"), ("GREETER_DELAY", "5ms")];
const FLAGS: [&str; 6] = ["--count", "10500", "--rate", "1000", "--warmup", "5s"];
/// 10.5 s hold 47 ages of 200 ms + 10 %; half of them on a machine that is busy.
const RENEWALS_MIN: usize = 24;

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let phase = phase("storm");
    let mut stage = Stage::open(run, &name, &ENV).await?;
    stage.scale_up(&BACKENDS).await?;
    let client = stage.client(&FLAGS).await?;
    let finished = client.wait(Duration::from_secs(60)).await?;
    stage.fleet.all_alive()?;
    let report = &finished.report;
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &ENV);
    found.distributions.push(Distribution::whole("all calls", report));
    let renewals = renewals(stage.fleet.addresses(&BACKENDS), &finished.events);
    found.figures.insert("connections_renewed", sum(&renewals));
    found.checks = vec![
        none_failed(
            "round-robin.storm.none_failed",
            report,
            CALLS_MIN,
            "GRPC_MAX_CONNECTION_AGE_GRACE=1ms: a grace below a call of 5 ms",
        ),
        aged(
            "round-robin.storm.connections_aged",
            &renewals,
            RENEWALS_MIN,
            "GRPC_MAX_CONNECTION_AGE=5s: no storm",
        ),
    ];
    Ok(found)
}
