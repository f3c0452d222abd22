//! The one line of the file that others would choose: LEAST_REQUEST. It is never exact, and it sees
//! that a backend is slow, which turns do not.

use std::{sync::Arc, time::Duration};

use super::{
    envoy, phase,
    scene::{LEAST_REQUEST, call_through, start},
};
use crate::{
    checks::{exact_turns, none_failed, slow_gets_less},
    client::Report,
    error::LabError,
    examples::proxied::{BACKENDS, Sidecar},
    report::{Distribution, PhaseReport},
    run::Run,
    stage::Stage,
};

const SLOW: u8 = 3;
/// Both parts: 4 s of calls at 500 a second.
const CALLS_MIN: u64 = 1_900;
/// Turns give it a third. With a third of 500 calls a second for 52 ms it has 9 calls open, and
/// the others hardly one: it gets 12 % on an idle machine, and more on one that makes all of them
/// slow.
const SHARE_MAX: f64 = 0.25;
const FLAGS: [&str; 6] = ["--count", "2000", "--rate", "500", "--warmup", "5s"];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open(run, &name, &[("GREETER_DELAY", "2ms")]).await?;
    stage.fleet.set(SLOW, "GREETER_DELAY", "52ms");
    stage.scale_up(&BACKENDS).await?;
    let turns = start(&stage, "turns", 1, None).await?;
    let least = start(&stage, "least", 2, Some(LEAST_REQUEST)).await?;

    stage.call_through(stage.block.sidecar(1));
    let by_turns = calls(&stage).await?;
    stage.say("the same with LEAST_REQUEST");
    let sidecar = call_through(stage, least, 2);
    let by_load = calls(&sidecar.stage).await?;

    turns.alive()?;
    sidecar.all_alive()?;
    let mut found = report(&sidecar, &by_turns, &by_load);
    let ids = envoy("envoy-static.least_request.nothing_deprecated");
    found.checks.extend(sidecar.envoy_checks(ids).await?);
    Ok(found)
}

async fn calls(stage: &Stage) -> Result<Report, LabError> {
    let client = stage.client(&FLAGS).await?;
    Ok(client.wait(Duration::from_secs(30)).await?.report)
}

fn report(sidecar: &Sidecar, by_turns: &Report, by_load: &Report) -> PhaseReport {
    let (phase, fleet) = (phase("least_request"), &sidecar.stage.fleet);
    let mut found = PhaseReport::new(phase.name, phase.what, by_load);
    found = found.set(&sidecar.stage.with_policy(&FLAGS), &[("GREETER_DELAY", "2ms")]);
    found.distributions = vec![
        Distribution::whole("ROUND_ROBIN", by_turns),
        Distribution::whole("LEAST_REQUEST", by_load),
    ];
    found.checks = vec![
        exact_turns(
            "envoy-static.least_request.turns_do_not_see_it",
            by_turns,
            &fleet.names(&BACKENDS),
            CALLS_MIN,
            "an outage of the slow one: it is left out",
        ),
        slow_gets_less(
            "envoy-static.least_request.slow_gets_less",
            by_load,
            &fleet.names(&[SLOW]).concat(),
            SHARE_MAX,
            "lb_policy ROUND_ROBIN: a third, however slow",
        ),
        none_failed(
            "envoy-static.least_request.none_failed",
            by_load,
            CALLS_MIN,
            "--timeout 10ms: shorter than the slow one's answer",
        ),
    ];
    found
}
