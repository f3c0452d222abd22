//! What is promised of connections between the pods of a mesh.

use super::Check;

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
}
