//! What the sidecar leaves alone, by calls that go through it to a backend that mirrors them.

use std::sync::Arc;

use evenkeel::Channel;

use super::{phase, scene::start};
use crate::{
    client::Report,
    dns,
    error::LabError,
    report::PhaseReport,
    run::Run,
    stage::Stage,
    unharmed::{Ids, Mirror, probe},
};

/// The backend that the mirror stands for.
const HOST: u8 = 1;
const IDS: Ids = Ids {
    authority: "envoy-static.unharmed.authority",
    trace_context: "envoy-static.unharmed.trace_context",
    deadlines: "envoy-static.unharmed.deadlines",
    statuses: "envoy-static.unharmed.statuses",
    trailers_only: "envoy-static.unharmed.trailers_only",
    metadata: "envoy-static.unharmed.metadata",
    long_headers: "envoy-static.unharmed.long_headers",
};

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open(run, &name, &[]).await?;
    let mirror = Mirror::start(stage.block.backend(HOST)).await?;
    stage.publish(&[HOST]).await;
    let envoy = start(&stage, "sidecar", 1, None).await?;
    let authority = format!("{}:8000", dns::SERVICE);
    let channel = Channel::builder(format!("ipv4:{}", stage.block.sidecar(1)))
        .authority(&authority)
        .build()
        .map_err(|error| LabError::io("the channel")(std::io::Error::other(error)))?;
    let checks = probe(&channel, &authority, &mirror, &IDS).await?;
    envoy.alive()?;
    let phase = phase("unharmed");
    // No client ran: the calls are the lab's own.
    let mut found = PhaseReport::new(phase.name, phase.what, &Report::default());
    found.checks = checks;
    Ok(found)
}
