//! Connections end after their age, which is what others need to see new pods. It costs nothing.

use std::{sync::Arc, time::Duration};

use super::phase;
use crate::{
    checks::{aged, none_failed},
    client::{Event, is_ready},
    error::LabError,
    report::{Distribution, PhaseReport},
    run::Run,
    stage::Stage,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const CALLS_MIN: u64 = 10_000;
const ENV: [(&str, &str); 1] = [("GRPC_MAX_CONNECTION_AGE", "5s")];
const FLAGS: [&str; 6] = ["--count", "10500", "--rate", "700", "--warmup", "5s"];
/// 15 s hold two ages of 5 s ± 10 % for sure.
const RENEWALS_MIN: usize = 2;

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let phase = phase("age");
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
            "round-robin.age.none_failed",
            report,
            CALLS_MIN,
            "GRPC_MAX_CONNECTION_AGE_GRACE=1ms with GREETER_DELAY=50ms: a grace below a call",
        ),
        aged(
            "round-robin.age.connections_aged",
            &renewals,
            RENEWALS_MIN,
            "GRPC_MAX_CONNECTION_AGE unset: connections live forever",
        ),
    ];
    Ok(found)
}

/// For each address: every READY after the first is a connection that replaced an aged one. GOAWAYs
/// can't be counted instead: on a connection without an open call the end comes at once, without a
/// drain.
pub(super) fn renewals(addresses: Vec<String>, events: &[Event]) -> Vec<(String, usize)> {
    let of = |address: String| {
        let ready = events.iter().filter(|event| is_ready(&event.what, &address)).count();
        (address, ready.saturating_sub(1))
    };
    addresses.into_iter().map(of).collect()
}

/// Over all addresses.
pub(super) fn sum(renewals: &[(String, usize)]) -> f64 {
    renewals.iter().map(|(_, count)| *count).sum::<usize>() as f64
}
