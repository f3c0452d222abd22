//! What the rules look at: objects as they were read, and who calls the Service. It has no
//! cluster behind it, so that tests make one from JSON.

use crate::cluster::objects::{Namespace, Pod, Service, Slice, Workload, selects};

use super::clients::{self, Client};

/// One Service and everything around it that was read.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Of every namespace, as far as they could be read.
    pub(super) services: Vec<Service>,
    pub(super) slices: Vec<Slice>,
    /// Of the Service's namespace.
    pub(super) pods: Vec<Pod>,
    pub(super) namespaces: Vec<Namespace>,
    /// Of every namespace, as far as they could be read.
    pub(super) workloads: Vec<Workload>,
    pub(super) access: Vec<Access>,
    pub(super) reach: Reach,
    /// What could not be read, and why: nothing follows from its absence.
    pub(super) unread: Vec<Unread>,
}

/// Whether an account may do what its program needs.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// `namespace/name` of a ServiceAccount.
    pub(super) account: String,
    pub(super) verb: &'static str,
    /// Or why that is not known.
    pub(super) allowed: Result<bool, String>,
}

/// What this machine sees of the Service.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// The addresses that DNS names, or why nobody asked or answered.
    pub(super) dns: Option<Result<Vec<String>, String>>,
    /// The addresses that became READY in a channel, or why none was opened.
    pub(super) ready: Option<Result<Vec<String>, String>>,
}

/// Something that was asked for in vain.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Unread {
    pub(super) what: &'static str,
    pub(super) why: String,
}

/// A mesh that takes over a pod's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mesh {
    Istio,
    Linkerd,
}

impl View {
    /// The Service in question.
    pub(super) fn service(&self) -> Option<&Service> {
        self.services
            .iter()
            .find(|of| of.metadata.name == self.name && of.metadata.namespace == self.namespace)
    }

    /// Whether `what` was asked for in vain.
    pub(super) fn is_unread(&self, what: &str) -> bool {
        self.unread.iter().any(|unread| unread.what == what)
    }

    /// Everything that names the Service, in whatever namespace it expects it.
    pub(super) fn clients(&self) -> Vec<Client> {
        clients::find(self)
    }

    /// The pods that the Service selects.
    pub(super) fn backends(&self, service: &Service) -> Vec<&Pod> {
        let selected = |pod: &&Pod| selects(&service.spec.selector, &pod.metadata.labels);
        self.pods.iter().filter(selected).collect()
    }

    /// What makes the pods that the Service selects.
    pub(super) fn servers(&self, service: &Service) -> Vec<&Workload> {
        let selected = |of: &&Workload| {
            let labels = &of.spec.template.metadata.labels;
            of.metadata.namespace == self.namespace && selects(&service.spec.selector, labels)
        };
        self.workloads.iter().filter(selected).collect()
    }

    /// The addresses that slices call ready, each once.
    pub(super) fn ready_addresses(&self) -> Vec<String> {
        let endpoints = self.slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = endpoints.filter(|of| of.conditions.ready != Some(false));
        let mut addresses: Vec<String> =
            ready.filter_map(|endpoint| endpoint.addresses.first().cloned()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// The mesh whose proxy a pod of this workload has, or gets by its own or its namespace's
    /// labels.
    pub(super) fn mesh_of(&self, of: &Workload) -> Option<Mesh> {
        let (template, pod) = (&of.spec.template.metadata, &of.spec.template.spec);
        let has = |name: &str| {
            pod.containers.iter().chain(&pod.init_containers).any(|one| one.name == name)
        };
        let namespace =
            self.namespaces.iter().find(|one| one.metadata.name == of.metadata.namespace);
        let named = namespace.map(|namespace| &namespace.metadata);
        let label = |key: &str| named.and_then(|meta| meta.labels.get(key)).map(String::as_str);
        let own = ["sidecar.istio.io/inject"].into_iter();
        let own = own
            .filter_map(|key| template.labels.get(key).or_else(|| template.annotations.get(key)));
        let own = own.map(String::as_str).next();
        let by_namespace = label("istio-injection") == Some("enabled")
            || (label("istio.io/rev").is_some() && label("istio-injection") != Some("disabled"));
        if has("istio-proxy") || own == Some("true") || (by_namespace && own != Some("false")) {
            return Some(Mesh::Istio);
        }
        let linkerd = "linkerd.io/inject";
        let own = template.annotations.get(linkerd).map(String::as_str);
        let inherited = named.and_then(|meta| meta.annotations.get(linkerd)).map(String::as_str);
        let linked = own.or(inherited) == Some("enabled") || has("linkerd-proxy");
        linked.then_some(Mesh::Linkerd)
    }
}
