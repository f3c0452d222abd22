//! The checks' names, and with them which phases are traced: those in which a client makes calls.
//! Where the lab makes them itself (`unharmed`) an Envoy that traces would change the very headers
//! that are looked at.

/// What the checks of one phase are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    /// `example/phase`.
    phase: &'static str,
    pub(super) spans_are_calls: &'static str,
    /// Where Envoys take part.
    pub(super) one_trace: &'static str,
}

macro_rules! ids {
    ($($example:literal: $($phase:literal)+;)+) => {
        &[$($(Ids {
            phase: concat!($example, "/", $phase),
            spans_are_calls: concat!($example, ".", $phase, ".spans_are_calls"),
            one_trace: concat!($example, ".", $phase, ".one_trace"),
        },)+)+]
    };
}

const ALL: &[Ids] = ids! {
    "baseline": "round_robin" "pick_first";
    "round-robin": "steady" "scale" "age" "kill" "rolling" "storm" "replaced" "hang";
    "envoy-static": "steady" "least_request" "workers" "scale" "kill";
    "envoy-dynamic": "steady" "scale" "kill" "away" "fault" "load";
    "mesh": "steady" "strangers" "scale" "kill" "away" "fault";
    "lookaside": "steady" "scale" "kill" "balancers" "drops" "load";
    "kubernetes": "steady" "scale" "kill" "rolling" "away";
};

/// What a show is called instead of a phase: it has no checks of its spans, and is traced for
/// whoever looks.
pub(crate) const LIVE: &str = "live";

/// Whether this is a show.
pub(super) fn is_live(phase: &str) -> bool {
    phase.split_once('/').is_some_and(|(_, part)| part == LIVE)
}

/// The names of `phase`, or of the phase of which it is a part (`example/phase-part`); `None` of
/// one that is not traced.
pub(super) fn of(phase: &str) -> Option<Ids> {
    let is_of = |ids: &&Ids| belongs(phase, ids.phase);
    ALL.iter().find(is_of).copied()
}

/// Whether `part` is `phase` or a part of it.
pub(super) fn belongs(part: &str, phase: &str) -> bool {
    part.strip_prefix(phase).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn every_phase_of_every_example_is_traced_unless_the_lab_makes_its_calls() {
        let mut known = 0;
        for example in examples::ALL {
            for phase in example.phases {
                let name = format!("{}/{}", example.name, phase.name);
                let ids = of(&name);
                assert_eq!(ids.is_some(), phase.name != "unharmed", "{name}");
                let Some(ids) = ids else { continue };
                known += 1;
                assert_eq!(ids.spans_are_calls, format!("{}.spans_are_calls", dotted(&name)));
                assert_eq!(ids.one_trace, format!("{}.one_trace", dotted(&name)));
            }
        }
        assert_eq!(known, ALL.len(), "a phase is gone");
    }

    fn dotted(name: &str) -> String {
        name.replace('/', ".")
    }

    #[test]
    fn a_part_of_a_phase_has_its_names_and_another_phase_has_not() {
        assert_eq!(of("lookaside/load-equal"), of("lookaside/load"));
        assert_eq!(of("bench"), None);
        assert!(!belongs("round-robin/kill", "round-robin/ki"));
    }
}
