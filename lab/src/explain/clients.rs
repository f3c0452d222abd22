//! Who calls a Service, as far as it can be seen from outside: workloads whose environment or
//! arguments name it. A name that comes from a ConfigMap, a Secret or the program itself is not
//! seen, and the report says so.

use crate::cluster::objects::{Container, Workload, selects};

use super::{
    target::{Scheme, Target},
    view::{Mesh, View},
};

/// A cluster has many workloads; the first that name a Service show what is wrong with the rest.
pub(super) const CLIENTS_MAX: usize = 32;
/// Words that say which policy a client was given, the most telling first: `grpclb` names a child.
const POLICIES: [&str; 9] = [
    "grpclb",
    "weighted_round_robin",
    "round_robin",
    "least_request",
    "ring_hash",
    "rls_experimental",
    "xds_wrr_locality",
    "outlier_detection",
    "pick_first",
];

/// How it uses the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It calls it.
    Caller,
    /// It tells callers of its endpoints.
    Balancer,
}

/// A workload that names the Service.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// `deployment/shop`, and the namespace it is in.
    pub(super) reference: String,
    pub(super) namespace: String,
    /// The container that names it, and the variable, when it is one.
    pub(super) container: String,
    pub(super) variable: Option<String>,
    /// `namespace/name` of its ServiceAccount.
    pub(super) account: String,
    pub(super) role: Role,
    pub(super) target: Target,
    /// The namespace in which it expects the Service.
    pub(super) expects: String,
    /// `None`: neither environment nor arguments say one.
    pub(super) policy: Option<&'static str>,
    /// Whether it is Evenkeel's own client or balancer, whose defaults are known.
    pub(super) ours: bool,
    pub(super) mesh: Option<Mesh>,
}

impl Client {
    /// `deployment/shop in web (dns:///greeter:8000)`.
    pub(super) fn shown(&self) -> String {
        format!("{} in {} ({})", self.reference, self.namespace, self.target.text)
    }

    /// Whether it takes endpoints from DNS and balances by itself: no proxy and no balancer does
    /// it instead.
    pub(super) fn is_on_its_own(&self) -> bool {
        self.role == Role::Caller
            && self.target.scheme == Scheme::Dns
            && self.mesh.is_none()
            && self.policy != Some("grpclb")
    }
}

/// The clients of the Service that `view` is about, at most [`CLIENTS_MAX`].
pub(super) fn find(view: &View) -> Vec<Client> {
    let selector = view.service().map(|service| service.spec.selector.clone()).unwrap_or_default();
    let is_backend = |of: &Workload| {
        let labels = &of.spec.template.metadata.labels;
        of.metadata.namespace == view.namespace && selects(&selector, labels)
    };
    let others = view.workloads.iter().filter(|of| !is_backend(of));
    others.filter_map(|of| client_of(view, of)).take(CLIENTS_MAX).collect()
}

fn client_of(view: &View, of: &Workload) -> Option<Client> {
    let pod = &of.spec.template.spec;
    let containers = || pod.containers.iter().chain(&pod.init_containers);
    let (container, role, variable, target) =
        containers().find_map(|one| target_of(one, view, &of.metadata.namespace))?;
    let account = pod.service_account_name.as_deref().unwrap_or("default");
    Some(Client {
        reference: of.reference(),
        namespace: of.metadata.namespace.clone(),
        container: container.name.clone(),
        variable,
        account: format!("{}/{account}", of.metadata.namespace),
        role,
        expects: target.namespace.clone().unwrap_or_else(|| of.metadata.namespace.clone()),
        target,
        policy: policy_of(container),
        ours: is_ours(container),
        mesh: view.mesh_of(of),
    })
}

type Named<'a> = (&'a Container, Role, Option<String>, Target);

/// The first word of `container` that names the Service: where it is expected, if any word says
/// that, or else wherever this workload would look for it.
fn target_of<'a>(container: &'a Container, view: &View, own: &str) -> Option<Named<'a>> {
    let mut elsewhere = None;
    for (key, value) in words(container) {
        let balancer = key == "BACKEND_SERVICE_NAME" || key == "--backend-service-name";
        let role = if balancer { Role::Balancer } else { Role::Caller };
        let Some(target) = Target::parse(&value, balancer) else { continue };
        if target.name != view.name {
            continue;
        }
        let variable = (!key.is_empty() && !key.starts_with('-')).then_some(key);
        let here = target.namespace.as_deref().unwrap_or(own) == view.namespace;
        let found = (container, role, variable, target);
        if here {
            return Some(found);
        }
        elsewhere = elsewhere.or(Some(found));
    }
    elsewhere
}

/// Every word of a container's environment and arguments, with the variable or flag it stands for.
fn words(container: &Container) -> Vec<(String, String)> {
    let mut words = Vec::new();
    let mut add = |key: &str, text: &str| {
        for word in text.split([' ', ',', ';', '\n', '"', '\'']).filter(|word| !word.is_empty()) {
            words.push((key.to_owned(), word.to_owned()));
        }
    };
    for variable in &container.env {
        add(&variable.name, variable.value.as_deref().unwrap_or_default());
    }
    let mut flag = "";
    for arg in container.command.iter().chain(&container.args) {
        match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => add(name, value),
            _ if arg.starts_with("--") => {}
            _ => add(flag, arg),
        }
        flag = if arg.starts_with("--") && !arg.contains('=') { arg } else { "" };
    }
    words
}

fn policy_of(container: &Container) -> Option<&'static str> {
    let said = |policy: &&&str| {
        let values = container.env.iter().filter_map(|of| of.value.as_deref());
        let args = container.command.iter().chain(&container.args).map(String::as_str);
        values.chain(args).any(|text| text.contains(**policy))
    };
    POLICIES.iter().find(said).copied()
}

/// By the image: a variable may have the same name in another program.
pub(super) fn is_ours(container: &Container) -> bool {
    container.image.contains("evenkeel")
}
