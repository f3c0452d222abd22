//! Pods come and go: Envoy learns of new ones from whoever tells it, and the client sees nothing
//! but other names in the answers.

use std::time::Duration;

use tokio::time::sleep;

use super::{BACKENDS, EnvoyIds, Sidecar};
use crate::{
    checks::{all_served_within, none_failed, only_left_serves_after},
    client::{Client, Event, Finished, What, first},
    clock::unix_s,
    dns::TTL_S,
    envoy::Stats,
    error::LabError,
    examples::{Phase, told::ISTIOD_LIMIT_S},
    report::{
        Distribution, PhaseReport, Timeline,
        timeline::{Proxied, scale_up_by_dns_and_envoy, scale_up_by_xds},
    },
};

const LEFT: u8 = 1;
const REMOVED: [u8; 2] = [2, 3];
const NEW: [u8; 3] = [4, 5, 6];
const CALLS_MIN: u64 = 1_000;
const SLOT_S: f64 = 0.1;
const FLAGS: [&str; 6] = ["--count", "0", "--rate", "200", "--slots", "100ms"];

const HELD_BACK: &str = "the lab, until Envoy has just asked: a whole TTL lies ahead";

/// Who tells Envoy of endpoints.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::examples) enum Source {
    /// Envoy asks DNS when the TTL is over.
    Dns,
    /// A balancer tells it, as soon as the slice changes.
    Xds,
    /// A control plane tells it that follows files, and waits for more changes before it tells.
    Files,
}

/// What the checks of one example are called.
pub(in crate::examples) struct Ids {
    pub(in crate::examples) none_failed: &'static str,
    pub(in crate::examples) all_on_the_left: &'static str,
    pub(in crate::examples) to_4_in_time: &'static str,
    pub(in crate::examples) envoy: EnvoyIds,
    /// What breaks the third.
    pub(in crate::examples) late: &'static str,
}

/// The moments between which the parts of this phase lie.
struct Moments {
    began: f64,
    deleted: f64,
    gone: f64,
    published: f64,
    /// In Envoy's list, by its gauge.
    listed: Option<f64>,
    /// All of them healthy, by its gauge.
    healthy: Option<f64>,
    all_serve: f64,
}

impl Source {
    /// How soon after its publication a new pod has to answer.
    fn limit_s(self) -> f64 {
        match self {
            Self::Dns => f64::from(TTL_S) + 1.0,
            Self::Xds => 1.0,
            Self::Files => ISTIOD_LIMIT_S,
        }
    }

    /// What would leave calls on pods that are gone.
    fn lingering(self) -> &'static str {
        match self {
            Self::Dns | Self::Xds => {
                "GREETER_DRAIN_DELAY=3s: the pods still serve whoever calls them"
            }
            Self::Files => "kill -9 of istiod before: nobody says that pods are about to go",
        }
    }

    /// How long after a deletion pods may still be called: until Envoy has heard of it. A drain
    /// takes milliseconds, or as long as the pods wait for those who have not heard.
    fn settled_s(self) -> f64 {
        match self {
            Self::Dns | Self::Xds => 1.0,
            Self::Files => ISTIOD_LIMIT_S,
        }
    }
}

/// Plays it on a sidecar with [`BACKENDS`].
pub(in crate::examples) async fn play(
    sidecar: &mut Sidecar,
    source: Source,
    phase: &Phase,
    ids: Ids,
) -> Result<PhaseReport, LabError> {
    let client = sidecar.stage.connected_client(&BACKENDS, &FLAGS).await?;
    let began = unix_s();
    sleep(Duration::from_secs(2)).await;

    sidecar.stage.say("scaling to 1");
    let deleted = unix_s();
    sidecar.stage.delete(&REMOVED).await?;
    let gone = unix_s();
    // So that there is something to look at after the last moment at which they may be called.
    sleep(Duration::from_secs_f64(source.settled_s() + 1.0)).await;

    sidecar.stage.say("scaling to 4");
    sidecar.stage.fleet.start(&NEW).await?;
    if source == Source::Dns {
        wait_for_the_worst_moment(sidecar).await;
    }
    let published = sidecar.stage.publish(&NEW).await;
    let limit = Duration::from_secs_f64(source.limit_s() + 2.0);
    let four = |name: &'static str| {
        let sidecar = &*sidecar;
        let wanted = move |stats: &Stats| sidecar.value(stats, name) == 4;
        sidecar.envoy.until("membership", wanted, limit)
    };
    let listed = four("membership_total").await?;
    let healthy = four("membership_healthy").await?;
    wait_for_first_calls(sidecar, &client).await?;
    let all_serve = unix_s();
    sleep(Duration::from_secs(2)).await;

    let finished = client.stop().await?;
    sidecar.all_alive()?;
    let retries = sidecar.value(&sidecar.envoy.stats().await?, "upstream_rq_retry");
    let at = Moments { began, deleted, gone, published, listed, healthy, all_serve };
    let mut found = PhaseReport::new(phase.name, phase.what, &finished.report);
    found = found.set(&sidecar.stage.with_policy(&FLAGS), &[]);
    found.figures.insert("envoy_retries", retries as f64);
    found.timelines = timelines(sidecar, source, &finished.events, &at);
    judge(&mut found, sidecar, &finished, &at, (&ids, source));
    found.checks.extend(sidecar.envoy_checks(ids.envoy).await?);
    Ok(found)
}

/// Waits until Envoy has just asked DNS, so that it has the whole TTL before it. Anything else
/// would let luck shorten the figure.
async fn wait_for_the_worst_moment(sidecar: &Sidecar) {
    let limit = Duration::from_secs(u64::from(TTL_S) + 2);
    match sidecar.stage.dns.next_question(limit).await {
        Some(_) => sidecar.stage.say("Envoy has just asked DNS; publishing 3 new pods now"),
        None => sidecar.stage.say("Envoy did not ask DNS for 7 s; publishing 3 new pods"),
    }
    // The question was noted when it came; a moment later its answer is the old one for sure.
    sleep(Duration::from_millis(100)).await;
}

async fn wait_for_first_calls(sidecar: &Sidecar, client: &Client) -> Result<(), LabError> {
    let names = sidecar.stage.fleet.names(&NEW);
    let called = |events: &[Event]| names.iter().all(|name| first_call(events, name).is_some());
    let all = client.until(Duration::from_secs(4), called).await?;
    sidecar.stage.say(if all { "all four serve" } else { "not all four serve yet; going on" });
    Ok(())
}

/// When `backend` answered for the first time.
fn first_call(events: &[Event], backend: &str) -> Option<f64> {
    first(events, 0.0, |what| matches!(what, What::FirstCall { backend: name } if name == backend))
}

fn timelines(sidecar: &Sidecar, source: Source, events: &[Event], at: &Moments) -> Vec<Timeline> {
    let (stage, fleet) = (&sidecar.stage, &sidecar.stage.fleet);
    let of = |(host, address): (&u8, String)| {
        let pod = Proxied {
            ready_unix_s: fleet.ready_unix_s(*host),
            published_unix_s: at.published,
            listed_unix_s: at.listed,
            healthy_unix_s: at.healthy,
        };
        match source {
            Source::Dns => scale_up_by_dns_and_envoy(&address, &pod, HELD_BACK, &stage.dns, events),
            Source::Xds | Source::Files => scale_up_by_xds(&address, &pod, events),
        }
    };
    NEW.iter().zip(fleet.addresses(&NEW)).map(of).collect()
}

fn judge(
    found: &mut PhaseReport,
    sidecar: &Sidecar,
    finished: &Finished,
    at: &Moments,
    (ids, source): (&Ids, Source),
) {
    let (report, fleet) = (&finished.report, &sidecar.stage.fleet);
    let slots = &report.slots;
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::between("3 backends", slots, SLOT_S, at.began, at.deleted),
        Distribution::between("scaled to 1", slots, SLOT_S, at.gone + 0.25, at.published),
        Distribution::between("scaled to 4", slots, SLOT_S, at.all_serve, end),
    ];
    let names = fleet.names(&NEW).into_iter();
    let first_answers: Vec<_> =
        names.map(|name| (name.clone(), first_call(&finished.events, &name))).collect();
    found.checks = vec![
        none_failed(
            ids.none_failed,
            report,
            CALLS_MIN,
            "no retries, with pods that end before Envoy knows of it",
        ),
        only_left_serves_after(
            ids.all_on_the_left,
            report,
            &fleet.names(&[LEFT]).concat(),
            &fleet.names(&REMOVED),
            (at.deleted, at.published),
            source.settled_s(),
            source.lingering(),
        ),
        all_served_within(
            ids.to_4_in_time,
            &first_answers,
            at.published,
            source.limit_s(),
            ids.late,
        ),
    ];
}
