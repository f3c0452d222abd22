//! What this machine itself sees of the Service. Most machines are outside of the cluster's network
//! and see nothing; then these rules say so.

use super::{Broken, Case, Holds, NotJudged, Verdict, Warns};

pub(super) fn dns(case: &Case<'_>) -> Vec<Verdict> {
    let ready = case.view.ready_addresses();
    vec![match &case.view.reach.dns {
        None => NotJudged("not asked: there is no endpoint that it could name".to_owned()),
        Some(Err(why)) => NotJudged(format!("not seen from here: {why}")),
        Some(Ok(named)) if !case.service.is_headless() => {
            Holds(format!("names the ClusterIP: {}", named.join(", ")))
        }
        Some(Ok(named)) if *named == ready => {
            Holds(format!("names the {} ready endpoints", named.len()))
        }
        Some(Ok(named)) => Warns(
            format!("names {}; ready are {}", named.join(", "), ready.join(", ")),
            "CoreDNS may lag by its TTL (5 s); if it stays so, look at CoreDNS's log".to_owned(),
        ),
    }]
}

pub(super) fn probe(case: &Case<'_>) -> Vec<Verdict> {
    let ready = case.view.ready_addresses();
    vec![match &case.view.reach.ready {
        None => NotJudged("not probed: there is nothing to connect to".to_owned()),
        Some(Err(why)) => NotJudged(format!("not probed: {why}")),
        Some(Ok(reached)) => {
            let not: Vec<&str> = ready
                .iter()
                .filter(|address| !reached.iter().any(|of| of.starts_with(&format!("{address}:"))))
                .map(String::as_str)
                .collect();
            if not.is_empty() {
                Holds(format!("a channel of evenkeel became READY on all {}", ready.len()))
            } else {
                Broken(
                    format!(
                        "a channel of evenkeel became READY on {} of {} endpoints; not on {}",
                        reached.len(),
                        ready.len(),
                        not.join(", ")
                    ),
                    "the process must listen on 0.0.0.0 (not 127.0.0.1) at the endpoints' port, \
                     and speak HTTP/2; with TLS this probe can't tell"
                        .to_owned(),
                )
            }
        }
    }]
}
