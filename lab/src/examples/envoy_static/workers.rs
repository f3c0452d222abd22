//! What makes turns inexact: more than one worker thread. Each has turns of its own, and a client's
//! connection belongs to one of them; so it takes many clients to see it, and one shows nothing.

use std::{sync::Arc, time::Duration};

use super::{
    envoy, phase,
    scene::{call_through, start_with},
};
use crate::{
    checks::{exact_turns, none_failed, turns_by_worker},
    client::{Client, Report},
    error::LabError,
    examples::proxied::BACKENDS,
    report::{Distribution, PhaseReport},
    run::Run,
    stage::Stage,
};

/// Without `--envoy-concurrency`, which would be 1.
const WORKERS: u16 = 4;
/// The kernel deals connections to workers by chance: that all 8 go to one of 4 is one run of
/// 16,384.
const CLIENTS: usize = 8;
/// Each client's last turn ends in the middle of a round.
const FLAGS: [&str; 6] = ["--count", "101", "--rate", "100", "--warmup", "5s"];
const CALLS_MIN: u64 = CLIENTS as u64 * 101;

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open(run, &name, &[]).await?;
    stage.scale_up(&BACKENDS).await?;
    let workers = stage.run.envoy_concurrency();
    let workers = if workers > 1 { workers } else { WORKERS };
    let single = start_with(&stage, "single", 1, None, 1).await?;
    let several = start_with(&stage, "several", 2, None, workers).await?;

    stage.call_through(stage.block.sidecar(1));
    let by_one = calls(&stage).await?;
    stage.say(&format!("the same through {workers} workers"));
    let sidecar = call_through(stage, several, 2);
    let by_many = calls(&sidecar.stage).await?;

    single.alive()?;
    sidecar.all_alive()?;
    let (phase, fleet) = (phase("workers"), &sidecar.stage.fleet);
    let mut found = PhaseReport::new(phase.name, phase.what, &by_many);
    found = found.set(&sidecar.stage.with_policy(&FLAGS), &[]);
    found.distributions = vec![
        Distribution::whole("1 worker", &by_one),
        Distribution::whole(&format!("{workers} workers"), &by_many),
    ];
    let backends = fleet.names(&BACKENDS);
    found.checks = vec![
        exact_turns(
            "envoy-static.workers.one_takes_exact_turns",
            &by_one,
            &backends,
            CALLS_MIN,
            "--concurrency 4 of Envoy: the second half of this phase",
        ),
        turns_by_worker(
            "envoy-static.workers.each_has_its_turns",
            &by_many,
            &backends,
            u64::from(workers),
            CALLS_MIN,
            "lb_policy RANDOM",
        ),
        none_failed(
            "envoy-static.workers.none_failed",
            &by_many,
            CALLS_MIN,
            "--timeout 100us: shorter than a call",
        ),
    ];
    let ids = envoy("envoy-static.workers.nothing_deprecated");
    found.checks.extend(sidecar.envoy_checks(ids).await?);
    Ok(found)
}

/// What all clients found together.
async fn calls(stage: &Stage) -> Result<Report, LabError> {
    let mut clients: Vec<Client> = Vec::new();
    for number in 1..=CLIENTS {
        clients.push(stage.one_of_many(number, &FLAGS).await?);
    }
    let mut all = Report::default();
    for client in clients {
        all.add(&client.wait(Duration::from_secs(30)).await?.report);
    }
    Ok(all)
}
