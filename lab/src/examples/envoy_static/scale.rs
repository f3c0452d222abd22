//! Pods come and go: Envoy finds new ones at the end of the TTL, and asks each for its health
//! before it gets a call.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    phase,
    scene::{CLUSTER, Scene},
};
use crate::{
    checks::{all_served_within, none_failed, only_left_serves},
    client::{Client, Finished, What, first},
    clock::unix_s,
    dns::TTL_S,
    error::LabError,
    report::{
        Distribution, PhaseReport,
        timeline::{Proxied, scale_up_by_envoy},
    },
    run::Run,
};

const OLD: [u8; 3] = [1, 2, 3];
const LEFT: u8 = 1;
const REMOVED: [u8; 2] = [2, 3];
const NEW: [u8; 3] = [4, 5, 6];
const CALLS_MIN: u64 = 1_000;
const SLOT_S: f64 = 0.1;
const LIMIT_S: f64 = TTL_S as f64 + 1.0;
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "200", "--slots", "100ms"];

const HELD_BACK: &str = "the lab, until Envoy has just asked: a whole TTL lies ahead";

/// The moments between which the parts of this phase lie.
struct Moments {
    began: f64,
    deleted: f64,
    gone: f64,
    published: f64,
    /// In Envoy's list, by its gauge.
    listed: Option<f64>,
    /// All have passed their first health check, by its gauge.
    healthy: Option<f64>,
    all_serve: f64,
}

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let mut scene = Scene::open(run, &name, &[], &OLD).await?;
    let client = scene.stage.connected_client(&OLD, &FLAGS).await?;
    let began = unix_s();
    sleep(Duration::from_secs(2)).await;

    scene.stage.say("scaling to 1");
    let deleted = unix_s();
    scene.stage.delete(&REMOVED).await?;
    let gone = unix_s();
    sleep(Duration::from_secs(2)).await;

    scene.stage.say("scaling to 4");
    let published = publish_at_the_worst_moment(&mut scene).await?;
    let limit = Duration::from_secs_f64(LIMIT_S + 2.0);
    let gauge = |end: &str| format!("{CLUSTER}.membership_{end}");
    let listed = scene.envoy.until(&gauge("total"), |endpoints| endpoints == 4, limit).await?;
    let healthy = scene.envoy.until(&gauge("healthy"), |endpoints| endpoints == 4, limit).await?;
    wait_for_first_calls(&scene, &client).await?;
    let all_serve = unix_s();
    sleep(Duration::from_secs(2)).await;

    let finished = client.stop().await?;
    scene.all_alive()?;
    let retries = scene.count("upstream_rq_retry").await?;
    let moments = Moments { began, deleted, gone, published, listed, healthy, all_serve };
    let mut found = report(&scene, &finished, &moments);
    found.figures.insert("envoy_retries", retries);
    Ok(found)
}

/// Starts the new pods and publishes them right after Envoy has asked DNS, so that it has the whole
/// TTL before it. Anything else would let luck shorten the figure.
async fn publish_at_the_worst_moment(scene: &mut Scene) -> Result<f64, LabError> {
    scene.stage.fleet.start(&NEW).await?;
    let limit = Duration::from_secs(u64::from(TTL_S) + 2);
    match scene.stage.dns.next_question(limit).await {
        Some(_) => scene.stage.say("Envoy has just asked DNS; publishing 3 new pods now"),
        None => scene.stage.say("Envoy did not ask DNS for 7 s; publishing 3 new pods"),
    }
    // The question was noted when it came; its answer is the old one for sure a moment later.
    sleep(Duration::from_millis(100)).await;
    Ok(scene.stage.publish(&NEW).await)
}

async fn wait_for_first_calls(scene: &Scene, client: &Client) -> Result<(), LabError> {
    let names = scene.stage.fleet.names(&NEW);
    let limit = Duration::from_secs(4);
    let called = |events: &[_]| names.iter().all(|name| first_call(events, name).is_some());
    let all = client.until(limit, called).await?;
    scene.stage.say(if all { "all four serve" } else { "not all four serve yet; going on" });
    Ok(())
}

fn first_call(events: &[crate::client::Event], name: &str) -> Option<f64> {
    first(events, 0.0, |what| matches!(what, What::FirstCall { backend } if backend == name))
}

fn report(scene: &Scene, finished: &Finished, at: &Moments) -> PhaseReport {
    let (phase, report, events) = (phase("scale"), &finished.report, &finished.events);
    let (stage, fleet) = (&scene.stage, &scene.stage.fleet);
    let mut found = PhaseReport::new(phase.name, phase.what, report);
    found = found.set(&stage.with_policy(&FLAGS), &[]);
    let slots = &report.slots;
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::between("3 backends", slots, SLOT_S, at.began, at.deleted),
        Distribution::between("scaled to 1", slots, SLOT_S, at.gone + 0.25, at.published),
        Distribution::between("scaled to 4", slots, SLOT_S, at.all_serve, end),
    ];
    for (host, address) in NEW.iter().zip(fleet.addresses(&NEW)) {
        let pod = Proxied {
            ready_unix_s: fleet.ready_unix_s(*host),
            published_unix_s: at.published,
            listed_unix_s: at.listed,
            healthy_unix_s: at.healthy,
        };
        found.timelines.push(scale_up_by_envoy(&address, &pod, HELD_BACK, &stage.dns, events));
    }
    let first_answers: Vec<_> = fleet
        .names(&NEW)
        .into_iter()
        .map(|name| (name.clone(), first_call(events, &name)))
        .collect();
    found.checks = vec![
        none_failed(
            "envoy-static.scale.none_failed",
            report,
            CALLS_MIN,
            "no retry_policy: Envoy calls deleted pods until DNS is asked again",
        ),
        only_left_serves(
            "envoy-static.scale.to_1_all_on_the_left",
            report,
            &fleet.names(&[LEFT]).concat(),
            &fleet.names(&REMOVED),
            at.deleted,
            at.published,
            "GREETER_DRAIN_DELAY=3s: the pods are out of DNS and still serve",
        ),
        all_served_within(
            "envoy-static.scale.to_4_within_ttl",
            &first_answers,
            at.published,
            LIMIT_S,
            "respect_dns_ttl: false and dns_refresh_rate: 30s",
        ),
        scene.nothing_deprecated("envoy-static.scale.nothing_deprecated"),
    ];
    found
}
