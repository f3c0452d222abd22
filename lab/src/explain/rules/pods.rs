//! The Service's pods: whether it has any, whether they are ready, whether they became endpoints.

use std::collections::BTreeMap;

use crate::cluster::objects::{Pod, Workload};

use super::{Broken, Case, Holds, NotJudged, Verdict, Warns};

type Labels = BTreeMap<String, String>;

/// Pods that are named one by one.
const NAMED_MAX: usize = 3;

pub(super) fn selector(case: &Case<'_>) -> Vec<Verdict> {
    let wanted = &case.service.spec.selector;
    if wanted.is_empty() {
        return vec![NotJudged("it has no selector: somebody writes its endpoints".to_owned())];
    }
    let pods = case.view.backends(case.service);
    if !pods.is_empty() {
        return vec![Holds(format!("{} selects {} pods", shown(wanted), pods.len()))];
    }
    let servers = case.view.servers(case.service);
    if let Some(server) = servers.first() {
        return vec![Holds(format!("{} selects {}", shown(wanted), server.reference()))];
    }
    let all = case.view.pods.len();
    let seen = format!("{} selects none of the namespace's {all} pods", shown(wanted));
    vec![match nearest(case, wanted) {
        Some((who, labels)) => Broken(
            format!("{seen}; {who} has {}", shown(&alike(wanted, &labels))),
            case.command(&format!(
                "patch service {} --type=merge -p '{}'",
                case.view.name,
                patch(wanted, &labels)
            )),
        ),
        None => Broken(
            seen,
            format!(
                "set the labels of the pods (spec.template.metadata.labels) and the selector \
                 equal; `{}`",
                case.command("get pods --show-labels")
            ),
        ),
    }]
}

/// Who has labels most like the wanted ones: in key, and better in value.
fn nearest(case: &Case<'_>, wanted: &Labels) -> Option<(String, Labels)> {
    let clients: Vec<&str> = case.clients.iter().map(|of| of.reference.as_str()).collect();
    let workloads = case.view.workloads.iter().filter(|of| {
        of.metadata.namespace == case.view.namespace && !clients.contains(&of.reference().as_str())
    });
    let score = |of: &Workload| {
        let labels = &of.spec.template.metadata.labels;
        let one = |(key, value): (&String, &String)| match labels.get(key) {
            Some(other) if other == value => 4,
            // `greeter-server` for `greeter` is nearer than `shop`.
            Some(other) if other.contains(value.as_str()) || value.contains(other.as_str()) => 2,
            Some(_) => 1,
            None => 0,
        };
        let pairs: usize = wanted.iter().map(one).sum();
        // The workload with the Service's own name is meant more often than not.
        pairs * 2 + usize::from(of.metadata.name == case.view.name)
    };
    let best = workloads.max_by_key(|of| score(of)).filter(|of| score(of) > 0)?;
    Some((best.reference(), best.spec.template.metadata.labels.clone()))
}

/// Of `labels`, those that the selector has, or all if it has none of them.
fn alike(wanted: &Labels, labels: &Labels) -> Labels {
    let has = |(key, _): &(&String, &String)| wanted.contains_key(*key);
    let same: Labels =
        labels.iter().filter(has).map(|(key, value)| (key.clone(), value.clone())).collect();
    if same.is_empty() { labels.clone() } else { same }
}

/// A merge patch that gives the selector the values of `labels`; keys they lack go.
fn patch(wanted: &Labels, labels: &Labels) -> String {
    let one = |key: &String| (key.clone(), serde_json::json!(labels.get(key)));
    let mut pairs: serde_json::Map<_, _> = wanted.keys().map(one).collect();
    if pairs.values().all(serde_json::Value::is_null) {
        pairs.extend(labels.iter().map(|(key, value)| (key.clone(), value.clone().into())));
    }
    serde_json::json!({ "spec": { "selector": pairs } }).to_string()
}

fn shown(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

pub(super) fn ready(case: &Case<'_>) -> Vec<Verdict> {
    let pods = case.view.backends(case.service);
    // One that is being deleted has been ready.
    let pods: Vec<&&Pod> =
        pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    let not: Vec<&&&Pod> = pods.iter().filter(|pod| !pod.is_ready()).collect();
    let ready = pods.len() - not.len();
    if pods.is_empty() {
        return vec![NotJudged("there are no pods".to_owned())];
    }
    if not.is_empty() {
        return vec![Holds(format!("all {ready} pods are ready"))];
    }
    let told: Vec<String> = not.iter().take(NAMED_MAX).map(|pod| why_not(pod)).collect();
    let seen = format!("{} of {} pods are not ready: {}", not.len(), pods.len(), told.join("; "));
    let first = &not[0].metadata.name;
    let cure = format!(
        "its events and log say why: `{}`, `{}`; a probe must ask the port on which it serves",
        case.command(&format!("describe pod {first}")),
        case.command(&format!("logs {first} --all-containers"))
    );
    vec![if ready == 0 { Broken(seen, cure) } else { Warns(seen, cure) }]
}

fn why_not(pod: &Pod) -> String {
    let name = &pod.metadata.name;
    let containers = &pod.status.container_statuses;
    let waits = containers.iter().find_map(|of| Some((of, of.state.waiting.as_ref()?)));
    if let Some((container, waiting)) = waits {
        return format!("{name}: {} waits ({})", container.name, waiting.reason);
    }
    if let Some(container) = containers.iter().find(|of| !of.ready && of.state.running.is_some()) {
        return format!("{name}: {} runs, and its readiness probe fails", container.name);
    }
    let scheduled = pod.status.conditions.iter().find(|of| of.kind == "PodScheduled");
    match scheduled.filter(|of| of.status != "True").and_then(|of| of.message.clone()) {
        Some(message) => format!("{name}: not scheduled ({message})"),
        None => format!("{name}: phase {}", pod.status.phase),
    }
}

pub(super) fn endpoints(case: &Case<'_>) -> Vec<Verdict> {
    let (addresses, pods) = (case.view.ready_addresses(), case.view.backends(case.service));
    let ready = pods.iter().filter(|pod| pod.is_ready()).count();
    let servers = case.view.servers(case.service);
    vec![match (addresses.len(), ready) {
        (0, 0) if !pods.is_empty() => NotJudged("none, for want of a ready pod".to_owned()),
        (0, 0) => none(case, &servers),
        (0, ready) => Broken(
            format!(
                "no ready endpoint in {} EndpointSlices, and {ready} ready pods",
                case.view.slices.len()
            ),
            format!(
                "a named targetPort that no container declares, or a controller that does not \
                 run: `{}`",
                case.command(&format!(
                    "get endpointslices -l kubernetes.io/service-name={} -o yaml",
                    case.view.name
                ))
            ),
        ),
        (1, _) => Warns(
            format!("one ready endpoint, {}: there is nothing to balance", addresses[0]),
            match servers.first() {
                Some(server) => case.command(&format!("scale {} --replicas=3", server.reference())),
                None => "more pods".to_owned(),
            },
        ),
        (many, _) => Holds(format!("{many} ready: {}", addresses.join(", "))),
    }]
}

/// Nothing there: because nobody is to be there, or because nobody could be made.
fn none(case: &Case<'_>, servers: &[&Workload]) -> Verdict {
    let Some(server) = servers.first() else {
        return if case.service.spec.selector.is_empty() {
            Broken(
                "no endpoints, and no selector that would find some".to_owned(),
                "give the Service a selector, or write its EndpointSlices".to_owned(),
            )
        } else {
            NotJudged("none, for want of a pod that is selected".to_owned())
        };
    };
    let reference = server.reference();
    if server.spec.replicas == Some(0) {
        return Broken(
            format!("no endpoints: {reference} has 0 replicas"),
            case.command(&format!("scale {reference} --replicas=3")),
        );
    }
    Broken(
        format!("no endpoints: {reference} has no pods"),
        format!(
            "a quota, an admission webhook or a missing ServiceAccount: `{}`",
            case.command("get events --field-selector type=Warning")
        ),
    )
}
