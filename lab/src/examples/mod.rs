//! The examples that the lab can run, as data: what `lab list` prints is what `lab run` plays.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{error::LabError, report::PhaseReport, run::Run};

mod baseline;
mod envoy_dynamic;
pub(crate) mod envoy_static;
mod kill;
mod kubernetes;
pub(crate) mod live;
mod lookaside;
pub(crate) mod mesh;
mod proxied;
mod round_robin;
mod steady;
mod told;

pub(crate) use proxied::Sidecar;
pub(crate) use told::Told;

/// Every example, in the order of its numbers.
pub(crate) static ALL: &[&Example] = &[
    &baseline::EXAMPLE,
    &round_robin::EXAMPLE,
    &envoy_static::EXAMPLE,
    &envoy_dynamic::EXAMPLE,
    &mesh::EXAMPLE,
    &lookaside::EXAMPLE,
    &kubernetes::EXAMPLE,
];

/// Other names of examples, under which people look for them.
const ALIASES: [(&str, &str); 1] = [("istio", "mesh")];

/// One way to balance gRPC calls.
pub(crate) struct Example {
    /// The alias on the command line.
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Who tells the client where the backends are.
    pub(crate) control_plane: &'static str,
    pub(crate) policy: &'static str,
    /// What in it is what a cluster has.
    pub(crate) real: &'static [&'static str],
    /// What in it plays something that a cluster has.
    pub(crate) doubles: &'static [&'static str],
    /// Who knows the endpoints, who picks, where HTTP/2 ends, what survives losing each part.
    pub(crate) picture: &'static str,
    /// Whether it can't be run without an Envoy.
    pub(crate) needs_envoy: bool,
    pub(crate) phases: &'static [Phase],
}

/// A part of an example that runs on a block of addresses of its own.
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The load it makes, for the order of play.
    pub(crate) calls_per_s: u32,
    /// About how long it takes, for the order of play.
    pub(crate) seconds: u32,
    /// Plays it under the full name (`example/phase`).
    pub(crate) play: fn(Arc<Run>, String) -> Playing,
}

/// A phase under way.
pub(crate) type Playing = Pin<Box<dyn Future<Output = Result<PhaseReport, LabError>> + Send>>;

/// The example that `word` names, by name or number.
///
/// # Errors
///
/// A message with the names that are known.
pub(crate) fn find(word: &str) -> Result<&'static Example, String> {
    let word = ALIASES.iter().find(|(alias, _)| *alias == word).map_or(word, |(_, name)| name);
    let named = |example: &&&Example| {
        example.name == word || word.parse::<u8>().is_ok_and(|number| number == example.number)
    };
    ALL.iter().find(named).copied().ok_or_else(|| {
        let known: Vec<String> =
            ALL.iter().map(|example| format!("{} {}", example.number, example.name)).collect();
        format!("unknown example \"{word}\"; known are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_found_by_name_and_by_number() {
        for example in ALL {
            assert_eq!(find(example.name).unwrap().name, example.name);
            assert_eq!(find(&example.number.to_string()).unwrap().name, example.name);
        }
        for (alias, name) in ALIASES {
            assert_eq!(find(alias).unwrap().name, name);
        }
    }

    #[test]
    fn an_unknown_example_is_told_with_those_that_are_known() {
        let Err(message) = find("meshy") else { panic!("there is no such example") };
        assert!(message.contains("\"meshy\""), "{message}");
        assert!(
            message.contains(
                "0 baseline, 1 round-robin, 2 envoy-static, 3 envoy-dynamic, 4 mesh, 5 lookaside"
            ),
            "{message}"
        );
    }

    #[test]
    fn names_and_numbers_are_unique_and_pictures_are_narrow_ascii() {
        for (index, example) in ALL.iter().enumerate() {
            for other in &ALL[index + 1..] {
                assert_ne!(example.name, other.name);
                assert_ne!(example.number, other.number);
            }
            assert!(example.picture.is_ascii(), "{}", example.name);
            assert!(example.picture.lines().all(|line| line.len() <= 96), "{}", example.name);
            for (at, phase) in example.phases.iter().enumerate() {
                assert!(example.phases[at + 1..].iter().all(|other| other.name != phase.name));
            }
        }
    }
}
