//! Who answered when: what a chart is drawn from. The client counts in slots of a length that suits
//! the phase's checks; here they are joined until a chart of them is readable and a long run's page
//! is not megabytes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::client::Report;

/// A chart is some hundred dots wide.
const SLOTS_MAX: usize = 400;
/// More colours than anybody tells apart; the others are one.
const BACKENDS_MAX: usize = 24;
const OTHERS: &str = "others";

/// Answers and failures in slots of equal length, by completion.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OverTime {
    pub(crate) from_unix_s: f64,
    pub(crate) slot_s: f64,
    /// In the order of their first answers.
    pub(crate) backends: Vec<Answers>,
    pub(crate) failed: Vec<u64>,
}

/// What one backend answered in each slot.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Answers {
    pub(crate) backend: String,
    pub(crate) calls: Vec<u64>,
}

impl OverTime {
    /// Of a report with slots.
    pub(crate) fn of(report: &Report) -> Option<Self> {
        let own_s = report.slot_s.filter(|slot_s| *slot_s > 0.0)?;
        let from_unix_s = report.started_unix_s;
        // A slot's own start, not its place in the list: empty ones are left out.
        let number = |unix_s: f64| ((unix_s - from_unix_s) / own_s).round().max(0.0) as usize;
        let count = report.slots.iter().map(|slot| number(slot.unix_s) + 1).max()?;
        let joined = count.div_ceil(SLOTS_MAX);
        let len = count.div_ceil(joined);
        let mut backends: Vec<Answers> = Vec::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut failed = vec![0; len];
        for slot in &report.slots {
            let at = number(slot.unix_s) / joined;
            failed[at] += slot.fail;
            for (backend, calls) in &slot.by_backend {
                let place = *places.entry(backend).or_insert_with(|| {
                    if backends.len() <= BACKENDS_MAX {
                        let name = if backends.len() < BACKENDS_MAX { backend } else { OTHERS };
                        let (backend, calls) = (name.to_owned(), vec![0; len]);
                        backends.push(Answers { backend, calls });
                    }
                    backends.len() - 1
                });
                backends[place].calls[at] += calls;
            }
        }
        Some(Self { from_unix_s, slot_s: own_s * joined as f64, backends, failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Slot;

    fn slot(unix_s: f64, calls: &[(&str, u64)], fail: u64) -> Slot {
        let by_backend = calls.iter().map(|(name, calls)| ((*name).to_owned(), *calls)).collect();
        Slot { unix_s, by_backend, fail }
    }

    fn report(slots: Vec<Slot>) -> Report {
        Report { started_unix_s: 100.0, slot_s: Some(0.1), slots, ..Report::default() }
    }

    #[test]
    fn each_slot_has_its_place_in_time_and_empty_ones_are_zero() {
        let slots = vec![slot(100.0, &[("b", 2)], 0), slot(100.3, &[("a", 1), ("b", 3)], 4)];
        let seen = OverTime::of(&report(slots)).unwrap();
        let names: Vec<&str> = seen.backends.iter().map(|b| &*b.backend).collect();
        assert_eq!(names, ["b", "a"], "who answered first comes first");
        assert_eq!(seen.backends[0].calls, [2, 0, 0, 3]);
        assert_eq!(seen.backends[1].calls, [0, 0, 0, 1]);
        assert_eq!((&seen.failed[..], seen.slot_s), (&[0, 0, 0, 4][..], 0.1));
    }

    #[test]
    fn a_long_run_is_joined_and_loses_no_call() {
        let slots = (0..3_601).map(|k| slot(100.0 + 0.1 * f64::from(k), &[("a", 2)], 1)).collect();
        let seen = OverTime::of(&report(slots)).unwrap();
        assert!(seen.failed.len() <= SLOTS_MAX);
        assert!((seen.slot_s - 1.0).abs() < 1e-9, "{}", seen.slot_s);
        assert_eq!(seen.backends[0].calls.iter().sum::<u64>(), 7_202);
        assert_eq!(seen.failed.iter().sum::<u64>(), 3_601);
    }

    #[test]
    fn many_backends_are_joined_under_one_name_and_lose_no_call() {
        let names: Vec<String> = (0..40).map(|n| format!("10.0.0.{n}")).collect();
        let slots = names.iter().map(|name| slot(100.0, &[(name, 1)], 0)).collect();
        let seen = OverTime::of(&report(slots)).unwrap();
        assert_eq!(seen.backends.len(), BACKENDS_MAX + 1);
        let others = seen.backends.last().unwrap();
        assert_eq!((&*others.backend, others.calls[0]), (OTHERS, 16));
    }

    #[test]
    fn without_slots_there_is_nothing_to_draw() {
        assert_eq!(OverTime::of(&Report::default()), None);
        assert_eq!(OverTime::of(&report(Vec::new())), None);
    }
}
