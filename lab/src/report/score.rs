//! What an example comes to, in the figures that all of them have: one line of the scorecard. It is
//! made from the phases, so a phase that was not run leaves a gap and no zero.

use serde::Serialize;

use super::PhaseReport;
use crate::client::Latency;

/// How the phase in which nothing happens is called; the baseline's is named after the policy.
const STEADY: [&str; 2] = ["steady", "round_robin"];
/// How those with the faults are called everywhere.
const SCALE: &str = "scale";
const KILL: &str = "kill";

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Score {
    /// Of all phases together.
    pub(crate) checks: usize,
    pub(crate) checks_held: usize,
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    /// Nothing happens: how far the share of the backend that is farthest off is from an equal one,
    /// in parts of the equal one.
    pub(crate) farthest_share: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// Pods come: from the publication of the last one to its first call.
    pub(crate) scale_up_s: Option<f64>,
    /// A backend is killed: from then to the end of the last call that failed; 0 when none did.
    pub(crate) dead_left_s: Option<f64>,
    /// Calls that this cost.
    pub(crate) dead_lost: Option<u64>,
}

impl Score {
    /// Of an example's phases.
    pub(crate) fn of(phases: &[PhaseReport]) -> Self {
        let named = |name: &str| phases.iter().find(|phase| phase.name == name);
        let checks = || phases.iter().flat_map(|phase| &phase.checks);
        let steady = STEADY.iter().find_map(|name| named(name));
        let kill = named(KILL);
        let latency = |of: fn(&Latency) -> Option<f64>| of(&steady?.client.latency_ms);
        Self {
            checks: checks().count(),
            checks_held: checks().filter(|check| check.holds).count(),
            calls: phases.iter().map(|phase| phase.client.calls).sum(),
            failed: phases.iter().map(|phase| phase.client.fail).sum(),
            farthest_share: steady.and_then(farthest),
            p50_ms: latency(|ms| ms.p50),
            p99_ms: latency(|ms| ms.p99),
            scale_up_s: named(SCALE).and_then(scale_up_s),
            dead_left_s: kill.and_then(|phase| phase.figures.get("dead_left_s").copied()),
            dead_lost: kill.map(|phase| phase.client.fail),
        }
    }
}

/// A backend that answered nothing has no row; it is known by its process.
fn farthest(phase: &PhaseReport) -> Option<f64> {
    let rows = &phase.distributions.first()?.rows;
    let ran = phase.processes.get("greeters").map_or(0, |greeters| greeters.count);
    let equal = 1.0 / rows.len().max(ran) as f64;
    let shares = rows.iter().map(|row| row.share).chain((rows.len() < ran).then_some(0.0));
    shares.map(|share| ((share - equal) / equal).abs()).max_by(f64::total_cmp)
}

/// `None` when one of the pods was never called.
fn scale_up_s(phase: &PhaseReport) -> Option<f64> {
    let first_calls = phase.timelines.iter().map(|timeline| timeline.steps.last()?.at_s);
    let all: Vec<f64> = first_calls.collect::<Option<_>>()?;
    all.into_iter().max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::Report,
        report::{Distribution, ProcessCost, Row, Timeline, timeline::Step},
    };

    fn phase(name: &'static str, report: &Report) -> PhaseReport {
        PhaseReport::new(name, "", report)
    }

    fn row(backend: &str, share: f64) -> Row {
        let backend = backend.to_owned();
        Row { backend, calls: 1, share, p50_ms: None, p99_ms: None, max_ms: None }
    }

    fn came(at_s: Option<f64>) -> Timeline {
        let step = |event, at_s| Step { event, at_s, wait_s: None, cause: String::new() };
        let steps = vec![step("published", Some(0.0)), step("first call answered", at_s)];
        Timeline { title: String::new(), steps }
    }

    #[test]
    fn the_farthest_share_is_told_in_parts_of_an_equal_one() {
        let mut steady = phase("steady", &Report { calls: 9, ok: 9, ..Report::default() });
        let rows = vec![row("a", 0.30), row("b", 0.35), row("c", 0.35)];
        steady.distributions.push(Distribution { title: String::new(), rows });
        let score = Score::of(&[steady]);
        assert!((score.farthest_share.unwrap() - 0.10).abs() < 1e-9);
        assert_eq!((score.calls, score.scale_up_s, score.dead_lost), (9, None, None));
    }

    #[test]
    fn a_backend_that_was_never_called_is_a_share_of_nothing() {
        let mut baseline = phase("round_robin", &Report { calls: 9, ok: 9, ..Report::default() });
        let rows = vec![row("a", 1.0)];
        baseline.distributions.push(Distribution { title: String::new(), rows });
        let greeters = ProcessCost { count: 3, cpu_ms_per_1000_calls: None, rss_mib: None };
        baseline.processes.insert("greeters", greeters);
        let score = Score::of(&[baseline]);
        assert!((score.farthest_share.unwrap() - 2.0).abs() < 1e-9, "one has three times its part");
    }

    #[test]
    fn a_scale_up_is_seen_when_the_last_pod_is_called() {
        let mut scale = phase(SCALE, &Report::default());
        scale.timelines = vec![came(Some(0.5)), came(Some(2.0)), came(Some(1.0))];
        assert_eq!(Score::of(&[scale.clone()]).scale_up_s, Some(2.0));
        scale.timelines.push(came(None));
        assert_eq!(Score::of(&[scale]).scale_up_s, None);
    }

    #[test]
    fn a_dead_backend_costs_what_failed_in_its_phase() {
        let mut kill = phase(KILL, &Report { calls: 90, fail: 4, ..Report::default() });
        kill.figures.insert("dead_left_s", 0.25);
        let score = Score::of(&[kill]);
        assert_eq!((score.dead_left_s, score.dead_lost, score.failed), (Some(0.25), Some(4), 4));
    }
}
