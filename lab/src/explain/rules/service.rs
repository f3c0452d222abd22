//! The Service itself.

use crate::{cluster::objects::Service, explain::view::View};

use super::{Broken, Case, Holds, Verdict, Warns};

pub(super) const WHY: &str = "a Service is found by its name and its namespace";

/// Others of a namespace that are named when the wanted one is missing.
const NAMES_MAX: usize = 8;

/// Whether it exists, and where it is if not here.
pub(super) fn exists<'a>(view: &'a View, context: &str) -> (Option<&'a Service>, Verdict) {
    let (namespace, name) = (&view.namespace, &view.name);
    if let Some(service) = view.service() {
        let what = match service.spec.cluster_ip.as_str() {
            "None" => "headless".to_owned(),
            "" => format!("of type {}", service.spec.kind),
            ip => format!("with the ClusterIP {ip}"),
        };
        return (Some(service), Holds(format!("{namespace}/{name} exists, {what}")));
    }
    let homonyms = view.services.iter().filter(|of| of.metadata.name == *name);
    let elsewhere: Vec<&str> = homonyms.map(|of| of.metadata.namespace.as_str()).collect();
    let verdict = match elsewhere.first() {
        Some(first) => Broken(
            format!(
                "there is no Service {name} in {namespace}; there is one in {}",
                elsewhere.join(", ")
            ),
            format!(
                "name that one: `lab explain {first}/{name} --context {context}`, and in clients \
                 dns:///{name}.{first}.svc.cluster.local:PORT"
            ),
        ),
        None => {
            let here = view.services.iter().filter(|of| of.metadata.namespace == *namespace);
            let names: Vec<&str> =
                here.map(|of| of.metadata.name.as_str()).take(NAMES_MAX).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Broken(
                format!("there is no Service {name} in {namespace}; it has: {known}"),
                format!("kubectl --context {context} get services --all-namespaces"),
            )
        }
    };
    (None, verdict)
}

/// Settings that spoil the balancing of calls.
pub(super) fn settings(case: &Case<'_>) -> Vec<Verdict> {
    let (spec, name) = (&case.service.spec, &case.view.name);
    let set = |field: &str, value: &str| {
        let patch = format!(r#"'{{"spec":{{"{field}":{value}}}}}'"#);
        case.command(&format!("patch service {name} --type=merge -p {patch}"))
    };
    let mut verdicts = Vec::new();
    if spec.kind == "ExternalName" {
        verdicts.push(Warns(
            "type ExternalName: DNS answers another name, and there are no endpoints here".into(),
            "explain the Service that it names, or let clients name that one".to_owned(),
        ));
    }
    if spec.session_affinity == "ClientIP" {
        verdicts.push(Warns(
            "sessionAffinity: ClientIP: every connection of a client goes to the same pod".into(),
            set("sessionAffinity", "\"None\""),
        ));
    }
    if spec.publish_not_ready_addresses {
        verdicts.push(Warns(
            "publishNotReadyAddresses: true: clients get pods that are not ready".into(),
            set("publishNotReadyAddresses", "false"),
        ));
    }
    if verdicts.is_empty() {
        verdicts.push(Holds("no session affinity, only ready pods".to_owned()));
    }
    verdicts
}
