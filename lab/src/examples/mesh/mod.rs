//! Example 4: an Envoy on both sides, mutual TLS between them, and one control plane that tells
//! both everything, their identities included.

use std::sync::Arc;

use super::{
    Example, Phase,
    proxied::{
        BACKENDS, EnvoyIds,
        kill::{self, ENV},
        scale::{self, Source},
        steady,
    },
    told::{Told, away, fault},
};
use crate::{
    checks::{Secured, mutual_tls},
    error::LabError,
    faults::CallFault,
    report::PhaseReport,
    run::Run,
};

pub(crate) mod istiod;
mod scene;
mod strangers;
mod unharmed;

pub(crate) use scene::open;

pub(crate) static EXAMPLE: Example = Example {
    number: 4,
    name: "mesh",
    title: "a mesh: an Envoy on both sides, mutual TLS, one control plane",
    control_plane: "grpclb's xDS (delta ADS with SDS), which watches EndpointSlices",
    policy: "ROUND_ROBIN in the client's Envoy, pick_first in the client",
    real: &[
        "the greeter processes",
        "the client",
        "each Envoy",
        "the balancer",
        "every TLS handshake",
        "every watch and every xDS message",
        "every fault",
    ],
    doubles: &[
        "the mesh's authority (the lab makes the identities; the balancer hands them out)",
        "the API server (list and watch of EndpointSlices, checked against a real one)",
        "kubelet and the EndpointSlice controller (the lab)",
    ],
    picture: "\
\x20 client -- HTTP/2 --> Envoy ==== mTLS ====> Envoy -- HTTP/2 --> greeter 1   1/3
        one connection     | \\====== mTLS ====> Envoy -- HTTP/2 --> greeter 2   1/3
                           |  \\===== mTLS ====> Envoy -- HTTP/2 --> greeter 3   1/3
                           |                      |
                           '-- ADS and SDS -- balancer ---- watch ----> API server
                               (listeners, routes, clusters, endpoints, certificates)

  knows the endpoints: the balancer         picks: the client's Envoy, per call
  HTTP/2 ends: client, each Envoy, greeter  survives: losing the balancer (the last
  TLS ends: in each Envoy                   configuration serves), losing a pod (but its calls
                                            in flight); not losing the client's Envoy",
    needs_envoy: true,
    phases: &[
        Phase {
            name: "steady",
            what: "3 pods, nothing happens",
            calls_per_s: 1200,
            seconds: 9,
            play: |run, name| Box::pin(steady(run, name)),
        },
        Phase {
            name: "strangers",
            what: "callers without the right identity, and a backend without it",
            calls_per_s: 300,
            seconds: 10,
            play: |run, name| Box::pin(strangers::play(run, name)),
        },
        Phase {
            name: "scale",
            what: "3 pods, down to 1, up to 4",
            calls_per_s: 400,
            seconds: 12,
            play: |run, name| Box::pin(scale(run, name)),
        },
        Phase {
            name: "kill",
            what: "kill -9 of one of 3 pods, greeter and Envoy, back on its address after 1.5 s",
            calls_per_s: 900,
            seconds: 14,
            play: |run, name| Box::pin(kill(run, name)),
        },
        Phase {
            name: "away",
            what: "kill -9 of the control plane, which is away for 30 s",
            calls_per_s: 300,
            seconds: 42,
            play: |run, name| Box::pin(away(run, name)),
        },
        Phase {
            name: "fault",
            what: "the control plane says: abort 50 % of the calls, then: delay all, then: neither",
            calls_per_s: 1200,
            seconds: 20,
            play: |run, name| Box::pin(fault(run, name)),
        },
        Phase {
            name: "unharmed",
            what: "authority, trace context, deadlines, statuses and metadata pass both sidecars",
            calls_per_s: 50,
            seconds: 4,
            play: |run, name| Box::pin(unharmed::play(run, name)),
        },
    ],
};

/// The phase `name` of this example.
fn phase(name: &str) -> &'static Phase {
    let found = EXAMPLE.phases.iter().find(|phase| phase.name == name);
    found.expect("each room of this example names its own phase")
}

async fn steady(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = steady::Ids {
        exact_turns: "mesh.steady.exact_turns",
        none_failed: "mesh.steady.none_failed",
        envoy: EnvoyIds {
            nothing_deprecated: "mesh.steady.nothing_deprecated",
            none_rejected: Some("mesh.steady.none_rejected"),
        },
        inexact: "`policy: least_request`, or --envoy-concurrency 4 and many clients",
    };
    let (told, _) = open(run, &name, &[], (&BACKENDS, CallFault::None)).await?;
    let mut found = steady::play(&told.sidecar, phase("steady"), ids).await?;
    told.all_alive()?;
    if !told.sidecar.is_ours {
        return Ok(found);
    }
    let (from, to) = secured(&told).await?;
    found.figures.insert("mtls_connections", from.handshakes as f64);
    found.checks.push(mutual_tls(
        "mesh.steady.mutual_tls",
        from,
        &to,
        "no `mtls:` and no `identity:` in the balancer's configuration: plaintext",
    ));
    Ok(found)
}

/// What the client's Envoy and each pod's Envoy count of the connections between them.
async fn secured(told: &Told) -> Result<(Secured, Vec<Secured>), LabError> {
    let stats = told.sidecar.envoy.stats().await?;
    let from = Secured {
        connections: told.sidecar.value(&stats, "upstream_cx_total"),
        handshakes: told.sidecar.value(&stats, "ssl.handshake"),
        without_certificate: told.sidecar.value(&stats, "ssl.no_certificate"),
    };
    let mut to = Vec::new();
    for envoy in told.sidecar.stage.fleet.fronts() {
        let stats = envoy.stats().await?;
        // The admin port is a listener too, and counts connections; nobody has TLS with it.
        let listeners = stats.owners("ssl.handshake").filter(|name| name.starts_with("listener."));
        let mut one = Secured::default();
        for listener in listeners {
            let value = |name| stats.get(&format!("{listener}.{name}")).unwrap_or_default();
            one.connections += value("downstream_cx_total");
            one.handshakes += value("ssl.handshake");
            one.without_certificate += value("ssl.no_certificate");
        }
        to.push(one);
    }
    Ok((from, to))
}

async fn scale(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let (source, to_4_in_time) = match run.istiod() {
        None => (Source::Xds, "mesh.scale.to_4_within_1s"),
        Some(_) => (Source::Files, "mesh.scale.to_4_within_12s"),
    };
    let ids = scale::Ids {
        none_failed: "mesh.scale.none_failed",
        all_on_the_left: "mesh.scale.to_1_all_on_the_left",
        to_4_in_time,
        envoy: EnvoyIds {
            nothing_deprecated: "mesh.scale.nothing_deprecated",
            none_rejected: Some("mesh.scale.none_rejected"),
        },
        late: "DNS instead of xDS: a TTL of 5 s lies between",
    };
    let (mut told, _) = open(run, &name, &[], (&BACKENDS, CallFault::None)).await?;
    let found = scale::play(&mut told.sidecar, source, phase("scale"), ids).await?;
    told.all_alive()?;
    Ok(found)
}

async fn kill(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = kill::Ids {
        lost_in_flight: "mesh.kill.lost_in_flight",
        back_in_time: "mesh.kill.back_in_time",
        envoy: EnvoyIds {
            nothing_deprecated: "mesh.kill.nothing_deprecated",
            none_rejected: Some("mesh.kill.none_rejected"),
        },
        away_for_longer: "`base_ejection_time_s: 30`, Envoy's default",
    };
    let (mut told, _) = open(run, &name, &ENV, (&BACKENDS, CallFault::None)).await?;
    let found = kill::play(&mut told.sidecar, phase("kill"), ids).await?;
    told.all_alive()?;
    Ok(found)
}

async fn away(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = away::Ids {
        none_failed: "mesh.away.none_failed",
        nothing_rebuilt: "mesh.away.nothing_rebuilt",
        back_and_heard: "mesh.away.back_and_heard",
        envoy: EnvoyIds {
            nothing_deprecated: "mesh.away.nothing_deprecated",
            none_rejected: Some("mesh.away.none_rejected"),
        },
    };
    let (mut told, _) = open(run, &name, &[], (&BACKENDS, CallFault::None)).await?;
    away::play(&mut told, phase("away"), ids).await
}

async fn fault(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let ids = fault::Ids {
        half_aborted: "mesh.fault.half_aborted",
        delayed: "mesh.fault.delayed",
        none_failed_without: "mesh.fault.none_failed_without",
        nothing_rebuilt: "mesh.fault.nothing_rebuilt",
        envoy: EnvoyIds {
            nothing_deprecated: "mesh.fault.nothing_deprecated",
            none_rejected: Some("mesh.fault.none_rejected"),
        },
    };
    let (told, _) = open(run, &name, &[], (&BACKENDS, CallFault::Abort)).await?;
    fault::play(&told, phase("fault"), ids).await
}
