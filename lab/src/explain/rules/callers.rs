//! Clients: where they look, what they make of what they find, and whether they may.

use crate::explain::{
    clients::{CLIENTS_MAX, Client, Role, is_ours},
    target::Scheme,
};

use super::{Broken, Case, Holds, NotJudged, Verdict, Warns};

/// How to give a client another target.
pub(super) fn set_target(case: &Case<'_>, client: &Client, target: &str) -> String {
    match &client.variable {
        Some(variable) => format!(
            "kubectl --context {} -n {} set env {} -c {} {variable}={target}",
            case.context, client.namespace, client.reference, client.container
        ),
        None => format!("in {} of {}: {target}", client.reference, client.namespace),
    }
}

pub(super) fn found(case: &Case<'_>) -> Vec<Verdict> {
    let here: Vec<String> = here(case).map(Client::shown).collect();
    vec![match here.len() {
        0 => NotJudged(format!(
            "none of {} workloads names it in its environment or arguments; ConfigMaps and code \
             are not read",
            case.view.workloads.len()
        )),
        CLIENTS_MAX => Holds(format!("{CLIENTS_MAX} or more, among them {}", here[0])),
        _ => Holds(here.join(", ")),
    }]
}

/// Clients that look where the Service is.
fn here<'a>(case: &'a Case<'_>) -> impl Iterator<Item = &'a Client> {
    case.clients.iter().filter(|client| client.expects == case.view.namespace)
}

pub(super) fn namespace(case: &Case<'_>) -> Vec<Verdict> {
    let (name, right) = (&case.view.name, &case.view.namespace);
    if case.view.is_unread("services of other namespaces") {
        return vec![NotJudged("other namespaces can't be read".to_owned())];
    }
    let homonyms = case.view.services.iter().filter(|of| of.metadata.name == *name).count();
    let is_there = |client: &&Client| {
        let services = &mut case.view.services.iter();
        services.any(|of| of.metadata.name == *name && of.metadata.namespace == client.expects)
    };
    let lost = case.clients.iter().filter(|client| !is_there(client)).map(|client| {
        let (text, expects) = (&client.target.text, &client.expects);
        let tail = text.rsplit_once(':').map_or("", |(_, port)| port);
        let scheme = match client.target.scheme {
            Scheme::Dns => format!("dns:///{name}.{right}.svc.cluster.local:{tail}"),
            Scheme::Kubernetes => format!("kubernetes:///{name}.{right}:{tail}"),
            Scheme::Xds => format!("xds:///{name}.{right}:{tail}"),
        };
        let cure = set_target(case, client, &scheme);
        if homonyms > 1 {
            let seen = format!(
                "{} looks for {name} in {expects}, where there is none; it may mean this one, or \
                 one of {} others",
                client.shown(),
                homonyms - 1
            );
            return Warns(seen, cure);
        }
        Broken(format!("{} looks for {name} in {expects}; it is in {right}", client.shown()), cure)
    });
    let mut verdicts: Vec<Verdict> = lost.collect();
    if verdicts.is_empty() {
        verdicts.push(match case.clients.len() {
            0 => NotJudged("no client is known".to_owned()),
            many => Holds(format!("each of {many} clients looks where a Service of its name is")),
        });
    }
    verdicts
}

pub(super) fn headless(case: &Case<'_>) -> Vec<Verdict> {
    let (name, namespace) = (&case.view.name, &case.view.namespace);
    let alone: Vec<&Client> = here(case).filter(|client| client.is_on_its_own()).collect();
    if case.service.is_headless() {
        return vec![Holds("DNS names each pod".to_owned())];
    }
    let callers: Vec<&Client> = here(case).collect();
    let port = case.endpoint_ports().first().map_or(8000, |(_, port)| *port);
    let cure = format!(
        "clusterIP can't be changed: add a Service {name}-headless with the same selector and \
         `clusterIP: None`, and let clients use dns:///{name}-headless.{namespace}:{port}; clients \
         of evenkeel can use kubernetes:///{name}.{namespace}:{port} and need no other Service"
    );
    let ip = &case.service.spec.cluster_ip;
    match (alone.first(), callers.first()) {
        (Some(_), _) => alone
            .iter()
            .map(|client| {
                let policy = client.policy.unwrap_or("no policy");
                let seen = format!("{}, with {policy}, gets one address: {ip}", client.shown());
                Broken(seen, cure.clone())
            })
            .collect(),
        (None, None) => {
            vec![Warns(format!("a client that asks DNS gets one address: {ip}"), cure)]
        }
        (None, Some(_)) => {
            vec![Holds("a ClusterIP, and no client balances what DNS names".to_owned())]
        }
    }
}

pub(super) fn policy(case: &Case<'_>) -> Vec<Verdict> {
    let alone: Vec<&Client> = here(case).filter(|client| client.is_on_its_own()).collect();
    if alone.is_empty() {
        return vec![NotJudged("no known client balances what DNS names".to_owned())];
    }
    let found = alone.iter().filter_map(|client| without_policy(case, client));
    let mut verdicts: Vec<Verdict> = found
        .map(|(seen, cure)| match case.service.is_headless() {
            true => Broken(seen, cure),
            // One address leaves nothing to pick from; it counts once there are more.
            false => Warns(seen, cure),
        })
        .collect();
    if verdicts.is_empty() {
        let policies: Vec<&str> =
            alone.iter().map(|of| of.policy.unwrap_or("round_robin (its default)")).collect();
        verdicts.push(Holds(policies.join(", ")));
    }
    verdicts
}

fn without_policy(case: &Case<'_>, client: &Client) -> Option<(String, String)> {
    let config = r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#;
    let here = format!("kubectl --context {} -n {}", case.context, client.namespace);
    let cure = if client.ours {
        format!("{here} set env {} GREETER_LB_POLICY_NAME=round_robin", client.reference)
    } else {
        format!(
            "give its channel the service config {config}, or the DNS name a TXT record with it"
        )
    };
    match client.policy {
        Some("pick_first") => Some((format!("{} has pick_first", client.shown()), cure)),
        None if !client.ours => Some((
            format!(
                "{}: no policy in its environment or arguments; gRPC's default is pick_first",
                client.shown()
            ),
            cure,
        )),
        _ => None,
    }
}

pub(super) fn age(case: &Case<'_>) -> Vec<Verdict> {
    let waits = |client: &&Client| client.is_on_its_own() && !client.ours;
    let blind: Vec<&Client> = here(case).filter(waits).collect();
    let Some(first) = blind.first() else {
        return vec![match here(case).count() {
            0 => NotJudged("no client is known".to_owned()),
            _ => Holds("no known client waits for a connection's end to ask DNS".to_owned()),
        }];
    };
    let servers = case.view.servers(case.service);
    let containers = || servers.iter().flat_map(|of| &of.spec.template.spec.containers);
    let ours = containers().any(is_ours);
    let aged = containers().any(|of| {
        let in_env = |name: &str| name.contains("MAX_CONNECTION_AGE") && !name.ends_with("GRACE");
        let in_args = |arg: &String| arg.contains("max-connection-age") || arg.contains("max-age");
        of.env.iter().any(|variable| in_env(&variable.name))
            || of.args.iter().chain(&of.command).any(in_args)
    });
    let Some(server) = servers.first().filter(|_| !aged) else {
        return vec![match servers.len() {
            0 => NotJudged("what serves it is not known".to_owned()),
            _ => Holds("connections end by their age, and clients ask DNS again".to_owned()),
        }];
    };
    let reference = server.reference();
    let seen = format!(
        "{} sees new pods only when a connection ends, and {reference} sets no connection age",
        first.shown()
    );
    let cure = if ours {
        case.command(&format!("set env {reference} GRPC_MAX_CONNECTION_AGE=30s"))
    } else {
        "set the server's maximum connection age (in Go keepalive.ServerParameters, in C-core \
         grpc.max_connection_age_ms) to 30 s, with a grace"
            .to_owned()
    };
    // What is set in somebody's code can't be seen.
    vec![if ours { Broken(seen, cure) } else { Warns(seen, cure) }]
}

pub(super) fn access(case: &Case<'_>) -> Vec<Verdict> {
    let watches = |client: &&Client| {
        client.role == Role::Balancer || client.target.scheme == Scheme::Kubernetes
    };
    let watchers: Vec<&Client> = here(case).filter(watches).collect();
    if watchers.is_empty() {
        return vec![NotJudged("no known client watches EndpointSlices".to_owned())];
    }
    let mut verdicts: Vec<Verdict> = Vec::new();
    for client in &watchers {
        let answers = case.view.access.iter().filter(|of| of.account == client.account);
        let denied: Vec<&str> =
            answers.clone().filter(|of| of.allowed == Ok(false)).map(|of| of.verb).collect();
        let unknown = answers.clone().find_map(|of| of.allowed.clone().err());
        let (account, namespace) = (&client.account, &case.view.namespace);
        if !denied.is_empty() {
            verdicts.push(Broken(
                format!(
                    "{}: its ServiceAccount {account} may not {} endpointslices in {namespace}",
                    client.shown(),
                    denied.join(" or ")
                ),
                grant(case, account),
            ));
        } else if let Some(why) = unknown {
            verdicts.push(NotJudged(format!("whether {account} may is not known: {why}")));
        }
    }
    if verdicts.is_empty() {
        let accounts: Vec<&str> = watchers.iter().map(|of| of.account.as_str()).collect();
        verdicts.push(Holds(format!("{} may list and watch", accounts.join(", "))));
    }
    verdicts
}

fn grant(case: &Case<'_>, account: &str) -> String {
    let role = case.command(
        "create role endpointslices --verb=list,watch --resource=endpointslices.discovery.k8s.io",
    );
    let name = account.replace('/', "-");
    let binding = case.command(&format!(
        "create rolebinding {name}-endpointslices --role=endpointslices --serviceaccount={}",
        account.replace('/', ":")
    ));
    format!("{role}\n{binding}")
}
