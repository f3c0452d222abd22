//! `lab list`: the examples as data.

use serde::Serialize;

use crate::examples;

/// One example.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    number: u8,
    name: &'static str,
    title: &'static str,
    control_plane: &'static str,
    policy: &'static str,
    phases: Vec<PhaseRow>,
}

#[derive(Debug, Serialize)]
struct PhaseRow {
    name: &'static str,
    what: &'static str,
    seconds: u32,
}

pub(crate) fn rows() -> Vec<Row> {
    let phases = |example: &examples::Example| {
        let row = |phase: &examples::Phase| PhaseRow {
            name: phase.name,
            what: phase.what,
            seconds: phase.seconds,
        };
        example.phases.iter().map(row).collect()
    };
    examples::ALL
        .iter()
        .map(|example| Row {
            number: example.number,
            name: example.name,
            title: example.title,
            control_plane: example.control_plane,
            policy: example.policy,
            phases: phases(example),
        })
        .collect()
}

pub(crate) fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        out += &format!("{} {:<12} {}\n", row.number, row.name, row.title);
        for phase in &row.phases {
            out += &format!("    {:<12} {:>2} s  {}\n", phase.name, phase.seconds, phase.what);
        }
    }
    out + "\nlab run EXAMPLE... | --all   (--phase PHASE for a part)\n\
           --control-plane istiod: example 4 under Istio's own control plane\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_every_example_with_its_number_and_phases() {
        let text = text(&rows());
        assert!(text.contains("0 baseline"), "{text}");
        assert!(text.contains("1 round-robin"), "{text}");
        assert!(text.contains("5 lookaside"), "{text}");
        for phase in [
            "steady",
            "scale",
            "age",
            "rolling",
            "storm",
            "replaced",
            "hang",
            "pick_first",
            "drops",
        ] {
            assert!(text.contains(phase), "{text}");
        }
    }
}
