//! What is promised of connections between the pods of a mesh.

use std::collections::BTreeSet;

use super::Check;
use crate::client::Report;

/// What one Envoy counts of connections to or from other pods.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Secured {
    pub(crate) connections: u64,
    /// TLS handshakes that succeeded.
    pub(crate) handshakes: u64,
    /// Connections whose other end showed no certificate.
    pub(crate) without_certificate: u64,
}

/// Somebody who is not to be served.
#[derive(Clone, Debug)]
pub(crate) struct Stranger {
    pub(crate) who: &'static str,
    /// The answer, or why there was none.
    pub(crate) outcome: Result<String, String>,
    /// Refusals of this kind that Envoy counted.
    pub(crate) counted: u64,
}

/// Every connection between the client's Envoy and the pods' Envoys is TLS, and both ends of each
/// showed a certificate.
pub(crate) fn mutual_tls(
    id: &'static str,
    from: Secured,
    to: &[Secured],
    breaks: &'static str,
) -> Check {
    let all = |one: &Secured| {
        one.connections > 0 && one.handshakes == one.connections && one.without_certificate == 0
    };
    let shown = |one: &Secured| format!("{} of {}", one.handshakes, one.connections);
    let servers: Vec<String> = to.iter().map(shown).collect();
    Check {
        id,
        holds: all(&from) && !to.is_empty() && to.iter().all(all),
        expected: "every connection has a TLS handshake on both sides, with both certificates"
            .to_owned(),
        seen: format!("client's Envoy {}, pods' Envoys {}", shown(&from), servers.join(", ")),
        breaks,
    }
}

/// Whoever has no right to call is refused by the pod's Envoy, which counts why; and whoever has it
/// is served, or nothing would be shown.
pub(crate) fn strangers_refused(
    id: &'static str,
    friend: &Result<String, String>,
    strangers: &[Stranger],
    breaks: &'static str,
) -> Check {
    let refused = |one: &&Stranger| one.outcome.is_err() && one.counted > 0;
    let mut seen: Vec<String> = strangers
        .iter()
        .map(|one| match &one.outcome {
            Ok(answer) => format!("{} got {answer:?}", one.who),
            Err(_) => format!("{} refused ({} counted)", one.who, one.counted),
        })
        .collect();
    seen.push(match friend {
        Ok(_) => "the client's identity served".to_owned(),
        Err(error) => format!("the client's identity refused: {error}"),
    });
    Check {
        id,
        holds: friend.is_ok()
            && !strangers.is_empty()
            && strangers.iter().filter(refused).count() == strangers.len(),
        expected: "only the client's identity is served".to_owned(),
        seen: seen.join(", "),
        breaks,
    }
}

/// A server with somebody else's identity gets no call, though it is listed: the client's Envoy
/// refuses its certificate.
pub(crate) fn impostor_unused(
    id: &'static str,
    answered: u64,
    by_impostor: u64,
    refused: u64,
    breaks: &'static str,
) -> Check {
    Check {
        id,
        holds: answered > 0 && by_impostor == 0 && refused > 0,
        expected: "0 calls to it, and its certificate refused".to_owned(),
        seen: format!(
            "{by_impostor} of {answered} answers by it, {refused} times its name was refused"
        ),
        breaks,
    }
}

/// The application hears from its Envoy who calls, by the caller's identity.
pub(crate) fn caller_named(
    id: &'static str,
    heard: &[String],
    caller: &str,
    breaks: &'static str,
) -> Check {
    let named = |value: &String| value.split([';', ',']).any(|one| one == format!("URI={caller}"));
    Check {
        id,
        holds: heard.len() == 1 && heard.iter().all(named),
        expected: format!("the application hears that {caller} calls"),
        seen: if heard.is_empty() { "it hears nothing".to_owned() } else { heard.join(" | ") },
        breaks,
    }
}

/// Every connection of a client's Envoy to servers was TLS, and the servers showed certificates.
pub(crate) fn secured(id: &'static str, from: Secured, breaks: &'static str) -> Check {
    let Secured { connections, handshakes, without_certificate } = from;
    Check {
        id,
        holds: connections > 0 && handshakes == connections && without_certificate == 0,
        expected: "every connection to a server has a TLS handshake, with its certificate"
            .to_owned(),
        seen: format!(
            "{handshakes} handshakes of {connections} connections, {without_certificate} without \
             a certificate"
        ),
        breaks,
    }
}

/// None of `calls_min` calls of `who` was answered, and all that failed did with one of `codes`.
pub(crate) fn all_refused(
    id: &'static str,
    report: &Report,
    (who, codes): (&str, &[&str]),
    calls_min: u64,
    breaks: &'static str,
) -> Check {
    let count = |code: &&str| report.by_code.get(*code).copied().unwrap_or_default();
    let with_code: u64 = codes.iter().map(count).sum();
    let code = codes.join(" or ");
    Check {
        id,
        holds: report.ok == 0 && with_code == report.fail && report.fail >= calls_min,
        expected: format!("{who}: all of >= {calls_min} calls fail with {code}"),
        seen: format!("{} answered, {with_code} of {} with {code}", report.ok, report.fail),
        breaks,
    }
}

/// Of the containers that a namespace with pod security *restricted* would refuse there is none but
/// `known`.
pub(crate) fn restricted_refuses_only(
    id: &'static str,
    refused: &BTreeSet<String>,
    known: &str,
    breaks: &'static str,
) -> Check {
    let names: Vec<&str> = refused.iter().map(String::as_str).collect();
    Check {
        id,
        holds: names.iter().all(|name| *name == known),
        expected: format!("pod security restricted would refuse nothing but {known}"),
        seen: match names.as_slice() {
            [] => "it would refuse nothing".to_owned(),
            names => format!("it would refuse {}", names.join(", ")),
        },
        breaks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKS: &str = "a flag";

    #[test]
    fn one_plain_connection_or_one_without_a_certificate_is_found_on_either_side() {
        let secured = |connections, handshakes, without_certificate| Secured {
            connections,
            handshakes,
            without_certificate,
        };
        let good = secured(3, 3, 0);
        let check = |from, to: &[Secured]| mutual_tls("m", from, to, BREAKS).holds;
        assert!(check(good, &[good, good]));
        for bad in [secured(3, 2, 0), secured(3, 3, 1), secured(0, 0, 0)] {
            assert!(!check(bad, &[good]));
            assert!(!check(good, &[good, bad]));
        }
        assert!(!check(good, &[]), "nobody was asked");
    }

    #[test]
    fn a_stranger_that_is_served_or_that_nobody_counted_fails_the_check() {
        let one = |outcome: Result<&str, &str>, counted| Stranger {
            who: "somebody",
            outcome: outcome.map(str::to_owned).map_err(str::to_owned),
            counted,
        };
        let friend = Ok("Hello".to_owned());
        let check = |friend: &Result<String, String>, all: &[Stranger]| {
            strangers_refused("s", friend, all, BREAKS).holds
        };
        let refused = one(Err("closed"), 1);
        assert!(check(&friend, &[refused.clone(), refused.clone()]));
        assert!(!check(&friend, &[refused.clone(), one(Ok("Hello"), 0)]));
        assert!(!check(&friend, &[one(Err("nobody listens"), 0)]), "refused by nobody");
        assert!(!check(&Err("closed".to_owned()), &[refused]), "everybody is refused");
        assert!(!check(&friend, &[]));
    }

    #[test]
    fn the_application_hears_one_caller_and_the_right_one() {
        let caller = "spiffe://lab.local/ns/default/sa/client";
        let check = |heard: &[&str]| {
            let heard: Vec<String> = heard.iter().map(|value| (*value).to_owned()).collect();
            caller_named("c", &heard, caller, BREAKS).holds
        };
        let right = format!("By=spiffe://x;Hash=ab;URI={caller}");
        assert!(check(&[&right]));
        assert!(!check(&[]));
        assert!(!check(&[&right, &right]), "one of them is the caller's own word");
        assert!(!check(&[&format!("URI={caller}/other")]));
        assert!(!check(&["URI=spiffe://lab.local/ns/default/sa/stranger"]));
    }

    #[test]
    fn an_impostor_has_to_be_tried_and_refused() {
        let check =
            |answered, by, refused| impostor_unused("i", answered, by, refused, BREAKS).holds;
        assert!(check(300, 0, 4));
        assert!(!check(300, 1, 4));
        assert!(!check(300, 0, 0), "it was never tried");
        assert!(!check(0, 0, 4), "nobody was answered");
    }

    #[test]
    fn a_connection_of_the_client_without_tls_or_no_connection_at_all_is_found() {
        let of = |connections, handshakes, without_certificate| Secured {
            connections,
            handshakes,
            without_certificate,
        };
        assert!(secured("s", of(3, 3, 0), BREAKS).holds);
        for bad in [of(3, 2, 0), of(3, 3, 1), of(0, 0, 0)] {
            assert!(!secured("s", bad, BREAKS).holds, "{bad:?}");
        }
    }

    #[test]
    fn one_answer_or_one_other_code_shows_that_not_all_were_refused() {
        let report = |ok, fail, denied| Report {
            calls: ok + fail,
            ok,
            fail,
            by_code: [("PERMISSION_DENIED".to_owned(), denied)].into(),
            ..Report::default()
        };
        let check = |report: &Report| {
            all_refused("r", report, ("somebody", &["PERMISSION_DENIED"]), 100, BREAKS).holds
        };
        assert!(check(&report(0, 100, 100)));
        assert!(!check(&report(1, 100, 100)), "one was answered");
        assert!(!check(&report(0, 100, 99)), "one failed for another reason");
        assert!(!check(&report(0, 0, 0)), "nobody called");
    }

    #[test]
    fn a_container_of_ours_that_restricted_refuses_fails_the_check() {
        let check = |names: &[&str]| {
            let refused = names.iter().map(|name| (*name).to_owned()).collect();
            restricted_refuses_only("r", &refused, "istio-init", BREAKS)
        };
        assert!(check(&["istio-init"]).holds);
        assert!(check(&[]).holds, "Istio's CNI plug-in");
        let bad = check(&["greeter", "istio-init"]);
        assert!(!bad.holds && bad.seen.contains("greeter, istio-init"), "{}", bad.seen);
    }
}
