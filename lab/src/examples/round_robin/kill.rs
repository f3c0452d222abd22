//! A pod crashes; it stays in DNS. See `examples/kill.rs`.

use std::sync::Arc;

use super::phase;
use crate::{
    error::LabError,
    examples::kill::{self, BACKENDS, ENV, FLAGS, Ids},
    report::PhaseReport,
    run::Run,
    stage::Stage,
};

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open(run, &name, &ENV).await?;
    stage.scale_up(&BACKENDS).await?;
    let client = stage.connected_client(&BACKENDS, &FLAGS).await?;
    let ids = Ids {
        only_unavailable: "round-robin.kill.only_unavailable",
        failures_within_open_streams: "round-robin.kill.failures_within_open_streams",
        none_after_eof: "round-robin.kill.none_after_eof",
        back_in_time: "round-robin.kill.back_in_time",
    };
    kill::play(&mut stage, client, phase("kill"), &FLAGS, ids).await
}
