//! Example 1: a headless Service. The client learns every pod from DNS and takes turns.

use std::sync::Arc;

use super::{
    Example, Phase,
    steady::{self, Ids},
};
use crate::{error::LabError, report::PhaseReport, run::Run, stage::Stage};

mod age;
mod hang;
mod kill;
mod replaced;
mod rolling;
mod scale;
mod storm;

pub(crate) static EXAMPLE: Example = Example {
    number: 1,
    name: "round-robin",
    title: "a headless Service: the client knows every pod and takes turns",
    control_plane: "DNS",
    policy: "round_robin",
    real: &["the greeter processes", "the client", "every DNS message", "every fault"],
    doubles: &["CoreDNS and kubelet (an authoritative hickory server that the lab feeds)"],
    picture: "\
\x20 client ---- HTTP/2 ----> greeter 1   1/3
    | \\______ HTTP/2 ----> greeter 2   1/3
    |  \\_____ HTTP/2 ----> greeter 3   1/3
    | A greeter? every ready pod, TTL 5 s
    v
   DNS

  knows the endpoints: the client, from DNS    picks: the client, per call
  HTTP/2 ends: client and greeter              survives: losing DNS (the last list stays),
                                               losing a greeter (but its calls in flight)",
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
            seconds: 22,
            play: |run, name| Box::pin(scale::play(run, name)),
        },
        Phase {
            name: "age",
            what: "3 backends that end each connection after 5 s",
            calls_per_s: 700,
            seconds: 16,
            play: |run, name| Box::pin(age::play(run, name)),
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
            seconds: 46,
            play: |run, name| Box::pin(rolling::play(run, name)),
        },
        Phase {
            name: "storm",
            what: "3 backends that end each connection after 200 ms",
            calls_per_s: 1000,
            seconds: 12,
            play: |run, name| Box::pin(storm::play(run, name)),
        },
        Phase {
            name: "replaced",
            what: "all 3 pods are replaced at once by new ones, with drain",
            calls_per_s: 1000,
            seconds: 13,
            play: |run, name| Box::pin(replaced::play(run, name)),
        },
        Phase {
            name: "hang",
            what: "SIGSTOP of one of 3 for 5 s: its TCP stays alive",
            calls_per_s: 500,
            seconds: 12,
            play: |run, name| Box::pin(hang::play(run, name)),
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
        even_shares: "round-robin.steady.even_shares",
        none_failed: "round-robin.steady.none_failed",
        uneven: "--lb-policy pick_first: one backend gets all",
    };
    steady::play(Stage::open(run, &name, &[]).await?, phase("steady"), ids).await
}
