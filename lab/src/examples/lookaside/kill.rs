//! A pod crashes; it stays in the balancers' list. See `examples/kill.rs`.

use std::sync::Arc;

use super::{
    phase,
    scene::{Scene, with_policy},
};
use crate::{
    error::LabError,
    examples::kill::{self, BACKENDS, ENV, FLAGS, Ids},
    report::PhaseReport,
    run::Run,
};

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut scene = Scene::open(run, &name, &ENV, "").await?;
    scene.scale_up(&BACKENDS).await?;
    let client = scene.client(&BACKENDS, &FLAGS).await?;
    let ids = Ids {
        only_unavailable: "lookaside.kill.only_unavailable",
        failures_within_open_streams: "lookaside.kill.failures_within_open_streams",
        none_after_eof: "lookaside.kill.none_after_eof",
        back_in_time: "lookaside.kill.back_in_time",
    };
    let flags = with_policy(&FLAGS);
    let found = kill::play(&mut scene.stage, client, phase("kill"), &flags, ids).await?;
    scene.all_alive()?;
    Ok(found)
}
