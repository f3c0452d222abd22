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

/// What tells one phase from another in which connections end by their age.
pub(super) struct Ages {
    pub(super) phase: &'static str,
    pub(super) env: &'static [(&'static str, &'static str)],
    pub(super) flags: &'static [&'static str],
    /// Of each backend's connection.
    pub(super) renewals_min: usize,
    /// The checks' ids, each with what breaks it.
    pub(super) none_failed: [&'static str; 2],
    pub(super) aged: [&'static str; 2],
}

const FEW_SECONDS: Ages = Ages {
    phase: "age",
    env: &[("GRPC_MAX_CONNECTION_AGE", "5s")],
    flags: &["--count", "10500", "--rate", "700", "--warmup", "5s"],
    // 15 s hold two ages of 5 s ± 10 % for sure.
    renewals_min: 2,
    none_failed: [
        "round-robin.age.none_failed",
        "GRPC_MAX_CONNECTION_AGE_GRACE=1ms with GREETER_DELAY=50ms: a grace below a call",
    ],
    aged: [
        "round-robin.age.connections_aged",
        "GRPC_MAX_CONNECTION_AGE unset: connections live forever",
    ],
};

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    watch(run, name, &FEW_SECONDS).await
}

/// Calls go on while connections come and go.
pub(super) async fn watch(
    run: Arc<Run>,
    name: String,
    ages: &Ages,
) -> Result<PhaseReport, LabError> {
    let phase = phase(ages.phase);
    let mut stage = Stage::open(run, &name, ages.env).await?;
    stage.scale_up(&BACKENDS).await?;
    let client = stage.client(ages.flags).await?;
    let finished = client.wait(Duration::from_secs(60)).await?;
    stage.fleet.all_alive()?;
    let report = &finished.report;
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(ages.flags, ages.env);
    found.distributions.push(Distribution::whole("all calls", report));
    let renewals = renewals(stage.fleet.addresses(&BACKENDS), &finished.events);
    found.figures.insert("connections_renewed", sum(&renewals));
    let ([failed, breaks_failed], [aged_id, breaks_aged]) = (ages.none_failed, ages.aged);
    found.checks = vec![
        none_failed(failed, report, CALLS_MIN, breaks_failed),
        aged(aged_id, &renewals, ages.renewals_min, breaks_aged),
    ];
    Ok(found)
}

/// For each address: every READY after the first is a connection that replaced an aged one. GOAWAYs
/// can't be counted instead: on a connection without an open call the end comes at once, without a
/// drain.
fn renewals(addresses: Vec<String>, events: &[Event]) -> Vec<(String, usize)> {
    let of = |address: String| {
        let ready = events.iter().filter(|event| is_ready(&event.what, &address)).count();
        (address, ready.saturating_sub(1))
    };
    addresses.into_iter().map(of).collect()
}

/// Over all addresses.
fn sum(renewals: &[(String, usize)]) -> f64 {
    renewals.iter().map(|(_, count)| *count).sum::<usize>() as f64
}
