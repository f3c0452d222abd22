//! Reads a [`View`] through kubectl. The Service's own namespace must be readable; of the rest as
//! much is read as the user may, and what can't be read is noted, never taken for absent.

use serde::de::DeserializeOwned;

use crate::{
    cluster::{
        kubectl::{Kubectl, KubectlError, READ_LIMIT},
        objects::{List, Pod, Workload},
    },
    error::LabError,
};

use super::{
    clients::{Client, Role},
    target::Scheme,
    view::{Access, Unread, View},
};

/// Accounts that are looked at: two requests each.
const ACCOUNTS_MAX: usize = 16;
const VERBS: [&str; 2] = ["list", "watch"];
const WORKLOADS: &str = "deployments.apps,statefulsets.apps,daemonsets.apps,jobs.batch";

/// Everything about the Service but what this machine sees of it.
///
/// # Errors
///
/// When Services, slices or pods of its namespace can't be read.
pub(super) async fn read(kubectl: &Kubectl, namespace: &str, name: &str) -> Result<View, LabError> {
    let label = format!("--selector=kubernetes.io/service-name={name}");
    let slices = ["endpointslices.discovery.k8s.io", "-n", namespace, &label];
    let of_pods = ["pods", "-n", namespace];
    let (services, slices, pods, workloads, namespaces) = tokio::join!(
        wide(kubectl, "services", namespace),
        list(kubectl, &slices),
        list(kubectl, &of_pods),
        wide::<Workload>(kubectl, WORKLOADS, namespace),
        list(kubectl, &["namespaces"]),
    );
    let mut unread = Vec::new();
    let mut note = |what, error: Option<KubectlError>| {
        unread.extend(error.map(|error| Unread { what, why: error.to_string() }));
    };
    let (services, narrowed) = services?;
    note("services of other namespaces", narrowed);
    let pods: Vec<Pod> = pods?;
    // What makes pods is a luxury: the pods themselves are there.
    let (mut workloads, narrowed) = match workloads {
        Ok((workloads, None)) => (workloads, None),
        Ok((workloads, Some(narrowed))) => (workloads, Some(narrowed)),
        Err(error) => (Vec::new(), Some(error)),
    };
    note("workloads of other namespaces", narrowed);
    let namespaces = namespaces.unwrap_or_else(|error| {
        note("namespaces", Some(error));
        Vec::new()
    });
    let bare = |pod: &&Pod| pod.metadata.owner_references.is_empty();
    workloads.extend(pods.iter().filter(bare).map(Workload::of_pod));
    let mut view = View {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        services,
        slices: slices?,
        pods,
        namespaces,
        workloads,
        unread,
        ..View::default()
    };
    view.access = access(kubectl, &view).await;
    Ok(view)
}

async fn list<T: DeserializeOwned>(
    kubectl: &Kubectl,
    args: &[&str],
) -> Result<Vec<T>, KubectlError> {
    let list: Option<List<T>> = kubectl.get(args).await?;
    Ok(list.map(|list| list.items).unwrap_or_default())
}

/// Of all namespaces, or, with the reason, of the Service's alone.
async fn wide<T: DeserializeOwned>(
    kubectl: &Kubectl,
    what: &str,
    namespace: &str,
) -> Result<(Vec<T>, Option<KubectlError>), KubectlError> {
    match list(kubectl, &[what, "--all-namespaces"]).await {
        Ok(items) => Ok((items, None)),
        Err(error) if error.is_forbidden() => {
            Ok((list(kubectl, &[what, "-n", namespace]).await?, Some(error)))
        }
        Err(error) => Err(error),
    }
}

/// Whether those who watch EndpointSlices may.
async fn access(kubectl: &Kubectl, view: &View) -> Vec<Access> {
    let watches = |client: &&Client| {
        client.role == Role::Balancer || client.target.scheme == Scheme::Kubernetes
    };
    let clients = view.clients();
    let mut accounts: Vec<&str> =
        clients.iter().filter(watches).map(|client| client.account.as_str()).collect();
    accounts.sort_unstable();
    accounts.dedup();
    let mut access = Vec::new();
    for account in accounts.into_iter().take(ACCOUNTS_MAX) {
        for verb in VERBS {
            let allowed = may(kubectl, account, verb, &view.namespace).await;
            access.push(Access { account: account.to_owned(), verb, allowed });
        }
    }
    access
}

async fn may(
    kubectl: &Kubectl,
    account: &str,
    verb: &'static str,
    namespace: &str,
) -> Result<bool, String> {
    let account = format!("--as=system:serviceaccount:{}", account.replace('/', ":"));
    let resource = "endpointslices.discovery.k8s.io";
    let args = ["auth", "can-i", verb, resource, "-n", namespace, &account];
    let answer = kubectl.answer(&args, None, READ_LIMIT).await.map_err(|why| why.to_string())?;
    match String::from_utf8_lossy(&answer.stdout).trim() {
        "yes" => Ok(true),
        // Some versions add a reason.
        text if text.starts_with("no") => Ok(false),
        _ => Err(answer.stderr.lines().next().unwrap_or("no answer").to_owned()),
    }
}
