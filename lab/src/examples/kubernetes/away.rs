//! The API server is away for 30 s, in which a pod comes. Calls go on over the last set; the watch
//! tries again with a growing wait, goes on at the version that it had, and finds the pod.

use std::{sync::Arc, time::Duration};

use apiserver::Kind;
use tokio::time::sleep;

use super::{phase, scale::first_answers};
use crate::{
    checks::{all_served_within, bounded, none_failed},
    client::{Finished, What, first},
    clock::unix_s,
    error::LabError,
    report::{Distribution, PhaseReport, timeline::sliced},
    run::Run,
    stage::Stage,
};

const OLD: [u8; 3] = [1, 2, 3];
const NEW: u8 = 4;
const AWAY: Duration = Duration::from_secs(30);
/// The wait between two tries has grown to 30 s at most.
const SEEN_LIMIT_S: f64 = 31.0;
/// A streaming list, the watch that goes on where it was, and one more when its time is over.
const REQUESTS_MAX: usize = 3;
const CALLS_MIN: u64 = 6_000;
const SLOT_S: f64 = 0.1;
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "200", "--slots", "100ms"];

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open_with_api(run, &name, &[]).await?;
    stage.scale_up(&OLD).await?;
    let client = stage.connected_client(&OLD, &FLAGS).await?;
    sleep(Duration::from_secs(1)).await;

    let left = unix_s();
    if let Some(slices) = &mut stage.slices {
        slices.silence(true).await?;
    }
    stage.say("the API server is away");
    sleep(AWAY / 2).await;
    stage.scale_up(&[NEW]).await?;
    stage.say("a fourth pod is ready, and nobody can say so");
    sleep(AWAY / 2).await;
    if let Some(slices) = &mut stage.slices {
        slices.silence(false).await?;
    }
    let returned = unix_s();
    stage.say("the API server is back");
    let name = stage.fleet.names(&[NEW]).concat();
    let is_first = |what: &What| matches!(what, What::FirstCall { backend } if *backend == name);
    let limit = Duration::from_secs_f64(SEEN_LIMIT_S + 1.0);
    client.until(limit, |events| first(events, 0.0, is_first).is_some()).await?;
    sleep(Duration::from_secs(1)).await;

    let finished = client.stop().await?;
    stage.fleet.all_alive()?;
    Ok(report(&stage, &finished, left, returned))
}

fn report(stage: &Stage, finished: &Finished, left: f64, returned: f64) -> PhaseReport {
    let (phase, report, events) = (phase("away"), &finished.report, &finished.events);
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &[]);
    let (slots, end) = (&report.slots, report.started_unix_s + report.wall_s);
    found.distributions = vec![
        Distribution::between("while it was away", slots, SLOT_S, left, returned),
        Distribution::between("last second", slots, SLOT_S, end - 1.0, end),
    ];
    found.figures.insert("away_s", returned - left);
    let (address, ready) = (stage.fleet.address(NEW).to_string(), stage.fleet.ready_unix_s(NEW));
    let why = "the watch's next try: from 0.8 s, doubled, with jitter, to 30 s";
    found.timelines.push(sliced(&address, ready, (returned, "API server back"), why, events));
    let api = stage.slices.as_ref().map(|slices| &slices.api);
    let requests = api.map_or(0, |api| api.requests().len());
    let lists = api.map_or(0, |api| api.count(Kind::StreamingList) + api.count(Kind::List));
    found.figures.insert("api_requests", requests as f64);
    found.figures.insert("api_lists", lists as f64);
    found.checks = vec![
        none_failed(
            "kubernetes.away.none_failed",
            report,
            CALLS_MIN,
            "a client that starts meanwhile: it has no set to go on with",
        ),
        all_served_within(
            "kubernetes.away.pod_seen_after",
            &first_answers(stage.fleet.names(&[NEW]), events),
            returned,
            SEEN_LIMIT_S,
            "an API server that says Retry-After: 60 before it goes",
        ),
        bounded(
            "kubernetes.away.requests",
            "requests that reached the API server",
            requests,
            1..=REQUESTS_MAX,
            "a second client: it has a watch of its own",
        ),
    ];
    found
}
