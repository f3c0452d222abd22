//! Example 4 under Istio's own istiod, on files: what is said of it then, and what is not run.

use crate::report::{ExampleReport, NotChecked};

/// The phases that need identities.
const PHASES_NOT_RUN: [&str; 1] = ["strangers"];
pub(crate) const NO_IDENTITIES: &str =
    "outside of a cluster istiod certifies nobody, so nothing is encrypted";
const NOT_OURS: &str = "istiod sends fields that Envoy calls deprecated; they are not ours";
/// Checks that say nothing under istiod.
const NOT_RUN: [(&str, &str); 10] = [
    ("mesh.steady.mutual_tls", NO_IDENTITIES),
    ("mesh.strangers.refused", NO_IDENTITIES),
    ("mesh.strangers.impostor_unused", NO_IDENTITIES),
    ("mesh.unharmed.caller_named", NO_IDENTITIES),
    ("mesh.steady.nothing_deprecated", NOT_OURS),
    ("mesh.scale.nothing_deprecated", NOT_OURS),
    ("mesh.kill.nothing_deprecated", NOT_OURS),
    ("mesh.away.nothing_deprecated", NOT_OURS),
    ("mesh.fault.nothing_deprecated", NOT_OURS),
    ("mesh.unharmed.nothing_deprecated", NOT_OURS),
];

/// Whether `phase` can be played under istiod.
pub(crate) fn plays(phase: &str) -> bool {
    !PHASES_NOT_RUN.contains(&phase)
}

/// Says in `report`, which is of this example, what was run.
pub(crate) fn tell(report: &mut ExampleReport) {
    report.title = "a mesh without identities: an Envoy on both sides, told by istiod on files";
    report.control_plane = "istiod (Istio's pilot-discovery, unmodified), which follows files";
    report.real = &[
        "the greeter processes",
        "the client",
        "each Envoy",
        "istiod",
        "every xDS message",
        "every fault",
    ];
    report.doubles = &[
        "the API server (one that holds nothing; istiod does not start without any)",
        "Service and pods (a ServiceEntry and its endpoints, in files that the lab writes)",
    ];
    report.picture = PICTURE;
    // Of a phase that nobody asked for its checks are not missing.
    let ran = |phase: &str| report.phases.iter().any(|of| of.name == phase);
    let missed = |id: &str| phase_of(id).is_some_and(|phase| ran(phase) || !plays(phase));
    let not_run = NOT_RUN.iter().filter(|(id, _)| missed(id));
    report.checks_not_run = not_run.map(|(id, why)| NotChecked { id, why }).collect();
}

/// The middle of `example.phase.check`.
fn phase_of(id: &str) -> Option<&str> {
    id.split('.').nth(1)
}

const PICTURE: &str = "\
\x20 client -- HTTP/2 --> Envoy --- HTTP/2 ---> Envoy -- HTTP/2 --> greeter 1   1/3
        one connection     | \\_____ HTTP/2 ---> Envoy -- HTTP/2 --> greeter 2   1/3
                           |  \\____ HTTP/2 ---> Envoy -- HTTP/2 --> greeter 3   1/3
                           |                      |
                           '-- ADS ----------- istiod ---- inotify ---> files
                               (listeners, routes, clusters, endpoints)

  knows the endpoints: istiod               picks: the client's Envoy, per call
  HTTP/2 ends: client, each Envoy, greeter  survives: losing istiod (the last configuration
  TLS: none                                 serves), losing a pod (but its calls in flight);
                                            not losing the client's Envoy";

#[cfg(test)]
mod tests {
    use super::{super::EXAMPLE, *};
    use crate::{client::Report, examples::Phase, report::PhaseReport};

    #[test]
    fn what_is_not_run_is_said_with_its_reason_and_the_picture_has_no_tls() {
        let ran = |phase: &&Phase| plays(phase.name) && phase.name != "kill";
        let phases = EXAMPLE.phases.iter().filter(ran);
        let phases = phases.map(|of| PhaseReport::new(of.name, of.what, &Report::default()));
        let mut report = ExampleReport::new(&EXAMPLE, phases.collect());
        tell(&mut report);
        assert!(report.control_plane.contains("istiod"));
        assert!(PICTURE.is_ascii() && PICTURE.lines().all(|line| line.len() <= 96));
        assert!(!PICTURE.contains("mTLS"));
        let said = |id: &str| report.checks_not_run.iter().any(|of| of.id == id);
        for phase in EXAMPLE.phases {
            let id = format!("mesh.{}.nothing_deprecated", phase.name);
            assert_eq!(said(&id), plays(phase.name) && phase.name != "kill", "{id}");
        }
        assert!(said("mesh.strangers.refused"), "nobody can ask for that phase");
        assert!(NOT_RUN.iter().all(|(_, why)| !why.is_empty()));
    }
}
