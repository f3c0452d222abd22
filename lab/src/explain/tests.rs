//! The rules on objects as a real cluster printed them (`KEEP=… .ci/explain`), and on such objects
//! with one thing changed.

use std::path::Path;

use super::*;
use crate::cluster::objects::{EnvVar, Namespace, Pod, PortRef, Service, Slice, Workload};
use view::Access;

const CONTEXT: &str = "here";
/// Each set-up that is broken, the rule that finds it, and what the cure names.
const BROKEN: [(&str, &str, &str); 10] = [
    ("cluster-ip", "headless", "clusterIP: None"),
    ("wrong-port", "port", "GREETER_SERVICE_TARGET=dns:///greeter:8000"),
    ("no-protocol", "protocol", r#""/spec/ports/0/appProtocol","value":"grpc""#),
    ("selector", "selector", r#"-p '{"spec":{"selector":{"app":"greeter"}}}'"#),
    ("not-ready", "ready", "describe pod greeter-"),
    ("no-endpoints", "endpoints", "scale deployment/greeter --replicas=3"),
    ("no-policy", "policy", r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#),
    ("no-age", "age", "set env deployment/greeter GRPC_MAX_CONNECTION_AGE=30s"),
    ("no-rights", "access", "--verb=list,watch --resource=endpointslices.discovery.k8s.io"),
    (
        "wrong-namespace",
        "namespace",
        "dns:///greeter-away.explain-wrong-namespace.svc.cluster.local:8000",
    ),
];

/// The set-up `name`, as it was on the cluster.
fn set_up(name: &str) -> View {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/explain")
        .join(format!("{name}.json"));
    let text = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let items: Vec<serde_json::Value> = serde_json::from_slice(&text).expect("a list");
    let mut view = View {
        namespace: format!("explain-{name}"),
        name: if name == "wrong-namespace" { "greeter-away" } else { "greeter" }.to_owned(),
        ..View::default()
    };
    for item in items {
        let read = "an object of its kind";
        match item["kind"].as_str().expect("every object has a kind") {
            "Namespace" => view.namespaces.push(serde_json::from_value(item).expect(read)),
            "Service" => view.services.push(serde_json::from_value(item).expect(read)),
            "EndpointSlice" => view.slices.push(serde_json::from_value(item).expect(read)),
            "Pod" => view.pods.push(serde_json::from_value(item).expect(read)),
            "Deployment" => view.workloads.push(serde_json::from_value(item).expect(read)),
            other => panic!("{other} is not read"),
        }
    }
    if name == "no-rights" {
        view.access = access(Ok(false));
    }
    view
}

fn access(allowed: Result<bool, String>) -> Vec<Access> {
    let one = |verb| Access {
        account: "explain-no-rights/default".to_owned(),
        verb,
        allowed: allowed.clone(),
    };
    vec![one("list"), one("watch")]
}

fn of(view: &View, mark: Mark) -> Vec<Finding> {
    rules::judge(view, CONTEXT).into_iter().filter(|finding| finding.mark == mark).collect()
}

/// The only rule that is broken, with what it saw.
fn only_broken(view: &View) -> Finding {
    let mut broken = of(view, Mark::Broken);
    assert_eq!(broken.len(), 1, "{broken:#?}");
    broken.remove(0)
}

fn one_of(view: &View, rule: &str) -> Finding {
    let all = rules::judge(view, CONTEXT);
    all.into_iter().find(|finding| finding.rule == rule).expect("every rule says something")
}

#[test]
fn each_broken_set_up_is_found_by_its_rule_alone_and_the_cure_is_named() {
    for (name, rule, cure) in BROKEN {
        let finding = only_broken(&set_up(name));
        assert_eq!(finding.rule, rule, "{name}: {finding:#?}");
        let text = finding.cure.expect("what is broken has a cure");
        assert!(text.contains(cure), "{name}: {text}");
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    for name in ["healthy", "healthy-mesh"] {
        let view = set_up(name);
        assert!(of(&view, Mark::Broken).is_empty(), "{name}: {:#?}", of(&view, Mark::Broken));
        assert!(of(&view, Mark::Warns).is_empty(), "{name}: {:#?}", of(&view, Mark::Warns));
        assert!(of(&view, Mark::Holds).len() >= 8, "{name}: {:#?}", of(&view, Mark::Holds));
    }
}

#[test]
fn a_service_that_is_elsewhere_is_told_with_where_and_nothing_else_is_judged() {
    let mut view = set_up("healthy");
    view.namespace = "shop".to_owned();
    let findings = rules::judge(&view, CONTEXT);
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].rule, findings[0].mark), ("service", Mark::Broken));
    assert!(findings[0].seen.ends_with("there is one in explain-healthy"), "{findings:?}");
    let cure = findings[0].cure.as_deref().expect("a cure");
    assert!(cure.contains("lab explain explain-healthy/greeter --context here"), "{cure}");
    view.namespace = "explain-healthy".to_owned();
    view.name = "greter".to_owned();
    let finding = only_broken(&view);
    assert!(finding.seen.ends_with("it has: greeter"), "{finding:?}");
}

#[test]
fn two_services_of_one_name_make_a_lost_client_a_guess() {
    let mut view = set_up("wrong-namespace");
    let mut other = view.services[0].clone();
    other.metadata.namespace = "other".to_owned();
    view.services.push(other);
    assert!(of(&view, Mark::Broken).is_empty());
    assert_eq!(of(&view, Mark::Warns)[0].rule, "namespace");
}

#[test]
fn what_could_not_be_read_is_never_taken_for_absent() {
    let mut view = set_up("wrong-namespace");
    let why = "Error from server (Forbidden)".to_owned();
    view.unread = vec![Unread { what: "services of other namespaces", why }];
    assert_eq!(one_of(&view, "namespace").mark, Mark::NotJudged);
    let mut view = set_up("no-rights");
    view.access = access(Err("you may not impersonate".to_owned()));
    let finding = one_of(&view, "access");
    assert_eq!(finding.mark, Mark::NotJudged);
    assert!(finding.seen.contains("you may not impersonate"), "{finding:?}");
}

#[test]
fn with_the_rights_a_watching_client_has_nothing_against_it() {
    let mut view = set_up("no-rights");
    view.access = access(Ok(true));
    assert!(of(&view, Mark::Broken).is_empty());
    assert_eq!(one_of(&view, "access").mark, Mark::Holds);
}

/// The healthy client's environment with one variable changed.
fn with_env(name: &str, value: &str) -> View {
    let mut view = set_up("healthy");
    let client = view.workloads.iter_mut().find(|of| of.metadata.name == "shop").expect("a client");
    let env = &mut client.spec.template.spec.containers[0].env;
    env.retain(|variable| variable.name != name);
    env.push(EnvVar { name: name.to_owned(), value: Some(value.to_owned()) });
    view
}

#[test]
fn a_client_of_ours_that_was_given_pick_first_is_found_on_a_headless_service() {
    let finding = only_broken(&with_env("GREETER_LB_POLICY_NAME", "pick_first"));
    assert_eq!(finding.rule, "policy");
    let cure = finding.cure.expect("a cure");
    assert!(cure.ends_with("set env deployment/shop GREETER_LB_POLICY_NAME=round_robin"), "{cure}");
}

#[test]
fn a_watching_client_needs_a_port_of_the_pods_by_number_or_name() {
    for (port, fits) in [("grpc", true), ("8000", true), ("http", false), ("80", false)] {
        let target = format!("kubernetes:///greeter:{port}");
        let finding = one_of(&with_env("GREETER_SERVICE_TARGET", &target), "port");
        assert_eq!(finding.mark == Mark::Holds, fits, "{port}: {finding:?}");
        if !fits {
            assert!(finding.seen.ends_with("the pods' ports are grpc=8000"), "{finding:?}");
        }
    }
}

#[test]
fn behind_a_cluster_ip_the_services_own_port_counts() {
    let mut view = set_up("cluster-ip");
    assert_eq!(one_of(&view, "port").mark, Mark::Holds);
    view.services[0].spec.ports[0].port = 8080;
    let finding = one_of(&view, "port");
    assert_eq!(finding.mark, Mark::Broken);
    assert!(finding.cure.expect("a cure").ends_with("dns:///greeter:8080"));
}

#[test]
fn a_target_port_that_pods_do_not_have_is_broken_by_name_and_doubtful_by_number() {
    let cases =
        [(PortRef::Name("http".to_owned()), Mark::Broken), (PortRef::Number(8001), Mark::Warns)];
    for (port, mark) in cases {
        let mut view = set_up("healthy");
        view.services[0].spec.ports[0].target_port = Some(port);
        let finding = one_of(&view, "port");
        assert_eq!(finding.mark, mark, "{finding:?}");
        assert!(finding.seen.ends_with("they declare grpc=8000"), "{finding:?}");
    }
}

#[test]
fn a_pod_outside_of_the_mesh_needs_no_protocol_and_a_wrong_one_is_as_bad_as_none() {
    let mut view = set_up("no-protocol");
    for workload in &mut view.workloads {
        let labels = &mut workload.spec.template.metadata.labels;
        labels.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    }
    assert_eq!(one_of(&view, "protocol").mark, Mark::Holds);
    let mut view = set_up("healthy-mesh");
    view.services[0].spec.ports[0].app_protocol = Some("tcp".to_owned());
    assert_eq!(one_of(&view, "protocol").mark, Mark::Broken);
}

#[test]
fn a_mesh_balances_behind_a_cluster_ip_and_a_balancer_spares_the_policy() {
    let view = set_up("healthy-mesh");
    assert_eq!(one_of(&view, "headless").mark, Mark::Holds);
    let mut view = with_env("GREETER_LB_POLICY_NAME", "grpclb");
    assert!(of(&view, Mark::Broken).is_empty());
    let client = view.workloads.iter_mut().find(|of| of.metadata.name == "shop").expect("a client");
    client.spec.template.spec.containers[0].env =
        vec![EnvVar { name: "BACKEND_SERVICE_NAME".to_owned(), value: Some("greeter".to_owned()) }];
    let balancer = &view.clients()[0];
    assert_eq!(balancer.role, clients::Role::Balancer);
    assert!(of(&view, Mark::Broken).is_empty(), "{:#?}", of(&view, Mark::Broken));
}

#[test]
fn settings_for_other_protocols_are_doubtful() {
    let mut view = set_up("healthy");
    view.services[0].spec.session_affinity = "ClientIP".to_owned();
    view.services[0].spec.publish_not_ready_addresses = true;
    let warns = of(&view, Mark::Warns);
    assert_eq!(warns.len(), 2);
    assert!(warns.iter().all(|finding| finding.rule == "settings"));
}

#[test]
fn an_unbalanced_answer_of_dns_and_a_silent_port_are_told() {
    let mut view = set_up("healthy");
    let ready = view.ready_addresses();
    let first = ready[0].clone();
    let at = |port: u16| ready.iter().map(|ip| format!("{ip}:{port}")).collect::<Vec<_>>();
    view.reach.dns = Some(Ok(ready.clone()));
    view.reach.ready = Some(Ok(at(8000)));
    assert_eq!(one_of(&view, "dns").mark, Mark::Holds);
    assert_eq!(one_of(&view, "probe").mark, Mark::Holds);
    view.reach.dns = Some(Ok(vec![first.clone()]));
    view.reach.ready = Some(Ok(vec![format!("{first}:8000")]));
    assert_eq!(one_of(&view, "dns").mark, Mark::Warns);
    let finding = one_of(&view, "probe");
    assert_eq!(finding.mark, Mark::Broken);
    assert!(finding.seen.contains(&format!("not on {}", ready[1])), "{finding:?}");
}

#[test]
fn the_text_has_a_line_for_each_rule_and_the_cure_below_what_is_broken() {
    let view = set_up("no-endpoints");
    let answer = Explanation::new(CONTEXT, view);
    assert!(!answer.holds);
    let text = answer.text();
    assert!(text.starts_with("explain-no-endpoints/greeter on here\n"), "{text}");
    let cure = "cure: kubectl --context here -n explain-no-endpoints scale deployment/greeter";
    assert!(
        text.contains("× endpoints  no endpoints: deployment/greeter has 0 replicas"),
        "{text}"
    );
    assert!(text.contains(cure), "{text}");
    assert!(text.ends_with("× 1 of 15 rules are broken, 0 may be\n"), "{text}");
}

#[test]
fn a_service_is_named_with_its_namespace() {
    assert_eq!(split("web/greeter"), Ok(("web".to_owned(), "greeter".to_owned())));
    for bad in ["greeter", "/greeter", "web/", ""] {
        assert!(split(bad).is_err(), "{bad}");
    }
}

#[test]
fn objects_of_other_versions_are_read_and_what_is_missing_has_a_default() {
    let slice: Slice = serde_json::from_str(r#"{"endpoints":null,"ports":null,"new":1}"#).unwrap();
    assert!(slice.endpoints.is_none());
    let service: Service = serde_json::from_str(r#"{"spec":{"ports":[{"port":80}]}}"#).unwrap();
    assert!(!service.is_headless());
    let pod: Pod = serde_json::from_str("{}").unwrap();
    assert!(!pod.is_ready());
    let (_, _): (Namespace, Workload) = (Namespace::default(), Workload::default());
}
