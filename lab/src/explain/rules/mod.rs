//! The list: what can be wrong with a gRPC service on Kubernetes, each entry with the reason why it
//! matters. A rule is data and a pure function; it sees the [`View`] and nothing else.

use crate::cluster::objects::{PortRef, Service};

use super::{Finding, Mark, clients::Client, view::View};

mod callers;
mod pods;
mod ports;
mod service;
mod sight;

/// One entry of the list.
struct Rule {
    id: &'static str,
    why: &'static str,
    judge: fn(&Case<'_>) -> Vec<Verdict>,
}

/// What a rule says. A cure is a command or a line of YAML.
enum Verdict {
    Holds(String),
    Warns(String, String),
    Broken(String, String),
    NotJudged(String),
}

use Verdict::{Broken, Holds, NotJudged, Warns};

/// What rules look at: the view, and what most of them would compute from it.
struct Case<'a> {
    view: &'a View,
    service: &'a Service,
    clients: Vec<Client>,
    context: &'a str,
}

/// The order is that of the questions that somebody would ask: is it there, has it pods, do
/// clients reach them, do they balance.
static RULES: &[Rule] = &[
    Rule {
        id: "namespace",
        why: "a name without a namespace is looked for in the client's own namespace",
        judge: callers::namespace,
    },
    Rule {
        id: "selector",
        why: "a Service has the pods whose labels have every pair of its selector, and no others",
        judge: pods::selector,
    },
    Rule {
        id: "ready",
        why: "only ready pods get into EndpointSlices and DNS",
        judge: pods::ready,
    },
    Rule {
        id: "endpoints",
        why: "without endpoints every call fails with UNAVAILABLE; with one there is no balancing",
        judge: pods::endpoints,
    },
    Rule {
        id: "port",
        why: "DNS of a headless Service names pods, so the port that clients use is the pods' own; \
              the Service's port is for its ClusterIP",
        judge: ports::port,
    },
    Rule {
        id: "protocol",
        why: "Istio takes a port's protocol from its name or appProtocol; without one it guesses \
              from each connection's first bytes, and what it holds for TCP is balanced by \
              connection, not by call",
        judge: ports::protocol,
    },
    Rule {
        id: "clients",
        why: "how a service is balanced is decided by its clients",
        judge: callers::found,
    },
    Rule {
        id: "headless",
        why: "a ClusterIP is one address: the client opens one connection, kube-proxy gives it to \
              one pod, and all calls go there, whatever the policy",
        judge: callers::headless,
    },
    Rule {
        id: "policy",
        why: "gRPC's default policy is pick_first: of all the addresses that DNS names it uses one",
        judge: callers::policy,
    },
    Rule {
        id: "age",
        why: "most gRPC clients ask DNS again only when a connection ends; without a connection \
              age they never see a pod that came later",
        judge: callers::age,
    },
    Rule {
        id: "access",
        why: "who watches EndpointSlices needs list and watch on them in the Service's namespace",
        judge: callers::access,
    },
    Rule {
        id: "settings",
        why: "these settings of a Service are made for other protocols",
        judge: service::settings,
    },
    Rule { id: "dns", why: "DNS is what most clients know of the endpoints", judge: sight::dns },
    Rule {
        id: "probe",
        why: "a port is a gRPC server's when it answers with HTTP/2 SETTINGS",
        judge: sight::probe,
    },
];

/// Applies the list. Without the Service the rest of it has nothing to judge.
pub(super) fn judge(view: &View, context: &str) -> Vec<Finding> {
    let (exists, verdict) = service::exists(view, context);
    let mut findings = vec![finding("service", service::WHY, verdict)];
    if let Some(service) = exists {
        let case = Case { view, service, clients: view.clients(), context };
        for rule in RULES {
            let verdicts = (rule.judge)(&case).into_iter();
            findings.extend(verdicts.map(|verdict| finding(rule.id, rule.why, verdict)));
        }
    }
    findings
}

fn finding(rule: &'static str, why: &'static str, verdict: Verdict) -> Finding {
    let (mark, seen, cure) = match verdict {
        Holds(seen) => (Mark::Holds, seen, None),
        NotJudged(seen) => (Mark::NotJudged, seen, None),
        Warns(seen, cure) => (Mark::Warns, seen, Some(cure)),
        Broken(seen, cure) => (Mark::Broken, seen, Some(cure)),
    };
    Finding { rule, mark, seen, why, cure }
}

impl Case<'_> {
    /// A command in the Service's namespace, as the user would type it.
    fn command(&self, rest: &str) -> String {
        format!("kubectl --context {} -n {} {rest}", self.context, self.view.namespace)
    }

    /// The ports on which endpoints listen, by slices, or by the Service when there is none:
    /// name of the Service's port, number.
    fn endpoint_ports(&self) -> Vec<(Option<String>, u16)> {
        let slices = self.view.slices.iter().flat_map(|slice| slice.ports.iter().flatten());
        let mut ports: Vec<_> = slices.filter_map(|of| Some((of.name.clone(), of.port?))).collect();
        if ports.is_empty() {
            let by_number = self.service.spec.ports.iter().filter_map(|of| match of.target_port {
                Some(PortRef::Number(number)) => Some((of.name.clone(), number)),
                None => Some((of.name.clone(), of.port)),
                Some(PortRef::Name(_)) => None,
            });
            ports = by_number.collect();
        }
        ports.sort();
        ports.dedup();
        ports
    }
}

/// `grpc=8000, metrics=9090`.
fn shown_ports(ports: &[(Option<String>, u16)]) -> String {
    let one = |(name, number): &(Option<String>, u16)| match name.as_deref() {
        Some(name) if !name.is_empty() => format!("{name}={number}"),
        _ => number.to_string(),
    };
    ports.iter().map(one).collect::<Vec<_>>().join(", ")
}
