//! Example 2: an Envoy beside the client, which asks DNS and takes turns. The client calls one
//! local address and knows nothing.

use std::sync::Arc;

use super::{
    Example, Phase,
    proxied::{
        BACKENDS, EnvoyIds,
        kill::{self, ENV},
        scale::{self, Source},
        steady,
    },
};
use crate::{error::LabError, report::PhaseReport, run::Run};

mod least_request;
pub(super) mod scene;
mod unharmed;
mod workers;

pub(crate) use scene::start as start_sidecar;

pub(crate) static EXAMPLE: Example = Example {
    number: 2,
    name: "envoy-static",
    title: "a sidecar: an Envoy beside the client knows every pod from DNS",
    control_plane: "DNS, asked by Envoy (envoy/sidecar-static.yaml)",
    policy: "ROUND_ROBIN in Envoy, pick_first in the client",
    real: &[
        "the greeter processes",
        "the client",
        "Envoy",
        "every DNS message",
        "every health check",
        "every fault",
    ],
    doubles: &["CoreDNS and kubelet (an authoritative hickory server that the lab feeds)"],
    picture: "\
\x20 client -- HTTP/2 --> Envoy ---- HTTP/2 ----> greeter 1   1/3
        one connection     | \\______ HTTP/2 ----> greeter 2   1/3
                           |  \\_____ HTTP/2 ----> greeter 3   1/3
                           | A greeter-server? every ready pod, TTL 5 s
                           v
                          DNS

  knows the endpoints: Envoy, from DNS      picks: Envoy, per call
  HTTP/2 ends: client, Envoy, greeter       survives: losing DNS (the last list stays),
                                            losing a greeter (but its calls in flight);
                                            not losing Envoy

  Shares are exact because one worker thread takes the turns. Each worker has its own turns, and
  a client's connection belongs to one worker: --envoy-concurrency 4 changes nothing for one
  client, and for many each worker adds up to one call of difference (the phase `workers`).
  LEAST_REQUEST picks the less busy one of two random backends: never exact, and better when one
  is slow (the phase `least_request`).",
    needs_envoy: true,
    phases: &[
        Phase {
            name: "steady",
            what: "3 backends, nothing happens",
            calls_per_s: 900,
            seconds: 7,
            play: |run, name| Box::pin(steady(run, name)),
        },
        Phase {
            name: "least_request",
            what: "one of 3 backends is 50 ms slower; ROUND_ROBIN, then LEAST_REQUEST",
            calls_per_s: 700,
            seconds: 11,
            play: |run, name| Box::pin(least_request::play(run, name)),
        },
        Phase {
            name: "workers",
            what: "8 clients through one worker thread, and through 4 (or --envoy-concurrency)",
            calls_per_s: 500,
            seconds: 8,
            play: |run, name| Box::pin(workers::play(run, name)),
        },
        Phase {
            name: "scale",
            what: "3 backends, down to 1, up to 4",
            calls_per_s: 300,
            seconds: 22,
            play: |run, name| Box::pin(scale(run, name)),
        },
        Phase {
            name: "kill",
            what: "kill -9 of one of 3 backends, back on its address after 1.5 s",
            calls_per_s: 700,
            seconds: 13,
            play: |run, name| Box::pin(kill(run, name)),
        },
        Phase {
            name: "unharmed",
            what: "authority, trace context, deadlines, statuses and metadata pass the sidecar",
            calls_per_s: 50,
            seconds: 3,
            play: |run, name| Box::pin(unharmed::play(run, name)),
        },
    ],
};

/// The phase `name` of this example.
fn phase(name: &str) -> &'static Phase {
    let found = EXAMPLE.phases.iter().find(|phase| phase.name == name);
    found.expect("each room of this example names its own phase")
}

/// The checks of Envoy itself; nobody sends it anything here that it could reject.
const fn envoy(nothing_deprecated: &'static str) -> EnvoyIds {
    EnvoyIds { nothing_deprecated, none_rejected: None }
}

async fn steady(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = steady::Ids {
        exact_turns: "envoy-static.steady.exact_turns",
        none_failed: "envoy-static.steady.none_failed",
        envoy: envoy("envoy-static.steady.nothing_deprecated"),
        inexact: "lb_policy LEAST_REQUEST, or --envoy-concurrency 4 and many clients",
    };
    let sidecar = scene::open(run, &name, &[], &BACKENDS).await?;
    steady::play(&sidecar, phase("steady"), ids).await
}

async fn scale(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = scale::Ids {
        none_failed: "envoy-static.scale.none_failed",
        all_on_the_left: "envoy-static.scale.to_1_all_on_the_left",
        to_4_in_time: "envoy-static.scale.to_4_within_ttl",
        envoy: envoy("envoy-static.scale.nothing_deprecated"),
        late: "respect_dns_ttl: false and dns_refresh_rate: 30s",
    };
    let mut sidecar = scene::open(run, &name, &[], &BACKENDS).await?;
    scale::play(&mut sidecar, Source::Dns, phase("scale"), ids).await
}

async fn kill(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = kill::Ids {
        lost_in_flight: "envoy-static.kill.lost_in_flight",
        back_in_time: "envoy-static.kill.back_in_time",
        envoy: envoy("envoy-static.kill.nothing_deprecated"),
        away_for_longer: "base_ejection_time 30s and no health checks: Envoy's defaults",
    };
    let mut sidecar = scene::open(run, &name, &ENV, &BACKENDS).await?;
    kill::play(&mut sidecar, phase("kill"), ids).await
}
