//! Causal timelines: what had to happen between a pod's readiness and its first call, how long
//! each step waited, and for what. Times are relative to the publication, because that is when
//! the cluster has done its part.

use serde::Serialize;

use crate::{
    client::{Event, What, first, is_ready},
    cluster::pods::Backend,
    dns::{Dns, TTL_S},
};

/// Events and questions are stamped by two processes.
const STAMP_SLACK_S: f64 = 0.05;

/// One chain of events.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Timeline {
    pub(crate) title: String,
    pub(crate) steps: Vec<Step>,
}

/// One event of a chain.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Step {
    pub(crate) event: &'static str,
    /// `None`: it was not seen.
    pub(crate) at_s: Option<f64>,
    /// Since the step before it that was seen.
    pub(crate) wait_s: Option<f64>,
    /// What the wait was for.
    pub(crate) cause: String,
}

/// A pod that came: from ready to the first call of `address`. `held_back` says why it was not
/// published as soon as it was ready.
pub(crate) fn scale_up(
    address: &str,
    ready_unix_s: f64,
    published_unix_s: f64,
    held_back: &str,
    dns: &Dns,
    events: &[Event],
) -> Timeline {
    let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip);
    let has = |what: &What| {
        let What::ResolverUpdate { addresses } = what else { return false };
        addresses.iter().any(|known| known == address)
    };
    let asked = dns.first_question_since(published_unix_s);
    let why_asked = asked.map_or_else(String::new, |asked| {
        why_asked(asked, dns.last_question_before(published_unix_s), events)
    });
    let seen = first(events, published_unix_s, has);
    let ready = first(events, published_unix_s, |what| is_ready(what, address));
    let call = first(events, published_unix_s, |what| is_first_call(what, ip));
    chain(
        format!("{address}: from ready to its first call"),
        published_unix_s,
        &[
            ("backend ready", Some(ready_unix_s), String::new()),
            ("DNS published", Some(published_unix_s), held_back.to_owned()),
            ("DNS asked again", asked, why_asked),
            ("resolver_update seen", seen, "DNS answer, policy update".to_owned()),
            ("subchannel READY", ready, "TCP connect, then the server's SETTINGS".to_owned()),
            ("first call answered", call, "its turn in the rotation".to_owned()),
        ],
    )
}

/// A pod that came, by a balancer's list: from ready to the first call of `address`. The list is
/// the first one with `servers` servers.
pub(crate) fn scale_up_by_list(
    address: &str,
    ready_unix_s: f64,
    slice_unix_s: f64,
    servers: usize,
    events: &[Event],
) -> Timeline {
    let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip);
    let is_list = |what: &What| {
        let What::Balancer { list: Some(list), .. } = what else { return false };
        list.servers >= servers
    };
    let listed = first(events, slice_unix_s, is_list);
    let ready = first(events, slice_unix_s, |what| is_ready(what, address));
    let call = first(events, slice_unix_s, |what| is_first_call(what, ip));
    chain(
        format!("{address}: from ready to its first call"),
        slice_unix_s,
        &[
            ("backend ready", Some(ready_unix_s), String::new()),
            ("EndpointSlice written", Some(slice_unix_s), "the lab starts all first".to_owned()),
            ("list from the balancer", listed, "its watch, a snapshot, one message".to_owned()),
            ("subchannel READY", ready, "TCP connect, then the server's SETTINGS".to_owned()),
            ("first call answered", call, "its turn in the list".to_owned()),
        ],
    )
}

/// What is known of a pod that a proxy found for its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxied {
    pub(crate) ready_unix_s: f64,
    pub(crate) published_unix_s: f64,
    /// When the proxy had as many endpoints as there are now.
    pub(crate) listed_unix_s: Option<f64>,
    /// When as many were healthy.
    pub(crate) healthy_unix_s: Option<f64>,
}

/// A pod that came, found by an Envoy that asks DNS: from ready to the first call of `address`.
pub(crate) fn scale_up_by_dns_and_envoy(
    address: &str,
    pod: &Proxied,
    held_back: &str,
    dns: &Dns,
    events: &[Event],
) -> Timeline {
    let published = pod.published_unix_s;
    let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip);
    let asked = dns.first_question_since(published);
    let before = asked.zip(dns.last_question_before(published)).map(|(asked, at)| asked - at);
    let why = before.map_or_else(String::new, |since| {
        format!("TTL {TTL_S} s: asked {since:.1} s after the question before")
    });
    let call = first(events, published, |what| is_first_call(what, ip));
    chain(
        format!("{address}: from ready to its first call"),
        published,
        &[
            ("backend ready", Some(pod.ready_unix_s), String::new()),
            ("DNS published", Some(published), held_back.to_owned()),
            ("DNS asked again", asked, why),
            ("in Envoy's list", pod.listed_unix_s, "DNS answer, and the lab's look".to_owned()),
            ("health checks passed", pod.healthy_unix_s, "TCP connect, grpc.health.v1".to_owned()),
            ("first call answered", call, "its turn in the rotation".to_owned()),
        ],
    )
}

/// The same, told to Envoy by a balancer that watches EndpointSlices.
pub(crate) fn scale_up_by_xds(address: &str, pod: &Proxied, events: &[Event]) -> Timeline {
    let published = pod.published_unix_s;
    let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip);
    let call = first(events, published, |what| is_first_call(what, ip));
    let listed = "the balancer's watch, a snapshot, EDS, and the lab's look";
    chain(
        format!("{address}: from ready to its first call"),
        published,
        &[
            ("backend ready", Some(pod.ready_unix_s), String::new()),
            ("EndpointSlice written", Some(published), "the lab starts all first".to_owned()),
            ("in Envoy's list", pod.listed_unix_s, listed.to_owned()),
            ("first call answered", call, "TCP connect, its turn in the rotation".to_owned()),
        ],
    )
}

/// The same for a client that watches EndpointSlices; `published` is when it could know, and by
/// what, `why` what it then waited for.
pub(crate) fn sliced(
    address: &str,
    ready_unix_s: f64,
    published: (f64, &'static str),
    why: &str,
    events: &[Event],
) -> Timeline {
    let (published_unix_s, by) = published;
    let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip);
    let has = |what: &What| {
        let What::ResolverUpdate { addresses } = what else { return false };
        addresses.iter().any(|known| known == address)
    };
    let seen = first(events, published_unix_s, has);
    let ready = first(events, published_unix_s, |what| is_ready(what, address));
    let call = first(events, published_unix_s, |what| is_first_call(what, ip));
    chain(
        format!("{address}: from ready to its first call"),
        published_unix_s,
        &[
            ("backend ready", Some(ready_unix_s), String::new()),
            (by, Some(published_unix_s), String::new()),
            ("resolver_update seen", seen, why.to_owned()),
            ("subchannel READY", ready, "TCP connect, then the server's SETTINGS".to_owned()),
            ("first call answered", call, "its turn in the rotation".to_owned()),
        ],
    )
}

/// A pod of a cluster, from its creation to its first call. What the cluster does to start it
/// stands apart from what the client waits for: the times before `pod ready` are the objects' own,
/// in whole seconds.
pub(crate) fn on_cluster(
    pod: &Backend,
    address: &str,
    (by, why): (&'static str, &'static str),
    events: &[Event],
) -> Timeline {
    let published = pod.published_unix_s.or(pod.ready_unix_s).unwrap_or_default();
    let knows = |what: &What| {
        let What::ResolverUpdate { addresses } = what else { return false };
        addresses.iter().any(|known| known == address)
    };
    // Events of a second before: the lab may hear of a slice after the client.
    let since = published - 1.0;
    let ready = first(events, since, |what| is_ready(what, address));
    let call = first(events, since, |what| is_first_call(what, &pod.ip));
    // Lists do not say what is in them: it was the last one before the connection.
    let is_list = |event: &&Event| {
        matches!(event.what, What::Balancer { list: Some(_), .. })
            && ready.is_some_and(|ready| event.unix_s <= ready)
    };
    let list = events.iter().rev().find(is_list).map(|event| event.unix_s);
    let seen = list.or_else(|| first(events, since, knows));
    let whole = "(to the second)";
    let mut steps = vec![
        ("pod created", pod.created_unix_s, whole.to_owned()),
        ("pod scheduled", pod.scheduled_unix_s, format!("the scheduler {whole}")),
        (
            "container started",
            pod.started_unix_s,
            format!("kubelet: network, image, process {whole}"),
        ),
        ("pod ready", pod.ready_unix_s, "kubelet: its probes, and the status".to_owned()),
        ("EndpointSlice written", Some(published), "its controller".to_owned()),
    ];
    // Through a proxy the client sees nothing of the pod but its answers.
    if by.is_empty() {
        steps.push(("first call answered", call, why.to_owned()));
    } else {
        steps.extend([
            (by, seen, why.to_owned()),
            ("subchannel READY", ready, "TCP connect, then the server's SETTINGS".to_owned()),
            ("first call answered", call, "its turn in the rotation".to_owned()),
        ]);
    }
    chain(format!("{address}: from its creation to its first call"), published, &steps)
}

/// Why the client asked DNS at `asked`: its last answer had expired, or a connection had ended.
fn why_asked(asked: f64, before: Option<f64>, events: &[Event]) -> String {
    let Some(before) = before else { return "the client's first question".to_owned() };
    let since = asked - before;
    if since >= f64::from(TTL_S) {
        return format!("TTL {TTL_S} s: asked {since:.1} s after the question before");
    }
    // What made the client ask may be stamped a moment before its last question was.
    let lost = events.iter().any(|event| {
        event.unix_s >= before - STAMP_SLACK_S && event.unix_s <= asked && is_loss(&event.what)
    });
    if lost {
        format!("a lost connection: at once, but one question a second ({since:.1} s)")
    } else {
        format!("asked {since:.1} s after the question before, before its TTL")
    }
}

/// What makes a channel ask for a resolution before the TTL ends.
fn is_loss(what: &What) -> bool {
    match what {
        What::Draining { .. } | What::Disconnected { .. } => true,
        What::Subchannel { state, .. } => state == "TRANSIENT_FAILURE",
        _ => false,
    }
}

/// An outage: from the kill of `address` to the moment it serves again.
pub(crate) fn outage(
    address: &str,
    killed_unix_s: f64,
    returned_unix_s: f64,
    events: &[Event],
) -> Timeline {
    let ended =
        |what: &What| matches!(what, What::Disconnected { address: at, .. } if at == address);
    let eof = first(events, killed_unix_s, ended);
    let refused = first(events, killed_unix_s, |what| is_state(what, address, "TRANSIENT_FAILURE"));
    let tried = first(events, returned_unix_s, |what| is_state(what, address, "CONNECTING"));
    let ready = first(events, returned_unix_s, |what| is_ready(what, address));
    chain(
        format!("{address}: from kill -9 to READY again"),
        returned_unix_s,
        &[
            ("killed", Some(killed_unix_s), String::new()),
            ("connection ended", eof, "the kernel closes the dead process's sockets".to_owned()),
            ("reconnect refused", refused, "round_robin reconnects at once".to_owned()),
            (
                "backend ready again",
                Some(returned_unix_s),
                "the outage: its container restarts".to_owned(),
            ),
            ("next attempt", tried, "backoff: 1 s x 1.6 +- 20 %".to_owned()),
            ("subchannel READY", ready, "TCP connect, then the server's SETTINGS".to_owned()),
        ],
    )
}

fn is_state(what: &What, address: &str, wanted: &str) -> bool {
    matches!(what, What::Subchannel { address: at, state } if at == address && state == wanted)
}

fn is_first_call(what: &What, ip: &str) -> bool {
    matches!(what, What::FirstCall { backend } if backend == ip)
}

fn chain(title: String, zero: f64, events: &[(&'static str, Option<f64>, String)]) -> Timeline {
    let mut before: Option<f64> = None;
    let mut steps = Vec::with_capacity(events.len());
    for (event, at, cause) in events {
        let wait_s = at.zip(before).map(|(at, before)| at - before);
        before = at.or(before);
        let at_s = at.map(|at| at - zero);
        steps.push(Step { event, at_s, wait_s, cause: cause.clone() });
    }
    Timeline { title, steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(unix_s: f64, what: What) -> Event {
        Event { unix_s, what }
    }

    fn state(unix_s: f64, address: &str, state: &str) -> Event {
        event(unix_s, What::Subchannel { address: address.to_owned(), state: state.to_owned() })
    }

    #[test]
    fn an_outage_waits_for_the_kernel_the_backoff_and_the_settings() {
        let dead = "127.64.0.2:8000";
        let end = What::Disconnected { address: dead.to_owned(), reason: "EOF".to_owned() };
        let events = [
            state(5.0, dead, "READY"),
            event(10.25, end),
            state(10.5, dead, "TRANSIENT_FAILURE"),
            state(11.5, dead, "CONNECTING"),
            state(12.5, dead, "CONNECTING"),
            state(13.0, dead, "READY"),
        ];
        let timeline = outage(dead, 10.0, 12.0, &events);
        let at: Vec<_> = timeline.steps.iter().map(|step| step.at_s).collect();
        let expected = [-2.0, -1.75, -1.5, 0.0, 0.5, 1.0].map(Some);
        assert_eq!(at, expected);
        assert_eq!(timeline.steps[5].wait_s, Some(0.5));
    }

    #[test]
    fn a_question_is_explained_by_the_ttl_or_by_a_lost_connection() {
        let loss = [
            event(102.0, What::Draining { address: "127.64.0.2:8000".to_owned() }),
            state(110.0, "127.64.0.2:8000", "TRANSIENT_FAILURE"),
        ];
        assert!(why_asked(105.2, Some(100.0), &loss).starts_with("TTL 5 s: asked 5.2 s"));
        assert!(why_asked(102.5, Some(101.5), &loss).starts_with("a lost connection"));
        assert!(why_asked(111.0, Some(110.01), &loss).starts_with("a lost connection"));
        assert!(why_asked(103.5, Some(102.1), &loss).ends_with("before its TTL"));
        assert_eq!(why_asked(102.5, None, &[]), "the client's first question");
    }

    #[test]
    fn a_step_that_was_not_seen_is_told_as_such_and_the_next_wait_spans_it() {
        let steps = chain(
            "t".to_owned(),
            10.0,
            &[
                ("a", Some(9.0), String::new()),
                ("b", None, "never".to_owned()),
                ("c", Some(12.0), "b".to_owned()),
            ],
        )
        .steps;
        assert_eq!(steps[1].at_s, None);
        assert_eq!(steps[1].wait_s, None);
        assert_eq!(steps[2].at_s, Some(2.0));
        assert_eq!(steps[2].wait_s, Some(3.0));
    }
}
