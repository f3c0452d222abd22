//! One of three backends has half its speed. Envoy's turns do not see it; the balancer does, from
//! what Envoy reports of each backend, and sends other weights. Nobody but Envoy speaks with the
//! backends.

use std::{sync::Arc, time::Duration};

use super::{BACKENDS, phase};
use crate::{
    checks::{exact_turns, none_failed, slow_gets_less},
    client::Report,
    envoy::SIDECAR_DYNAMIC,
    error::LabError,
    examples::{
        proxied::EnvoyIds,
        told::{Told, Words},
    },
    faults::CallFault,
    report::{Distribution, PhaseReport},
    run::Run,
    stage::Stage,
};

const SLOW: u8 = 3;
/// 2 calls at once of 50 ms: 40 calls a second, the slow one 20. Together they serve 100.
const ENV: [(&str, &str); 3] =
    [("GREETER_CAPACITY", "2"), ("GREETER_DELAY", "50ms"), ("GREETER_ORCA", "true")];
const SLOW_DELAY: &str = "100ms";
/// A third of it is 16 a second: even the slow one can do that.
const FLAGS: [&str; 8] = ["--count", "480", "--rate", "48", "--warmup", "5s", "--timeout", "20s"];
const CALLS_MIN: u64 = 470;
/// Turns give it 33 %, what it could serve is 20 %.
const SHARE_MAX: f64 = 0.25;
/// Two columns in. Envoy is asked to report each second (`Balancers`).
const BY_CLIENTS: &str = "  load_aware: {source: clients, update_interval_s: 1, smoothing_s: 2, \
                          blackout_s: 1}\n";
/// What a bootstrap says in which Envoy shall report; where its file has something else.
const NEXT: &str = "\ndynamic_resources:\n";
const REPORTS: &str = "
cluster_manager:
  load_stats_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [{ envoy_grpc: { cluster_name: balancer } }]
";

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open_with_api(run, &name, &ENV).await?;
    stage.fleet.set(SLOW, "GREETER_DELAY", SLOW_DELAY);
    let bootstrap = vec![(NEXT, format!("{REPORTS}{NEXT}"))];
    let words = Words { bootstrap, ..Words::default() };
    let mut scene =
        Told::open(stage, &SIDECAR_DYNAMIC, words, CallFault::None, (&BACKENDS, None)).await?;
    let by_turns = calls(&scene).await?;
    scene.sidecar.stage.say("the same with weights from what Envoy reports");
    scene.reword(|words| words.service = BY_CLIENTS.to_owned())?;
    // These are what is reported first; the weights are known when they end.
    calls(&scene).await?;
    let by_load = calls(&scene).await?;
    scene.all_alive()?;
    let mut found = report(&scene, &by_turns, &by_load);
    let envoy = EnvoyIds {
        nothing_deprecated: "envoy-dynamic.load.nothing_deprecated",
        none_rejected: Some("envoy-dynamic.load.none_rejected"),
    };
    found.checks.extend(scene.sidecar.envoy_checks(envoy).await?);
    Ok(found)
}

async fn calls(scene: &Told) -> Result<Report, LabError> {
    let client = scene.sidecar.stage.client(&FLAGS).await?;
    Ok(client.wait(Duration::from_secs(60)).await?.report)
}

fn report(scene: &Told, by_turns: &Report, by_load: &Report) -> PhaseReport {
    let (phase, stage) = (phase("load"), &scene.sidecar.stage);
    let mut found = PhaseReport::new(phase.name, phase.what, by_load);
    found = found.set(&stage.with_policy(&FLAGS), &ENV);
    found.distributions = vec![
        Distribution::whole("equal weights", by_turns),
        Distribution::whole("weights from what Envoy reports", by_load),
    ];
    found.checks = vec![
        exact_turns(
            "envoy-dynamic.load.turns_do_not_see_it",
            by_turns,
            &stage.fleet.names(&BACKENDS),
            CALLS_MIN,
            "an outage of the slow one: it is left out",
        ),
        slow_gets_less(
            "envoy-dynamic.load.slow_gets_less",
            by_load,
            &stage.fleet.names(&[SLOW]).concat(),
            SHARE_MAX,
            "GREETER_ORCA=false: Envoy has nothing to report but calls",
        ),
        none_failed(
            "envoy-dynamic.load.none_failed",
            by_load,
            CALLS_MIN,
            "--timeout 10ms: shorter than any answer",
        ),
    ];
    found
}
