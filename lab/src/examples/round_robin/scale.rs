//! Pods come and go, and nothing forces a reconnect: only the client's own look at DNS, at the end
//! of the TTL, can find a new pod.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::phase;
use crate::{
    checks::{all_served_within, none_failed, only_left_serves},
    client::{Client, Finished, What, first},
    clock::unix_s,
    dns::TTL_S,
    error::LabError,
    report::{Distribution, PhaseReport, timeline::scale_up},
    run::Run,
    stage::Stage,
};

const OLD: [u8; 3] = [1, 2, 3];
const LEFT: u8 = 1;
const REMOVED: [u8; 2] = [2, 3];
// New pods have new addresses.
const NEW: [u8; 3] = [4, 5, 6];
const CALLS_MIN: u64 = 1_000;
const SLOT_S: f64 = 0.1;
const LIMIT_S: f64 = TTL_S as f64 + 1.0;
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "200", "--slots", "100ms"];

const HELD_BACK: &str = "the lab, until the client has just asked: a whole TTL lies ahead";

/// The moments between which the parts of this phase lie.
struct Moments {
    began: f64,
    deleted: f64,
    gone: f64,
    published: f64,
    all_serve: f64,
}

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open(run, &name, &[]).await?;
    stage.scale_up(&OLD).await?;
    let client = stage.connected_client(&OLD, &FLAGS).await?;
    let began = unix_s();
    sleep(Duration::from_secs(2)).await;

    stage.say("scaling to 1");
    let deleted = unix_s();
    stage.delete(&REMOVED).await?;
    let gone = unix_s();
    sleep(Duration::from_secs(2)).await;

    stage.say("scaling to 4");
    let published = publish_at_the_worst_moment(&mut stage).await?;
    wait_for_first_calls(&stage, &client).await?;
    let all_serve = unix_s();
    sleep(Duration::from_secs(2)).await;

    let finished = client.stop().await?;
    stage.fleet.all_alive()?;
    let moments = Moments { began, deleted, gone, published, all_serve };
    Ok(report(&stage, &finished, &moments))
}

/// Starts the new pods and publishes them right after the client has asked DNS, so that it has the
/// whole TTL before it. Anything else would let luck shorten the figure.
async fn publish_at_the_worst_moment(stage: &mut Stage) -> Result<f64, LabError> {
    stage.fleet.start(&NEW).await?;
    let limit = Duration::from_secs(u64::from(TTL_S) + 2);
    match stage.dns.next_question(limit).await {
        Some(_) => stage.say("the client has just asked DNS; publishing 3 new pods now"),
        None => stage.say("the client did not ask DNS for 7 s; publishing 3 new pods"),
    }
    Ok(stage.publish(&NEW).await)
}

async fn wait_for_first_calls(stage: &Stage, client: &Client) -> Result<(), LabError> {
    let names = stage.fleet.names(&NEW);
    let limit = Duration::from_secs_f64(LIMIT_S + 4.0);
    let all = client
        .until(limit, |events| {
            let called = |name: &String| {
                first(
                    events,
                    0.0,
                    |what| matches!(what, What::FirstCall { backend } if backend == name),
                )
            };
            names.iter().all(|name| called(name).is_some())
        })
        .await?;
    stage.say(if all { "all four serve" } else { "not all four serve after 10 s" });
    Ok(())
}

fn report(stage: &Stage, finished: &Finished, at: &Moments) -> PhaseReport {
    let (phase, report, events) = (phase("scale"), &finished.report, &finished.events);
    let mut found = PhaseReport::new(phase.name, phase.what, report).set(&FLAGS, &[]);
    let slots = &report.slots;
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::between("3 backends", slots, SLOT_S, at.began, at.deleted),
        Distribution::between("scaled to 1", slots, SLOT_S, at.gone + 0.25, at.published),
        Distribution::between("scaled to 4", slots, SLOT_S, at.all_serve, end),
    ];
    for (host, address) in NEW.iter().zip(stage.fleet.addresses(&NEW)) {
        let ready = stage.fleet.ready_unix_s(*host);
        found.timelines.push(scale_up(
            &address,
            ready,
            at.published,
            HELD_BACK,
            &stage.dns,
            events,
        ));
    }
    let four = stage.fleet.names(&[LEFT, NEW[0], NEW[1], NEW[2]]);
    let first_answers: Vec<(String, Option<f64>)> = four
        .into_iter()
        .map(|name| {
            let is_first =
                |what: &What| matches!(what, What::FirstCall { backend } if *backend == name);
            let at = first(events, 0.0, is_first);
            (name, at)
        })
        .collect();
    let removed = stage.fleet.names(&REMOVED);
    let left = stage.fleet.names(&[LEFT]).concat();
    found.checks = vec![
        none_failed(
            "round-robin.scale.none_failed",
            report,
            CALLS_MIN,
            "kill -9 instead of SIGTERM, with GREETER_DELAY=20ms: calls in flight are lost",
        ),
        only_left_serves(
            "round-robin.scale.to_1_all_on_the_left",
            report,
            &left,
            &removed,
            at.deleted,
            at.published,
            "GREETER_DRAIN_DELAY=3s: the pods are out of DNS and still serve",
        ),
        all_served_within(
            "round-robin.scale.to_4_within_ttl",
            &first_answers,
            at.published,
            LIMIT_S,
            "a longer DNS TTL, such as `ttl 30` in CoreDNS's kubernetes plugin",
        ),
    ];
    found
}
