//! What two sidecars leave alone, and what the second one adds: who calls.

use std::{sync::Arc, time::Duration};

use evenkeel::Channel;

use super::{phase, scene};
use crate::{
    checks::caller_named,
    client::Report,
    envoy::Stats,
    error::LabError,
    examples::proxied::EnvoyIds,
    faults::CallFault,
    identities::{CLIENT, spiffe_id},
    report::PhaseReport,
    run::Run,
    unharmed::{Ids, Mirror, arrived, probe},
};

/// The pod whose application is the mirror.
const POD: u8 = 1;
/// From the slice to Envoy's list. If it takes longer, the probes will say so.
const LIST_LIMIT: Duration = Duration::from_secs(5);
/// Where a proxy that ends TLS tells the application who calls.
const CALLER: &str = "x-forwarded-client-cert";
const IDS: Ids = Ids {
    authority: "mesh.unharmed.authority",
    trace_context: "mesh.unharmed.trace_context",
    deadlines: "mesh.unharmed.deadlines",
    statuses: "mesh.unharmed.statuses",
    trailers_only: "mesh.unharmed.trailers_only",
    metadata: "mesh.unharmed.metadata",
    long_headers: "mesh.unharmed.long_headers",
};

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let (mut told, _) = scene::open(run, &name, &[], (&[], CallFault::None)).await?;
    let mirror = Mirror::start(told.sidecar.stage.fleet.application(POD)).await?;
    told.sidecar.stage.fleet.start_fronts(&[POD]).await?;
    told.sidecar.stage.publish(&[POD]).await;
    let listed = |stats: &Stats| told.sidecar.value(stats, "membership_total") == 1;
    told.sidecar.envoy.until("membership", listed, LIST_LIMIT).await?;
    let authority = "greeter.default.svc.cluster.local:8000";
    let channel = Channel::builder(format!("ipv4:{}", told.sidecar.stage.block.sidecar(1)))
        .authority(authority)
        .build()
        .map_err(|error| LabError::io("the channel")(std::io::Error::other(error)))?;
    let mut checks = probe(&channel, authority, &mirror, &IDS).await?;
    if told.sidecar.is_ours {
        let named = arrived(&channel, CALLER).await?;
        checks.push(caller_named(
            "mesh.unharmed.caller_named",
            &named,
            &spiffe_id(CLIENT),
            "an ingress without `identity:`: no TLS ends there, and nobody is named",
        ));
    }
    told.all_alive()?;
    let ids = EnvoyIds {
        nothing_deprecated: "mesh.unharmed.nothing_deprecated",
        none_rejected: Some("mesh.unharmed.none_rejected"),
    };
    checks.extend(told.sidecar.envoy_checks(ids).await?);
    let phase = phase("unharmed");
    // No client ran: the calls are the lab's own.
    let mut found = PhaseReport::new(phase.name, phase.what, &Report::default());
    found.checks = checks;
    Ok(found)
}
