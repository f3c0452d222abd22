//! A pod crashes; its slice calls it ready all the time. See `examples/kill.rs`.

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
    let mut stage = Stage::open_with_api(run, &name, &ENV).await?;
    stage.scale_up(&BACKENDS).await?;
    let client = stage.connected_client(&BACKENDS, &FLAGS).await?;
    let ids = Ids {
        only_unavailable: "kubernetes.kill.only_unavailable",
        failures_within_open_streams: "kubernetes.kill.failures_within_open_streams",
        none_after_eof: "kubernetes.kill.none_after_eof",
        back_in_time: "kubernetes.kill.back_in_time",
    };
    kill::play(&mut stage, client, phase("kill"), &FLAGS, ids).await
}
