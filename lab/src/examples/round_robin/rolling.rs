//! New versions roll out, one pod after the other: every second one comes back on its address, as a
//! StatefulSet's does, and the others on an address that was free.
//!
//! There is no surge pod and `minReadySeconds` is 3, so the client sees two of three most of the
//! time; it must find each new pod by itself before the last old one goes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;

use super::phase;
use crate::{
    checks::{Life, drained_cleanly, each_served, none_failed, replaced},
    client::Finished,
    clock::unix_s,
    dns::TTL_S,
    error::LabError,
    faults::Deleted,
    report::{Distribution, PhaseReport, timeline::scale_up},
    run::Run,
    stage::Stage,
};

const PODS: [u8; 3] = [1, 2, 3];
const FREE: [u8; 3] = [4, 5, 6];
/// A restart takes 3.5 s at least.
const CALLS_MIN_EACH: u64 = 3_000;
const SLOT_S: f64 = 0.1;
const MIN_READY: Duration = Duration::from_secs(3);
/// Until the newest pod is found even if nothing but the TTL makes the client look, and a second
/// more in which all three serve.
const LAST_LOOK: Duration = Duration::from_secs(TTL_S as u64 + 2);
/// Restarts whose timeline is told.
const TOLD_MAX: usize = 3;
const ENV: [(&str, &str); 1] = [("GREETER_DRAIN_DELAY", "500ms")];
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "1000", "--slots", "100ms"];

/// One replacement.
struct Restart {
    old: u8,
    deleting: f64,
    deleted: Deleted,
    new: u8,
    ready: f64,
    published: f64,
}

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let restarts = run.restarts();
    let mut stage = Stage::open(run, &name, &ENV).await?;
    stage.scale_up(&PODS).await?;
    let client = stage.connected_client(&PODS, &FLAGS).await?;
    sleep(Duration::from_secs(1)).await;
    let (mut running, mut free) = (VecDeque::from(PODS), VecDeque::from(FREE));
    let mut done = Vec::new();
    for number in 1..=restarts {
        let old = running.pop_front().expect("three run");
        let new = if number % 2 == 0 {
            old
        } else {
            free.push_back(old);
            free.pop_front().expect("one was put there")
        };
        stage.say(&format!("restart {number} of {restarts}: replacing {old} by {new}"));
        let deleting = unix_s();
        let deleted = stage.delete(&[old]).await?[0];
        let published = stage.scale_up(&[new]).await?;
        let ready = stage.fleet.ready_unix_s(new);
        done.push(Restart { old, deleting, deleted, new, ready, published });
        running.push_back(new);
        sleep(MIN_READY).await;
    }
    sleep(LAST_LOOK).await;
    let finished = client.stop().await?;
    stage.fleet.all_alive()?;
    Ok(report(&stage, &finished, &done, running.make_contiguous()))
}

fn report(stage: &Stage, finished: &Finished, done: &[Restart], running: &[u8]) -> PhaseReport {
    let (phase, report) = (phase("rolling"), &finished.report);
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &ENV);
    let end = report.started_unix_s + report.wall_s;
    found.figures.insert("restarts", done.len() as f64);
    found.distributions = vec![
        Distribution::whole("all calls", report),
        Distribution::between("last second", &report.slots, SLOT_S, end - 1.0, end),
    ];
    // The client tells of an address's first call only once.
    let told = done.iter().filter(|restart| FREE.contains(&restart.new)).take(TOLD_MAX);
    for Restart { new, ready, published, .. } in told {
        let address = stage.fleet.address(*new).to_string();
        let why = "as soon as it is ready";
        let events = &finished.events;
        found.timelines.push(scale_up(&address, *ready, *published, why, &stage.dns, events));
    }
    let name = |host: &u8| stage.fleet.names(&[*host]).concat();
    let deleted: Vec<(String, Deleted)> =
        done.iter().map(|restart| (name(&restart.old), restart.deleted)).collect();
    // An address may serve again: its last end counts, and none while it runs.
    let ends = done.iter().filter(|restart| !running.contains(&restart.old));
    let ends: BTreeMap<u8, Deleted> = ends.map(|restart| (restart.old, restart.deleted)).collect();
    let gone: Vec<_> = ends.iter().map(|(host, deleted)| (name(host), *deleted)).collect();
    let lives: Vec<Life> = done
        .iter()
        .enumerate()
        .map(|(at, restart)| {
            let next = done[at + 1..].iter().find(|later| later.old == restart.new);
            let until = next.map_or(end, |later| later.deleting);
            Life { name: name(&restart.new), from: restart.published, until }
        })
        .collect();
    let pick_first = "--lb-policy pick_first: one new pod serves, not three";
    found.checks = vec![
        none_failed(
            "round-robin.rolling.none_failed",
            report,
            CALLS_MIN_EACH * done.len() as u64,
            "GREETER_DRAIN_GRACE=1ms with GREETER_DELAY=50ms, or kill -9 instead of SIGTERM",
        ),
        drained_cleanly(
            "round-robin.rolling.drained",
            &deleted,
            "terminationGracePeriodSeconds below drain delay + grace: SIGKILL ends the drain",
        ),
        each_served("round-robin.rolling.each_served", report, SLOT_S, &lives, pick_first),
        replaced(
            "round-robin.rolling.replaced",
            report,
            &gone,
            &stage.fleet.names(running),
            pick_first,
        ),
    ];
    found
}
