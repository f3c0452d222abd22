//! What Istio adds to a cluster, as far as the lab looks at it: whether istiod is there, the
//! sidecars that its injector puts into pods, what a restricted namespace would say to those, and
//! what an Envoy in one counts. `istioctl` could tell some of it, but nobody needs that to use a
//! mesh.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{envoy::Stats, error::LabError, report::ExampleReport};

use super::{
    kubectl::{Kubectl, KubectlError, READ_LIMIT},
    objects::{List, Pod, Workload},
    stage::Stage,
};

/// The container that the injector adds.
pub(super) const SIDECAR: &str = "istio-proxy";
/// The one that writes the rules which divert the pod's connections into the sidecar, and then
/// ends. Where Istio's CNI plug-in writes them there is none.
pub(super) const INIT: &str = "istio-init";

/// istiod's Deployment, if there is one that can be seen.
///
/// # Errors
///
/// When Deployments can't be listed.
pub(super) async fn find(kubectl: &Kubectl) -> Result<Option<Workload>, KubectlError> {
    let args = ["deployments.apps", "--all-namespaces", "--selector=app=istiod"];
    let list = kubectl.get::<List<Workload>>(&args).await?;
    Ok(list.and_then(|list| list.items.into_iter().next()))
}

/// Where `istiod` is, and its image.
pub(super) fn shown(istiod: &Workload) -> String {
    let pod = &istiod.spec.template.spec;
    let image = pod.containers.first().map_or("", |of| of.image.as_str());
    format!("{}/{}, {image}", istiod.metadata.namespace, istiod.metadata.name)
}

/// Fails unless the pods of the overlay's client have a sidecar: without one everything would run,
/// and show nothing of Istio.
///
/// # Errors
///
/// When one has none, or they can't be read.
pub(super) async fn injected(stage: &Stage) -> Result<(), LabError> {
    let pods: List<Pod> = stage.select("pods", stage.overlay.client).await?;
    let has = |pod: &Pod| {
        let mut all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        all.any(|of| of.name == SIDECAR)
    };
    match pods.items.iter().find(|pod| !has(pod)) {
        None => Ok(()),
        Some(pod) => Err(LabError::Cluster(format!(
            "{}: expected a container {SIDECAR}, which Istio's injector adds to pods with the \
             label sidecar.istio.io/inject, and found none; is there an injector without a \
             revision, or with the tag `default` (istioctl tag list)?",
            pod.metadata.name
        ))),
    }
}

/// The containers that a namespace with pod security *restricted* would refuse, of the overlay's
/// pods with what the injector adds: the API server is asked, and makes nothing.
///
/// # Errors
///
/// When it can't be asked, or refuses them for another reason.
pub(super) async fn refused(stage: &Stage) -> Result<BTreeSet<String>, LabError> {
    let mut refused = BTreeSet::new();
    for name in [stage.overlay.client, stage.overlay.server] {
        let deployment: Value = stage.get(&format!("deployment/{name}")).await?;
        let template = &deployment["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        let annotations = &template["metadata"]["annotations"];
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "lab-asked", "labels": labels, "annotations": annotations },
            "spec": template["spec"],
        });
        let answer = stage.would_create(&pod.to_string()).await?;
        if !answer.status.success() {
            let said = answer.stderr.lines().last().unwrap_or_default();
            return Err(LabError::Cluster(format!("a pod of {name} would not be made: {said}")));
        }
        refused.extend(violations(&answer.stderr));
    }
    Ok(refused)
}

/// The names of containers in the API server's warnings, such as `unrestricted capabilities
/// (container "istio-init" must not include "NET_ADMIN")`; `pod` for what is said of the pod
/// itself.
fn violations(said: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let warnings = said.lines().filter(|line| line.contains("violate PodSecurity"));
    for part in warnings.flat_map(|line| line.split('(').skip(1)) {
        let Some((who, _)) = part.split_once(" must ") else { continue };
        let mut quoted: Vec<String> =
            who.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        if quoted.is_empty() {
            quoted.push("pod".to_owned());
        }
        names.extend(quoted);
    }
    names
}

/// What the Envoy beside `pod`'s application counts, as far as Istio lets it (pods may ask for more
/// by `sidecar.istio.io/statsInclusionRegexps`).
///
/// # Errors
///
/// When the sidecar can't be asked.
pub(super) async fn stats(stage: &Stage, pod: &str) -> Result<Stats, LabError> {
    let ask = ["pilot-agent", "request", "GET", "stats?format=json"];
    let args = [&["exec", pod, "-c", SIDECAR, "--"][..], &ask].concat();
    let text = stage.kubectl(&args, READ_LIMIT).await?;
    Stats::parse(answer(&text)).map_err(|error| {
        LabError::Cluster(format!("the statistics of {pod}'s sidecar can't be read: {error}"))
    })
}

/// Envoy's answer, without the lines before it: pilot-agent may log to the same output.
fn answer(printed: &str) -> &str {
    printed.find("{\"stats\"").map_or(printed, |from| &printed[from..])
}

/// Says in `report` that it was Istio.
pub(super) fn tell(report: &mut ExampleReport) {
    report.control_plane = "istiod, which watches Services and EndpointSlices";
    report.policy =
        "ROUND_ROBIN in the client's Envoy (a DestinationRule), pick_first in the client";
    report.picture = if report.number == 4 { MESH } else { SIDECAR_ALONE };
}

const SIDECAR_ALONE: &str = "\
\x20 client -- HTTP/2 --> Envoy ---- HTTP/2 ----> greeter 1   1/3
        one connection     | \\______ HTTP/2 ----> greeter 2   1/3
        (diverted)         |  \\_____ HTTP/2 ----> greeter 3   1/3
                           |
                           '-- ADS ---------- istiod ---- watch ----> API server

  knows the endpoints: istiod               picks: Envoy, per call
  HTTP/2 ends: client, Envoy, greeter       survives: losing istiod (the last configuration
  TLS: none                                 serves), losing a greeter (but its calls in
                                            flight); not losing Envoy";

const MESH: &str = "\
\x20 client -- HTTP/2 --> Envoy ==== mTLS ====> Envoy -- HTTP/2 --> greeter 1   1/3
        one connection     | \\====== mTLS ====> Envoy -- HTTP/2 --> greeter 2   1/3
        (diverted)         |  \\===== mTLS ====> Envoy -- HTTP/2 --> greeter 3   1/3
                           |                      |
                           '-- ADS and SDS --- istiod ---- watch ----> API server
                               (through an agent in each pod, which asks for its certificate)

  knows the endpoints: istiod               picks: the client's Envoy, per call
  HTTP/2 ends: client, each Envoy, greeter  survives: losing istiod (the last configuration
  TLS ends: in each Envoy                   serves, until certificates expire), losing a pod
                                            (but its calls in flight); not losing the client's
                                            Envoy";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_found_in_the_warnings_of_an_api_server_and_the_pod_is_told_apart() {
        // Kubernetes 1.34 said this, in one line.
        let said = "Warning: would violate PodSecurity \"restricted:latest\": unrestricted \
                    capabilities (container \"istio-init\" must not include \"NET_ADMIN\", \
                    \"NET_RAW\" in securityContext.capabilities.add), runAsNonRoot != true \
                    (container \"istio-init\" must not set securityContext.runAsNonRoot=false), \
                    runAsUser=0 (container \"istio-init\" must not set runAsUser=0)\n";
        assert_eq!(violations(said), BTreeSet::from(["istio-init".to_owned()]));
        let two = "Warning: would violate PodSecurity \"restricted:latest\": \
                   allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
                   securityContext.allowPrivilegeEscalation=false)";
        assert_eq!(violations(two), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let pod = "Warning: would violate PodSecurity \"restricted:latest\": hostNetwork \
                   (pod must not set spec.hostNetwork=true)";
        assert_eq!(violations(pod), BTreeSet::from(["pod".to_owned()]));
        assert!(violations("Warning: spec.x is deprecated (since 1.2, you must move)").is_empty());
    }

    #[test]
    fn an_answer_of_envoy_is_found_behind_what_pilot_agent_logs() {
        let logged = "2026-11-30T09:22:58.1Z\tinfo\tGET stats {\"a\":1}\n\
                      {\"stats\":[{\"name\":\"a.update_success\",\"value\":2}]}";
        let stats = Stats::parse(answer(logged)).expect("an answer");
        assert_eq!(stats.get("a.update_success"), Some(2));
        Stats::parse(answer("2026-11-30T09:22:58.1Z\terror\tno Envoy")).expect_err("no answer");
    }

    #[test]
    fn pictures_are_narrow_ascii_as_those_of_the_other_examples() {
        for picture in [SIDECAR_ALONE, MESH] {
            assert!(picture.is_ascii());
            assert!(picture.lines().all(|line| line.len() <= 96));
        }
    }
}
