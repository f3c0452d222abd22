//! `lab doctor --on cluster`: what `lab run --on cluster` needs of a cluster, asked for and not
//! tried: nothing is made there. What can't be seen is said to be so.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use crate::{clock::unix_s, doctor::Finding};

use super::{
    Where, istio,
    kubectl::{Kubectl, KubectlError, READ_LIMIT},
    objects::{ConfigMap, List, Node, Slice},
    overlay, time,
};

/// The first version whose kubelet sleeps before it stops a container (KEP-3960, on by default),
/// which all overlays ask for; native sidecars are older.
const MINOR_MIN: u32 = 30;
/// What a run does there, with the reason that stands in the report.
const NEEDED: [(&str, &str); 10] = [
    ("create", "namespaces"),
    ("delete", "namespaces"),
    ("create", "deployments.apps"),
    ("create", "services"),
    ("create", "pods"),
    ("delete", "pods"),
    ("get", "pods/log"),
    ("watch", "pods"),
    ("watch", "endpointslices.discovery.k8s.io"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
];
/// Nodes renew their leases every 10 s, so the newest one is nearly now by the cluster's clock.
const LEASE_AGE_S_MAX: f64 = 40.0;
const CLOCK_AHEAD_S_MAX: f64 = 1.0;

/// Everything that was asked.
///
/// # Errors
///
/// When there is no kubectl.
pub(crate) async fn examine(at: &Where) -> Result<Vec<Finding>, KubectlError> {
    let context = at.context.as_deref().unwrap_or_default();
    let kubectl = Kubectl::find(at.kubectl.as_deref(), context)?;
    let version = version(&kubectl).await;
    if !version.ok {
        return Ok(vec![version]);
    }
    let nodes = kubectl.get::<List<Node>>(&["nodes"]).await;
    let nodes = nodes.map(|list| list.map(|list| list.items).unwrap_or_default());
    let (rights, images, dns, istio, clock) = tokio::join!(
        rights(&kubectl),
        images(&kubectl, &nodes, at.kustomize.as_deref()),
        dns(&kubectl),
        istio(&kubectl),
        clock(&kubectl),
    );
    Ok(vec![version, rights, zones(&nodes), images, dns, clock, istio])
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: Version,
    server_version: Option<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
    minor: String,
}

async fn version(kubectl: &Kubectl) -> Finding {
    let text = kubectl.text(&["version", "-o", "json"], None, READ_LIMIT).await;
    let read = text.map(|text| serde_json::from_str::<Versions>(&text));
    let (ok, seen) = match &read {
        Ok(Ok(Versions { client_version, server_version: Some(server) })) => {
            // Some vendors write `30+`.
            let minor = server.minor.trim_end_matches(|c: char| !c.is_ascii_digit());
            let ok = minor.parse().is_ok_and(|minor: u32| minor >= MINOR_MIN);
            let (server, client) = (&server.git_version, &client_version.git_version);
            (ok, format!("context {}: Kubernetes {server}, kubectl {client}", kubectl.context()))
        }
        Ok(Ok(_)) => (false, "the API server told no version".to_owned()),
        Ok(Err(error)) => (false, format!("kubectl version: {error}")),
        Err(error) => (false, error.to_string()),
    };
    Finding {
        id: "cluster",
        ok,
        required: true,
        seen,
        hint: "Kubernetes 1.30 or later must answer: try `kubectl --context NAME version`, and \
               `kubectl config get-contexts` for the names.",
    }
}

async fn rights(kubectl: &Kubectl) -> Finding {
    let mut asked = tokio::task::JoinSet::new();
    for (verb, resource) in NEEDED {
        let kubectl = kubectl.clone();
        asked.spawn(async move {
            let args = ["auth", "can-i", verb, resource, "--all-namespaces"];
            let answer = kubectl.answer(&args, None, READ_LIMIT).await;
            let yes = answer.is_ok_and(|answer| answer.stdout.starts_with(b"yes"));
            (!yes).then(|| format!("{verb} {resource}"))
        });
    }
    let mut missing: Vec<String> = asked.join_all().await.into_iter().flatten().collect();
    missing.sort();
    Finding {
        id: "rights",
        ok: missing.is_empty(),
        required: true,
        seen: match missing.len() {
            0 => format!("all {} that a run needs are given", NEEDED.len()),
            _ => format!("you may not: {}", missing.join(", ")),
        },
        hint: "A run makes a namespace and everything in it; ask for these rights, or use a \
               cluster of your own (kind, or ../shared/cluster).",
    }
}

/// Of a list that could not be read, why.
type Nodes = Result<Vec<Node>, KubectlError>;

fn zones(nodes: &Nodes) -> Finding {
    let (ok, seen) = match nodes {
        Err(error) => (false, format!("nodes can't be seen: {error}")),
        Ok(nodes) => {
            let ready = nodes.iter().filter(|node| node.status.is("Ready")).count();
            let zone =
                |node: &Node| node.metadata.labels.get("topology.kubernetes.io/zone").cloned();
            let zones: BTreeSet<String> = nodes.iter().filter_map(zone).collect();
            (ready > 0, format!("{ready} of {} are ready, in {} zones", nodes.len(), zones.len()))
        }
    };
    Finding { id: "nodes", ok, required: false, seen, hint: "Without a ready node no pod starts." }
}

async fn images(kubectl: &Kubectl, nodes: &Nodes, kustomize: Option<&Path>) -> Finding {
    let (ok, seen) = match (overlay::folder(kustomize), nodes) {
        (Err(message), _) => (false, message),
        (_, Err(_)) => (false, "which images nodes have can't be seen".to_owned()),
        (Ok(folder), Ok(nodes)) => match wanted_images(kubectl, &folder).await {
            Err(error) => (false, error.to_string()),
            Ok(wanted) => on_nodes(&wanted, nodes),
        },
    };
    Finding {
        id: "images",
        ok,
        required: false,
        seen,
        hint: "Nodes would have to pull them, and these names have no registry: load them \
               (docs/images.md), or set yours in kustomize/components/images. A node tells of 50 \
               images at most, so one that is there may not be seen.",
    }
}

async fn wanted_images(kubectl: &Kubectl, folder: &Path) -> Result<BTreeSet<String>, KubectlError> {
    let mut wanted = BTreeSet::new();
    for overlay in overlay::ALL {
        let folder = folder.join("overlays").join(overlay.folder).display().to_string();
        let text = kubectl.text(&["kustomize", &folder], None, READ_LIMIT).await?;
        let image = |line: &str| Some(line.trim().strip_prefix("image: ")?.to_owned());
        wanted.extend(text.lines().filter_map(image));
    }
    Ok(wanted)
}

fn on_nodes(wanted: &BTreeSet<String>, nodes: &[Node]) -> (bool, String) {
    let has = |node: &Node, image: &str| {
        let names = node.status.images.iter().flat_map(|of| of.names.iter().flatten());
        let mut names = names.map(String::as_str);
        names.any(|name| name == image || name.ends_with(&format!("/{image}")))
    };
    let missing: Vec<&str> = wanted
        .iter()
        .map(String::as_str)
        .filter(|image| !nodes.iter().all(|node| has(node, image)))
        .collect();
    match missing.len() {
        0 => (true, format!("all nodes have the {} of the overlays", wanted.len())),
        _ => (false, format!("not seen on every node: {}", missing.join(", "))),
    }
}

async fn dns(kubectl: &Kubectl) -> Finding {
    let label = "--selector=kubernetes.io/service-name=kube-dns";
    let of_dns = ["endpointslices.discovery.k8s.io", "-n", "kube-system", label];
    let slices = kubectl.get::<List<Slice>>(&of_dns).await;
    let map = ["configmap", "coredns", "-n", "kube-system", "--ignore-not-found"];
    let ttl = match kubectl.get::<ConfigMap>(&map).await {
        Ok(Some(map)) => ttl(&map).map_or("TTL 5 s, CoreDNS's default".to_owned(), |ttl| {
            format!("TTL {ttl} s by its Corefile")
        }),
        _ => "its TTL can't be seen".to_owned(),
    };
    let (ok, seen) = match slices {
        Err(error) => (false, error.to_string()),
        Ok(list) => {
            let slices = list.map(|list| list.items).unwrap_or_default();
            let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
            let ready = endpoints.filter(|of| of.conditions.ready != Some(false)).count();
            (ready > 0, format!("{ready} ready endpoints of kube-dns, {ttl}"))
        }
    };
    Finding {
        id: "dns",
        ok,
        required: false,
        seen,
        hint: "Example 1 asks DNS: look at `kubectl -n kube-system get pods -l k8s-app=kube-dns`.",
    }
}

/// Of the plugin `kubernetes`: how long a client may take for a change.
fn ttl(map: &ConfigMap) -> Option<u32> {
    let lines = map.data.get("Corefile")?.lines();
    let mut plugin = lines.skip_while(|line| !line.trim_start().starts_with("kubernetes "));
    plugin.find_map(|line| line.trim().strip_prefix("ttl ")?.trim().parse().ok())
}

async fn istio(kubectl: &Kubectl) -> Finding {
    let (ok, seen) = match istio::find(kubectl).await {
        Err(error) => (false, format!("can't be seen: {error}")),
        Ok(None) => (false, "no istiod".to_owned()),
        Ok(Some(istiod)) => (true, istio::shown(&istiod)),
    };
    Finding {
        id: "istio",
        ok,
        required: false,
        seen,
        hint: "Only the overlays istio and envoy-dynamic need it; without it they are not run.",
    }
}

/// Actions are timed by this machine's clock, calls by the client's node.
async fn clock(kubectl: &Kubectl) -> Finding {
    let leases = kubectl.get::<List<Lease>>(&["leases", "-n", "kube-node-lease"]).await;
    let now = unix_s();
    let newest = leases.ok().flatten().and_then(|list| {
        let renewed =
            list.items.iter().filter_map(|of| time::unix_s(of.spec.renew_time.as_deref()?));
        renewed.max_by(f64::total_cmp)
    });
    let (ok, seen) = match newest {
        None => (false, "nodes' leases can't be seen".to_owned()),
        Some(newest) => {
            let age = now - newest;
            let ok = (-CLOCK_AHEAD_S_MAX..=LEASE_AGE_S_MAX).contains(&age);
            (ok, format!("the newest lease of a node is {age:.1} s old by this machine's clock"))
        }
    };
    Finding {
        id: "clock",
        ok,
        required: false,
        seen,
        hint: "Times compare this machine's clock with the nodes': expected a lease less than 40 s \
               old and not of the future. Run NTP on both.",
    }
}

#[derive(Deserialize)]
struct Lease {
    spec: LeaseSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaseSpec {
    renew_time: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_are_looked_for_on_every_node_under_any_registry() {
        let node = |names: serde_json::Value| -> Node {
            serde_json::from_value(json!({ "status": { "images": [{ "names": names }] } }))
                .expect("a node")
        };
        let wanted = BTreeSet::from(["evenkeel-greeter:0.1.0".to_owned()]);
        let with = node(json!(["docker.io/library/evenkeel-greeter:0.1.0"]));
        assert!(on_nodes(&wanted, std::slice::from_ref(&with)).0);
        let (ok, seen) = on_nodes(&wanted, &[with, node(json!(null))]);
        assert!(!ok);
        assert_eq!(seen, "not seen on every node: evenkeel-greeter:0.1.0");
        assert!(!on_nodes(&wanted, &[node(json!(["evenkeel-greeter:0.1.0-rc"]))]).0);
    }

    #[test]
    fn the_ttl_is_that_of_the_plugin_kubernetes() {
        let map = |file: &str| -> ConfigMap {
            serde_json::from_value(json!({ "data": { "Corefile": file } })).expect("a map")
        };
        let file =
            ".:53 {\n  template {\n    ttl 9\n  }\n  kubernetes c.local {\n    ttl 30\n  }\n}";
        assert_eq!(ttl(&map(file)), Some(30));
        assert_eq!(ttl(&map(".:53 {\n  kubernetes cluster.local\n}")), None);
    }
}
