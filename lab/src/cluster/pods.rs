//! What became of each backend, folded from two watches: pods say how a pod came up and ended,
//! slices when clients could know of it.

use std::collections::BTreeMap;

use crate::faults::Deleted;

use super::{
    istio,
    objects::{Pod, Slice},
    time,
    watch::Change,
};

/// A pod from its creation to its end, as far as it went. Times that this machine heard are exact;
/// those from the object are whole seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) ip: String,
    pub(crate) node: String,
    /// By the API server's clock, whole seconds.
    pub(crate) created_unix_s: Option<f64>,
    /// Likewise: it has a node.
    pub(crate) scheduled_unix_s: Option<f64>,
    /// Likewise: its container runs.
    pub(crate) started_unix_s: Option<f64>,
    pub(crate) ready_unix_s: Option<f64>,
    /// A slice called it ready.
    pub(crate) published_unix_s: Option<f64>,
    /// No slice calls it ready any more.
    pub(crate) unpublished_unix_s: Option<f64>,
    pub(crate) deleting_unix_s: Option<f64>,
    /// Its container's status, when that had ended before the pod was gone.
    pub(crate) exit: Option<i32>,
    pub(crate) gone_unix_s: Option<f64>,
}

impl Backend {
    /// Whether it is ready, published, and nobody has deleted it.
    pub(crate) fn serves(&self) -> bool {
        self.ready_unix_s.is_some()
            && self.published_unix_s.is_some()
            && self.deleting_unix_s.is_none()
    }

    /// Its end, for the checks; one that was not seen to end with 0 was not clean.
    pub(crate) fn deleted(&self) -> Deleted {
        let gone_unix_s = self.gone_unix_s.unwrap_or(f64::INFINITY);
        Deleted { gone_unix_s, clean: self.exit == Some(0) }
    }
}

/// The backends by name.
pub(super) fn fold(pods: &[Change<Pod>], slices: &[Change<Slice>]) -> BTreeMap<String, Backend> {
    let mut backends: BTreeMap<String, Backend> = BTreeMap::new();
    for change in pods {
        let pod = &change.object;
        let backend = backends.entry(pod.metadata.name.clone()).or_default();
        note(backend, change);
    }
    for backend in backends.values_mut() {
        for change in slices {
            publication(backend, change);
        }
    }
    backends
}

fn note(backend: &mut Backend, Change { at, deleted, object: pod }: &Change<Pod>) {
    backend.name.clone_from(&pod.metadata.name);
    if let Some(ip) = &pod.status.pod_ip {
        backend.ip.clone_from(ip);
    }
    if let Some(node) = &pod.spec.node_name {
        backend.node.clone_from(node);
    }
    let created = pod.metadata.creation_timestamp.as_deref();
    backend.created_unix_s = backend.created_unix_s.or_else(|| time::unix_s(created?));
    let scheduled = || {
        let of = |of: &&super::objects::Condition| of.kind == "PodScheduled" && of.status == "True";
        time::unix_s(pod.status.conditions.iter().find(of)?.last_transition_time.as_deref()?)
    };
    backend.scheduled_unix_s = backend.scheduled_unix_s.or_else(scheduled);
    // A sidecar of Istio's that is no init container ends after the application, in its own way.
    let own = pod.status.container_statuses.iter().filter(|of| of.name != istio::SIDECAR);
    for container in own {
        let started = container.state.running.as_ref();
        backend.started_unix_s =
            backend.started_unix_s.or_else(|| time::unix_s(&started?.started_at));
        if let Some(ended) = &container.state.terminated {
            backend.exit = Some(ended.exit_code);
        }
    }
    if pod.is_ready() {
        backend.ready_unix_s.get_or_insert(*at);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        backend.deleting_unix_s.get_or_insert(*at);
    }
    if *deleted {
        backend.deleting_unix_s.get_or_insert(*at);
        backend.gone_unix_s.get_or_insert(*at);
    }
}

fn publication(backend: &mut Backend, change: &Change<Slice>) {
    let endpoints = || change.object.endpoints.iter().flatten();
    let ready = endpoints()
        .any(|of| of.conditions.ready != Some(false) && of.addresses.first() == Some(&backend.ip));
    if ready && !change.deleted {
        backend.published_unix_s.get_or_insert(change.at);
        backend.unpublished_unix_s = None;
    } else if backend.published_unix_s.is_some() {
        backend.unpublished_unix_s.get_or_insert(change.at);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change<T: serde::de::DeserializeOwned>(at: f64, object: serde_json::Value) -> Change<T> {
        let object = serde_json::from_value(object).expect("an object of its kind");
        Change { at, deleted: false, object }
    }

    fn pod(ready: bool, deleting: bool, state: serde_json::Value) -> serde_json::Value {
        let deletion = deleting.then_some("2026-11-30T01:00:30Z");
        json!({
            "metadata": {
                "name": "a", "creationTimestamp": "2026-11-30T01:00:00Z",
                "deletionTimestamp": deletion
            },
            "spec": { "nodeName": "node-1" },
            "status": {
                "podIP": "10.0.0.1",
                "conditions": [
                    { "type": "Ready", "status": if ready { "True" } else { "False" } },
                    {
                        "type": "PodScheduled", "status": "True",
                        "lastTransitionTime": "2026-11-30T01:00:01Z"
                    }
                ],
                "containerStatuses": [{ "name": "c", "state": state }]
            }
        })
    }

    #[test]
    fn a_pods_life_is_told_by_its_own_times_and_by_what_was_heard() {
        let running = json!({ "running": { "startedAt": "2026-11-30T01:00:03Z" } });
        let ended = json!({ "terminated": { "exitCode": 0 } });
        let mut pods: Vec<Change<Pod>> = vec![
            change(104.0, pod(false, false, running.clone())),
            change(105.5, pod(true, false, running)),
            change(130.0, pod(true, true, json!({}))),
            change(137.0, pod(false, true, ended)),
        ];
        pods.push(Change { at: 138.0, deleted: true, object: pods[3].object.clone() });
        let slice = |ready: bool| {
            json!({ "endpoints": [
                { "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }
            ] })
        };
        let slices = [
            change(105.0, slice(false)),
            change(105.6, slice(true)),
            change(130.1, slice(false)),
            change(138.1, json!({ "endpoints": null })),
        ];
        let backend = fold(&pods, &slices).remove("a").expect("one pod");
        let zero = time::unix_s("2026-11-30T01:00:00Z").expect("a time");
        assert_eq!(backend.created_unix_s, Some(zero));
        assert_eq!(backend.scheduled_unix_s, Some(zero + 1.0));
        assert_eq!(backend.started_unix_s, Some(zero + 3.0));
        assert_eq!((backend.ready_unix_s, backend.published_unix_s), (Some(105.5), Some(105.6)));
        assert_eq!(backend.unpublished_unix_s, Some(130.1));
        assert_eq!((backend.deleting_unix_s, backend.gone_unix_s), (Some(130.0), Some(138.0)));
        assert!(backend.deleted().clean && !backend.serves());
    }

    #[test]
    fn a_pod_that_was_not_seen_to_end_did_not_drain() {
        let running = json!({ "running": { "startedAt": "2026-11-30T01:00:03Z" } });
        let pods = [change::<Pod>(105.5, pod(true, false, running))];
        let backend = fold(&pods, &[]).remove("a").expect("one pod");
        assert!(!backend.deleted().clean);
        assert!(!backend.serves(), "no slice has named it");
    }
}
