//! Example 6: the client watches the Service's EndpointSlices itself.

use std::sync::Arc;

use super::{
    Example, Phase,
    steady::{self, Ids},
};
use crate::{error::LabError, report::PhaseReport, run::Run, stage::Stage};

mod away;
mod kill;
mod rolling;
mod scale;

pub(crate) static EXAMPLE: Example = Example {
    number: 6,
    name: "kubernetes",
    title: "the client watches EndpointSlices itself: a new pod is used when it is ready",
    control_plane: "the Kubernetes API server, watched by the client",
    policy: "round_robin",
    real: &["the greeter processes", "the client", "every watch event", "every fault"],
    doubles: &["the API server (list and watch of EndpointSlices, which the lab writes)"],
    picture: "\
\x20 client ---- HTTP/2 ----> greeter 1   1/3
    ^ \\______ HTTP/2 ----> greeter 2   1/3
    |  \\_____ HTTP/2 ----> greeter 3   1/3
    | EndpointSlices of greeter.default, as they change
    |
  API server

  knows the endpoints: the client, from the API    picks: the client, per call
  HTTP/2 ends: client and greeter                  survives: losing the API server (the last
                                                   set stays), losing a greeter (but its calls
                                                   in flight)",
    needs_envoy: false,
    phases: &[
        Phase {
            name: "steady",
            what: "3 backends, nothing happens",
            calls_per_s: 700,
            seconds: 7,
            play: |run, name| Box::pin(steady(run, name)),
        },
        Phase {
            name: "scale",
            what: "3 backends, down to 1, up to 4, connection age off",
            calls_per_s: 200,
            seconds: 10,
            play: |run, name| Box::pin(scale::play(run, name)),
        },
        Phase {
            name: "kill",
            what: "kill -9 of one of 3, back on its address after 1.5 s",
            calls_per_s: 500,
            seconds: 8,
            play: |run, name| Box::pin(kill::play(run, name)),
        },
        Phase {
            name: "rolling",
            what: "3 pods, replaced one after the other (--restarts), with drain",
            calls_per_s: 1000,
            seconds: 18,
            play: |run, name| Box::pin(rolling::play(run, name)),
        },
        Phase {
            name: "away",
            what: "the API server is away for 30 s, and a pod comes meanwhile",
            calls_per_s: 200,
            seconds: 60,
            play: |run, name| Box::pin(away::play(run, name)),
        },
    ],
};

/// The phase `name` of this example.
fn phase(name: &str) -> &'static Phase {
    let found = EXAMPLE.phases.iter().find(|phase| phase.name == name);
    found.expect("each room of this example names its own phase")
}

async fn steady(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = Ids {
        even_shares: "kubernetes.steady.even_shares",
        none_failed: "kubernetes.steady.none_failed",
        uneven: "--lb-policy pick_first: one backend gets all",
    };
    steady::play(Stage::open_with_api(run, &name, &[]).await?, phase("steady"), ids).await
}
