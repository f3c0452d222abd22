//! Example 3: an Envoy beside the client that a balancer tells everything by xDS: listener, route,
//! cluster and endpoints.

mod load;

use std::sync::Arc;

use super::{
    Example, Phase,
    proxied::{
        BACKENDS, EnvoyIds,
        kill::{self, ENV},
        scale::{self, Source},
        steady,
    },
    told::{Told, Words, away, fault},
};
use crate::{
    envoy::SIDECAR_DYNAMIC, error::LabError, faults::CallFault, report::PhaseReport, run::Run,
    stage::Stage,
};

pub(crate) static EXAMPLE: Example = Example {
    number: 3,
    name: "envoy-dynamic",
    title: "a sidecar that a control plane tells everything by xDS",
    control_plane: "grpclb's xDS (delta ADS), which watches EndpointSlices",
    policy: "ROUND_ROBIN in Envoy, pick_first in the client",
    real: &[
        "the greeter processes",
        "the client",
        "Envoy",
        "the balancer",
        "every watch and every xDS message",
        "every fault",
    ],
    doubles: &[
        "the API server (list and watch of EndpointSlices, checked against a real one)",
        "kubelet and the EndpointSlice controller (the lab)",
    ],
    picture: "\
\x20 client -- HTTP/2 --> Envoy ---- HTTP/2 ----> greeter 1   1/3
        one connection     | \\______ HTTP/2 ----> greeter 2   1/3
                           |  \\_____ HTTP/2 ----> greeter 3   1/3
                           |
                           | ADS: listener, route, cluster, endpoints
                           v
                        balancer ---- watch ----> API server (EndpointSlices)

  knows the endpoints: the balancer         picks: Envoy, per call
  HTTP/2 ends: client, Envoy, greeter       survives: losing the balancer (the last
                                            configuration serves), losing a greeter (but its
                                            calls in flight); not losing Envoy",
    needs_envoy: true,
    phases: &[
        Phase {
            name: "steady",
            what: "3 backends, nothing happens",
            calls_per_s: 900,
            seconds: 8,
            play: |run, name| Box::pin(steady(run, name)),
        },
        Phase {
            name: "scale",
            what: "3 backends, down to 1, up to 4",
            calls_per_s: 300,
            seconds: 11,
            play: |run, name| Box::pin(scale(run, name)),
        },
        Phase {
            name: "kill",
            what: "kill -9 of one of 3 backends, back on its address after 1.5 s",
            calls_per_s: 700,
            seconds: 14,
            play: |run, name| Box::pin(kill(run, name)),
        },
        Phase {
            name: "away",
            what: "kill -9 of the balancer, which is away for 30 s",
            calls_per_s: 200,
            seconds: 42,
            play: |run, name| Box::pin(away(run, name)),
        },
        Phase {
            name: "fault",
            what: "the balancer says: abort 50 % of the calls, then: delay all, then: neither",
            calls_per_s: 1000,
            seconds: 20,
            play: |run, name| Box::pin(fault(run, name)),
        },
        Phase {
            name: "load",
            what: "one of 3 backends at half speed: turns, then weights from what Envoy reports",
            calls_per_s: 48,
            seconds: 36,
            play: |run, name| Box::pin(load::play(run, name)),
        },
    ],
};

/// The phase `name` of this example.
fn phase(name: &str) -> &'static Phase {
    let found = EXAMPLE.phases.iter().find(|phase| phase.name == name);
    found.expect("each room of this example names its own phase")
}

/// A scene with three backends, whose balancer says `fault`.
pub(super) async fn open(
    run: Arc<Run>,
    phase: &str,
    settings: &[(&'static str, &str)],
    fault: CallFault,
) -> Result<Told, LabError> {
    let stage = Stage::open_with_api(run, phase, settings).await?;
    Told::open(stage, &SIDECAR_DYNAMIC, Words::default(), fault, (&BACKENDS, None)).await
}

async fn steady(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = steady::Ids {
        exact_turns: "envoy-dynamic.steady.exact_turns",
        none_failed: "envoy-dynamic.steady.none_failed",
        envoy: EnvoyIds {
            nothing_deprecated: "envoy-dynamic.steady.nothing_deprecated",
            none_rejected: Some("envoy-dynamic.steady.none_rejected"),
        },
        inexact: "`policy: least_request`, or --envoy-concurrency 4 and many clients",
    };
    let scene = open(run, &name, &[], CallFault::None).await?;
    let found = steady::play(&scene.sidecar, phase("steady"), ids).await?;
    scene.all_alive()?;
    Ok(found)
}

async fn scale(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = scale::Ids {
        none_failed: "envoy-dynamic.scale.none_failed",
        all_on_the_left: "envoy-dynamic.scale.to_1_all_on_the_left",
        to_4_in_time: "envoy-dynamic.scale.to_4_within_1s",
        envoy: EnvoyIds {
            nothing_deprecated: "envoy-dynamic.scale.nothing_deprecated",
            none_rejected: Some("envoy-dynamic.scale.none_rejected"),
        },
        late: "DNS instead of xDS: a TTL of 5 s lies between",
    };
    let mut scene = open(run, &name, &[], CallFault::None).await?;
    let found = scale::play(&mut scene.sidecar, Source::Xds, phase("scale"), ids).await?;
    scene.all_alive()?;
    Ok(found)
}

async fn kill(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = kill::Ids {
        lost_in_flight: "envoy-dynamic.kill.lost_in_flight",
        back_in_time: "envoy-dynamic.kill.back_in_time",
        envoy: EnvoyIds {
            nothing_deprecated: "envoy-dynamic.kill.nothing_deprecated",
            none_rejected: Some("envoy-dynamic.kill.none_rejected"),
        },
        away_for_longer: "`base_ejection_time_s: 30`, Envoy's default",
    };
    let mut scene = open(run, &name, &ENV, CallFault::None).await?;
    let found = kill::play(&mut scene.sidecar, phase("kill"), ids).await?;
    scene.all_alive()?;
    Ok(found)
}

async fn away(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = away::Ids {
        none_failed: "envoy-dynamic.away.none_failed",
        nothing_rebuilt: "envoy-dynamic.away.nothing_rebuilt",
        back_and_heard: "envoy-dynamic.away.back_and_heard",
        envoy: EnvoyIds {
            nothing_deprecated: "envoy-dynamic.away.nothing_deprecated",
            none_rejected: Some("envoy-dynamic.away.none_rejected"),
        },
    };
    away::play(&mut open(run, &name, &[], CallFault::None).await?, phase("away"), ids).await
}

async fn fault(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = fault::Ids {
        half_aborted: "envoy-dynamic.fault.half_aborted",
        delayed: "envoy-dynamic.fault.delayed",
        none_failed_without: "envoy-dynamic.fault.none_failed_without",
        nothing_rebuilt: "envoy-dynamic.fault.nothing_rebuilt",
        envoy: EnvoyIds {
            nothing_deprecated: "envoy-dynamic.fault.nothing_deprecated",
            none_rejected: Some("envoy-dynamic.fault.none_rejected"),
        },
    };
    fault::play(&open(run, &name, &[], CallFault::Abort).await?, phase("fault"), ids).await
}
