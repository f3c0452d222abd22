//! What is done to an example's backends on a cluster, and what is checked of it. The checks are
//! those of one machine: the same functions over the same report of the same client.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::sleep;

use crate::{
    checks::{
        Life, all_served_within, drained_cleanly, each_served, even_shares, exact_turns,
        none_failed, only_left_serves_after, replaced, reports_add_up, restricted_refuses_only,
    },
    client::{Event, Finished, What, first},
    clock::unix_s,
    error::LabError,
    faults::Deleted,
    report::{Distribution, PhaseReport, timeline},
};

use super::{
    driver::Driver,
    istio, mesh,
    overlay::{Learns, Phase},
    pods::Backend,
    stage::{BALANCER, Stage, WRITE_LIMIT, address},
};

const STEADY: [&str; 4] = ["--count", "3300", "--rate", "300"];
const STEADY_CALLS_MIN: u64 = 3_000;
const STEADY_LIMIT: Duration = Duration::from_secs(120);
pub(super) const LOAD: [&str; 6] = ["--count", "0", "--rate", "200", "--slots", "100ms"];
pub(super) const CALLS_MIN: u64 = 1_000;
const SLOT_S: f64 = 0.1;
/// For the phase `zone`: two in each of three zones.
const PODS_IN_ZONES: u8 = 6;
/// Before and between the things that are done.
pub(super) const PAUSE: Duration = Duration::from_secs(2);
/// New pods whose timeline is told.
const TOLD_MAX: usize = 3;
const KILLED: &str = "terminationGracePeriodSeconds below drain delay + grace: SIGKILL ends the \
                      drain";
const NO_DRAIN: &str = "no preStop and GREETER_DRAIN_GRACE=1ms: calls in flight are lost";

/// Plays one phase.
///
/// # Errors
///
/// When something could not be done; a check that does not hold is a result. `None`: the cluster
/// has not what the phase is about.
pub(super) async fn play(stage: &Stage, phase: Phase) -> Result<Option<PhaseReport>, LabError> {
    stage.say(&format!("{}: {}", phase.name(), phase.what()));
    match phase {
        Phase::Steady => steady(stage).await.map(Some),
        Phase::Scale => scale(stage).await.map(Some),
        Phase::Rolling => rolling(stage).await.map(Some),
        Phase::Delete => {
            let client = loaded(stage, phase, 3).await?;
            let victims = vec![client.1[0].clone()];
            delete(stage, phase, client, victims).await.map(Some)
        }
        Phase::Zone => zone(stage).await,
        Phase::Balancers => balancers(stage).await.map(Some),
        Phase::Strangers => mesh::strangers(stage).await.map(Some),
        Phase::Fault => mesh::fault(stage).await.map(Some),
    }
}

pub(super) fn begin(phase: Phase, finished: &Finished, flags: &[&str]) -> PhaseReport {
    let report = PhaseReport::new(phase.name(), phase.what(), &finished.report);
    report.set(flags, &[])
}

async fn steady(stage: &Stage) -> Result<PhaseReport, LabError> {
    let lines = stage.original_lines().await?;
    let backends = stage.until_serving(3).await?;
    let counted = stage.overlay.learns == Learns::List;
    let before = if counted { Some(stage.quiet().await?) } else { None };
    let client = Driver::start(stage, "steady", &STEADY).await?;
    let finished = client.wait(STEADY_LIMIT).await?;
    let (ids, report) = (&stage.overlay.ids, &finished.report);
    let mut found = begin(Phase::Steady, &finished, &STEADY);
    found.lines = lines;
    found.distributions.push(Distribution::whole("all calls", report));
    let ips: Vec<String> = backends.into_iter().map(|of| of.ip).collect();
    let shares = match stage.overlay.learns.by_proxy() {
        true => exact_turns(
            ids.even_shares,
            report,
            &ips,
            STEADY_CALLS_MIN,
            "lb_policy LEAST_REQUEST, or --concurrency 4 and many clients",
        ),
        false => even_shares(
            ids.even_shares,
            report,
            &ips,
            STEADY_CALLS_MIN,
            "GREETER_LB_POLICY_NAME=pick_first: one backend gets all",
        ),
    };
    found.checks = vec![
        shares,
        none_failed(
            ids.steady_none_failed,
            report,
            STEADY_CALLS_MIN,
            "--timeout 100us: shorter than a call",
        ),
    ];
    if stage.overlay.learns == Learns::EnvoyByIstiod {
        let refused = istio::refused(stage).await?;
        let breaks = "a container without securityContext in kustomize/base";
        found.checks.push(restricted_refuses_only(ids.restricted, &refused, istio::INIT, breaks));
    }
    if let Some(before) = before {
        let started = report.attempts.as_ref().map_or(0, |attempts| attempts.started);
        let totals = stage.reported(&before, started).await?;
        found.figures.insert("client_stats_reports", totals.reports as f64);
        let breaks = "GRPCLB_CLIENT_STATS_INTERVAL=0s: nobody is asked to report";
        let id = ids.reports_add_up;
        found.checks.push(reports_add_up(id, report, &totals, STEADY_CALLS_MIN, breaks));
    }
    Ok(found)
}

/// A client, and the backends that it has found.
pub(super) type Loaded<'a> = (Driver<'a>, Vec<Backend>);

/// A client under load that has found all backends.
pub(super) async fn loaded(
    stage: &Stage,
    phase: Phase,
    pods: usize,
) -> Result<Loaded<'_>, LabError> {
    let backends = stage.until_serving(pods).await?;
    let client = Driver::start(stage, phase.name(), &LOAD).await?;
    client.until_ready(&backends).await?;
    sleep(PAUSE).await;
    Ok((client, backends))
}

/// Long enough for the newest pod to be found and to serve.
pub(super) fn settle(stage: &Stage) -> Duration {
    Duration::from_secs_f64(stage.overlay.limit_s) + PAUSE
}

async fn scale(stage: &Stage) -> Result<PhaseReport, LabError> {
    let (client, old) = loaded(stage, Phase::Scale, 3).await?;
    let began = unix_s() - PAUSE.as_secs_f64();
    stage.scale(1).await?;
    let left = stage.until_serving(1).await?;
    let one_left = unix_s();
    // So that there is something to look at after the last moment at which they may be called.
    sleep(settle(stage)).await;
    stage.scale(4).await?;
    let four = stage.until_serving(4).await?;
    let all_ready = unix_s();
    sleep(settle(stage)).await;
    let finished = client.stop().await?;
    stage.scale(3).await?;
    let end = finished.report.started_unix_s + finished.report.wall_s;
    let all = stage.backends()?;
    let removed: Vec<&Backend> = old
        .iter()
        .filter(|of| of.name != left[0].name)
        .filter_map(|of| all.get(&of.name))
        .collect();
    let unpublished = removed.iter().filter_map(|of| of.unpublished_unix_s);
    let unpublished = unpublished.fold(began, f64::max);
    let new: Vec<Backend> = four.into_iter().filter(|of| of.name != left[0].name).collect();
    let (report, events, ids) = (&finished.report, &finished.events, &stage.overlay.ids);
    let came = new.iter().filter_map(|of| of.published_unix_s).fold(f64::INFINITY, f64::min);
    let mut found = begin(Phase::Scale, &finished, &LOAD);
    let slots = &report.slots;
    let served = all_ready + stage.overlay.limit_s;
    found.distributions = vec![
        Distribution::between("3 pods", slots, SLOT_S, began, unpublished),
        Distribution::between("scaled to 1", slots, SLOT_S, one_left, came),
        Distribution::between("scaled to 4", slots, SLOT_S, served, end),
    ];
    tell(&mut found, stage, &new, events);
    let gone: Vec<String> = removed.iter().map(|of| of.ip.clone()).collect();
    let limit_s = stage.overlay.limit_s;
    found.checks = vec![
        none_failed(ids.scale_none_failed, report, CALLS_MIN, NO_DRAIN),
        only_left_serves_after(
            ids.on_the_left,
            report,
            &left[0].ip,
            &gone,
            (unpublished, came),
            limit_s,
            "a target of fixed addresses (ipv4:…): nobody says that pods are about to go",
        ),
        all_served_within(
            ids.to_4,
            &waits(&new, events),
            0.0,
            limit_s,
            match stage.overlay.learns.by_dns() {
                true => "a longer DNS TTL, such as `ttl 30` in CoreDNS's kubernetes plugin",
                false => "the overlay round-robin: the TTL comes first",
            },
        ),
    ];
    Ok(found)
}

/// For each backend how long after its publication it gave its first answer.
fn waits(new: &[Backend], events: &[Event]) -> Vec<(String, Option<f64>)> {
    let wait = |backend: &Backend| {
        let is_first =
            |what: &What| matches!(what, What::FirstCall { backend: of } if *of == backend.ip);
        let answered = first(events, 0.0, is_first);
        let wait = answered.zip(backend.published_unix_s).map(|(at, published)| at - published);
        (backend.ip.clone(), wait)
    };
    new.iter().map(wait).collect()
}

/// The timelines of new pods, and the longest start-up, which is the kubelet's and not ours.
fn tell(found: &mut PhaseReport, stage: &Stage, new: &[Backend], events: &[Event]) {
    let (by, why) = match stage.overlay.learns {
        Learns::Dns => ("resolver_update seen", "the rest of the TTL, CoreDNS's cache"),
        Learns::List => ("list from the balancer", "its watch, a snapshot, one message"),
        Learns::Slices => ("resolver_update seen", "the watch's next event"),
        // Its subchannel is the one to Envoy.
        Learns::EnvoyByDns => ("", "the rest of the TTL, CoreDNS's cache, and Envoy's turn"),
        Learns::EnvoyByXds => ("", "the balancer's watch, xDS, and Envoy's turn"),
        Learns::EnvoyByIstiod => ("", "istiod's watch and its wait for more, xDS, Envoy's turn"),
    };
    for backend in new.iter().take(TOLD_MAX) {
        found.timelines.push(timeline::on_cluster(backend, &address(backend), (by, why), events));
    }
    let startup = |of: &Backend| Some(of.ready_unix_s? - of.created_unix_s?);
    let longest = new.iter().filter_map(startup).fold(0.0, f64::max);
    found.figures.insert("pod_startup_s_max", longest);
}

async fn rolling(stage: &Stage) -> Result<PhaseReport, LabError> {
    let (client, old) = loaded(stage, Phase::Rolling, 3).await?;
    stage.restart(stage.overlay.server).await?;
    let new = stage.until_serving(3).await?;
    sleep(settle(stage)).await;
    let finished = client.stop().await?;
    let ids = &stage.overlay.ids;
    let mut found = begin(Phase::Rolling, &finished, &LOAD);
    let gone = ends(stage, &old)?;
    shares(&mut found, &finished);
    tell(&mut found, stage, &new, &finished.events);
    let end = finished.report.started_unix_s + finished.report.wall_s;
    let life = |of: &Backend| {
        let from = of.published_unix_s.unwrap_or(end) + stage.overlay.limit_s;
        Life { name: of.ip.clone(), from, until: end }
    };
    let lives: Vec<Life> = new.iter().map(life).collect();
    let (report, names) = (&finished.report, ips(&new));
    found.checks = vec![
        none_failed(ids.rolling_none_failed, report, CALLS_MIN, NO_DRAIN),
        drained_cleanly(ids.rolling_drained, &gone, KILLED),
        each_served(ids.rolling_each_served, report, SLOT_S, &lives, one_pod(stage)),
        replaced(ids.rolling_replaced, report, &gone, &names, one_pod(stage)),
    ];
    Ok(found)
}

/// All pods of one zone go at once, as when a zone is drained. Nodes are left alone: on somebody's
/// cluster other pods live on them.
async fn zone(stage: &Stage) -> Result<Option<PhaseReport>, LabError> {
    let zones = stage.zones().await;
    let distinct: BTreeSet<&String> = zones.values().collect();
    if distinct.len() < 2 {
        stage.say("zone: not run, for want of nodes in two zones");
        return Ok(None);
    }
    stage.scale(PODS_IN_ZONES).await?;
    let client = loaded(stage, Phase::Zone, usize::from(PODS_IN_ZONES)).await?;
    let zone_of = |pod: &Backend| zones.get(&pod.node).cloned();
    let lost = client.1.first().and_then(zone_of);
    let victims: Vec<Backend> =
        client.1.iter().filter(|pod| zone_of(pod) == lost).cloned().collect();
    stage.say(&format!("zone {} has {} pods", lost.unwrap_or_default(), victims.len()));
    let found = delete(stage, Phase::Zone, client, victims).await?;
    stage.scale(3).await?;
    Ok(Some(found))
}

/// Deletes `victims` at once, and waits until as many pods as before serve.
async fn delete(
    stage: &Stage,
    phase: Phase,
    (client, old): Loaded<'_>,
    victims: Vec<Backend>,
) -> Result<PhaseReport, LabError> {
    let names: Vec<&str> = victims.iter().map(|of| of.name.as_str()).collect();
    stage.say(&format!("kubectl delete pod {}", names.join(" ")));
    let args: Vec<&str> =
        ["delete", "pod", "--wait=false"].into_iter().chain(names.iter().copied()).collect();
    stage.kubectl(&args, WRITE_LIMIT).await?;
    // The watches may not have heard of it yet.
    sleep(PAUSE).await;
    let now = stage.until_serving(old.len()).await?;
    sleep(settle(stage)).await;
    let finished = client.stop().await?;
    let mut found = begin(phase, &finished, &LOAD);
    shares(&mut found, &finished);
    let new: Vec<Backend> =
        now.iter().filter(|of| old.iter().all(|old| old.name != of.name)).cloned().collect();
    tell(&mut found, stage, &new, &finished.events);
    let gone = ends(stage, &victims)?;
    let (report, ids) = (&finished.report, &stage.overlay.ids);
    let [failed, drained, replaced_id] = match phase {
        Phase::Zone => [ids.zone_none_failed, ids.zone_drained, ids.zone_replaced],
        _ => [ids.delete_none_failed, ids.delete_drained, ids.delete_replaced],
    };
    found.checks = vec![
        none_failed(failed, report, CALLS_MIN, NO_DRAIN),
        drained_cleanly(drained, &gone, KILLED),
        replaced(replaced_id, report, &gone, &ips(&now), one_pod(stage)),
    ];
    Ok(found)
}

async fn balancers(stage: &Stage) -> Result<PhaseReport, LabError> {
    let (client, _) = loaded(stage, Phase::Balancers, 3).await?;
    stage.restart(BALANCER).await?;
    sleep(settle(stage)).await;
    let finished = client.stop().await?;
    let mut found = begin(Phase::Balancers, &finished, &LOAD);
    shares(&mut found, &finished);
    let breaks = "--timeout 100us: shorter than a call";
    let id = stage.overlay.ids.balancers_none_failed;
    found.checks = vec![none_failed(id, &finished.report, CALLS_MIN, breaks)];
    Ok(found)
}

fn shares(found: &mut PhaseReport, finished: &Finished) {
    let report = &finished.report;
    let end = report.started_unix_s + report.wall_s;
    found.distributions = vec![
        Distribution::whole("all calls", report),
        Distribution::between("last second", &report.slots, SLOT_S, end - 1.0, end),
    ];
}

/// What would leave all calls on one pod.
fn one_pod(stage: &Stage) -> &'static str {
    match stage.overlay.learns {
        Learns::EnvoyByDns => "the name of the ClusterIP in the sidecar's configuration",
        Learns::EnvoyByXds => "GRPCLB_BACKENDS with one address instead of the watch",
        Learns::EnvoyByIstiod => "a headless Service: Istio's sidecars balance nothing then",
        _ => "GREETER_LB_POLICY_NAME=pick_first: one new pod serves, not all",
    }
}

fn ips(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(|of| of.ip.clone()).collect()
}

/// How each of `old` ended.
fn ends(stage: &Stage, old: &[Backend]) -> Result<Vec<(String, Deleted)>, LabError> {
    let all = stage.backends()?;
    let end = |of: &Backend| Some((of.ip.clone(), all.get(&of.name)?.deleted()));
    Ok(old.iter().filter_map(end).collect())
}
