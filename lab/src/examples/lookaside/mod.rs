//! Example 5: a lookaside balancer. It watches the EndpointSlices, and tells clients by grpclb.

use super::{Example, Phase};

mod balancers;
mod drops;
mod kill;
mod load;
mod scale;
pub(super) mod scene;
mod steady;

pub(crate) static EXAMPLE: Example = Example {
    number: 5,
    name: "lookaside",
    title: "a balancer beside the calls: it watches the cluster, clients ask it",
    control_plane: "grpclb: two balancers without a leader, found by SRV records",
    policy: "grpclb",
    real: &[
        "the greeter processes",
        "both balancers",
        "the client",
        "every watch and every grpclb message",
        "every DNS message",
        "every fault",
    ],
    doubles: &[
        "the API server (list and watch of EndpointSlices, checked against a real one)",
        "CoreDNS, kubelet and the EndpointSlice controller (the lab)",
    ],
    picture: "\
\x20 client ---- HTTP/2 ----> greeter 1   1/3
    | \\______ HTTP/2 ----> greeter 2   1/3        every call carries its lb-token
    |  \\_____ HTTP/2 ----> greeter 3   1/3
    |
    |---- BalanceLoad ----> balancer 1 ---- watch ----> API server
    |      <- lists          balancer 2 ---- watch ---->  (EndpointSlices)
    | A balancer? _grpclb._tcp SRV
    v
   DNS

  knows the endpoints: the balancers     picks: the client, in the order of the list
  HTTP/2 ends: client and greeter        survives: losing one balancer (the other takes over),
                                         both (the last list stays), DNS,
                                         a greeter (but its calls in flight)",
    needs_envoy: false,
    phases: &[
        Phase {
            name: "steady",
            what: "3 backends, 2 balancers, nothing happens",
            calls_per_s: 700,
            seconds: 8,
            play: |run, name| Box::pin(steady::play(run, name)),
        },
        Phase {
            name: "scale",
            what: "3 backends, down to 1, up to 4",
            calls_per_s: 200,
            seconds: 10,
            play: |run, name| Box::pin(scale::play(run, name)),
        },
        Phase {
            name: "kill",
            what: "kill -9 of one of 3 backends, back on its address after 1.5 s",
            calls_per_s: 500,
            seconds: 8,
            play: |run, name| Box::pin(kill::play(run, name)),
        },
        Phase {
            name: "balancers",
            what: "kill -9 of the client's balancer, then of both; then both are back",
            calls_per_s: 300,
            seconds: 18,
            play: |run, name| Box::pin(balancers::play(run, name)),
        },
        Phase {
            name: "drops",
            what: "3 backends, and the balancer says to drop 30 % of the calls",
            calls_per_s: 1000,
            seconds: 14,
            play: |run, name| Box::pin(drops::play(run, name)),
        },
        Phase {
            name: "load",
            what: "10 backends, one at half speed, 75 % load: weights that follow the load",
            calls_per_s: 150,
            seconds: 55,
            play: |run, name| Box::pin(load::play(run, name)),
        },
    ],
};

/// The phase `name` of this example.
fn phase(name: &str) -> &'static Phase {
    let found = EXAMPLE.phases.iter().find(|phase| phase.name == name);
    found.expect("each room of this example names its own phase")
}
