//! What was measured, as one document: the JSON output is this structure, and the text is printed
//! from it. Slices are kept one by one, so that whoever doubts a median can make another.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{caller::Seen, statistics::Spread};
use crate::costs::Cost;

/// Changes when a key is renamed, removed, or changes its meaning; not when one is added.
pub(crate) const SCHEMA: &str = "evenkeel-bench/1";
/// Our channel may add this part of what a proxy adds.
pub(crate) const PART_MAX: f64 = 0.10;

/// A whole measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BenchReport {
    pub(crate) schema: &'static str,
    pub(crate) version: &'static str,
    pub(crate) started_unix_s: f64,
    pub(crate) wall_s: f64,
    pub(crate) cpus: usize,
    pub(crate) debug_build: bool,
    /// Of the Envoy that was measured.
    pub(crate) envoy: Option<String>,
    /// Rounds that count.
    pub(crate) rounds: usize,
    /// How often a range from the least to the greatest round holds the true median, 0 to 1.
    pub(crate) confidence: f64,
    pub(crate) ways: Vec<WayReport>,
    /// Ways that were not measured, and why.
    pub(crate) not_run: Vec<NotMeasured>,
    pub(crate) loads: Vec<LoadReport>,
    /// Whether every call of every slice was answered. No time is judged.
    pub(crate) holds: bool,
}

/// A way to balance.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WayReport {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) calls_per_s_max: Option<Spread>,
}

/// A way that could not be measured here.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NotMeasured {
    pub(crate) name: &'static str,
    pub(crate) why: String,
}

/// One load, which every way carried in turn.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LoadReport {
    pub(crate) calls_per_s: f64,
    pub(crate) why: String,
    pub(crate) ways: Vec<Figures>,
    pub(crate) parts: Vec<Part>,
}

/// One way under one load, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) way: &'static str,
    pub(crate) p50_ms: Option<Spread>,
    pub(crate) p99_ms: Option<Spread>,
    /// Beyond `direct` in the same round.
    pub(crate) added_p50_ms: Option<Spread>,
    pub(crate) added_p99_ms: Option<Spread>,
    /// By role.
    pub(crate) processes: BTreeMap<&'static str, ProcessFigures>,
    pub(crate) slices: Vec<Slice>,
}

/// The processes of one role together.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProcessFigures {
    pub(crate) count: usize,
    /// CPU time that 1,000 calls cost, which is also how many thousandths of a processor 1,000
    /// calls a second keep busy.
    pub(crate) cpu_ms_per_1000_calls: Option<Spread>,
    pub(crate) rss_mib: Option<Spread>,
}

/// What our channel adds to the floor, as a part of what a proxy adds to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Part {
    pub(crate) of: &'static str,
    /// `p50`, `p99` or `cpu`.
    pub(crate) figure: &'static str,
    pub(crate) ours: Option<Spread>,
    pub(crate) theirs: Option<Spread>,
    pub(crate) unit: &'static str,
    /// Of the same rounds.
    pub(crate) part: Option<Spread>,
    pub(crate) part_max: f64,
    pub(crate) met: bool,
}

/// What one way did in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Slice {
    pub(crate) seen: Seen,
    /// By role, the caller's own among them.
    pub(crate) costs: BTreeMap<&'static str, Cost>,
}

/// Roles whose CPU is the price of a way. The greeters answer the same calls in each.
const PRICE: [&str; 4] = ["client", "sidecar", "server sidecars", "balancer"];

impl Slice {
    /// Whether it says anything: every call was sent and answered.
    pub(crate) fn is_clean(&self) -> bool {
        self.seen.ok > 0 && self.seen.failed == 0 && self.seen.shed == 0
    }

    /// CPU time that 1,000 calls cost in a role.
    fn cpu_ms_per_1000_calls(&self, role: &str) -> Option<f64> {
        let calls = self.seen.ok as f64;
        self.costs.get(role).map(|cost| cost.cpu_s * 1e3 / (calls / 1e3))
    }

    /// The same of everything that is there for the sake of balancing, the client's process itself
    /// among it.
    fn price(&self) -> f64 {
        PRICE.iter().filter_map(|role| self.cpu_ms_per_1000_calls(role)).sum()
    }
}

/// The rounds of each way, by its name.
pub(crate) type Rounds = BTreeMap<&'static str, Vec<Slice>>;

impl LoadReport {
    /// Sums up what each of `names`, in this order, did at `calls_per_s`.
    pub(crate) fn of(
        calls_per_s: f64,
        why: String,
        names: &[&'static str],
        rounds: &Rounds,
    ) -> Self {
        let slices = |way: &str| rounds.get(way).map_or(&[][..], Vec::as_slice);
        let ways = names.iter().map(|way| Figures::of(way, slices(way), slices("direct")));
        let (bare, direct) = (slices("bare"), slices("direct"));
        let proxies = names.iter().filter(|way| !["bare", "direct"].contains(way));
        let parts = proxies.flat_map(|way| Part::all(way, bare, direct, slices(way)));
        Self { calls_per_s, why, ways: ways.collect(), parts: parts.collect() }
    }
}

impl Figures {
    fn of(way: &'static str, slices: &[Slice], direct: &[Slice]) -> Self {
        let spread = |value: fn(&Slice) -> Option<f64>| Spread::of(all(slices, value)?);
        let added = |value: fn(&Slice) -> Option<f64>| {
            Spread::of(differences(&all(slices, value)?, &all(direct, value)?))
        };
        let role = |role: &'static str, cost: &Cost| {
            let cpu = slices.iter().filter_map(|slice| slice.cpu_ms_per_1000_calls(role));
            let rss = slices.iter().filter_map(|slice| slice.costs.get(role));
            let figures = ProcessFigures {
                count: cost.count,
                cpu_ms_per_1000_calls: Spread::of(cpu),
                rss_mib: Spread::of(rss.map(|cost| cost.rss_kib as f64 / 1024.0)),
            };
            (role, figures)
        };
        let costs = slices.first().into_iter().flat_map(|slice| &slice.costs);
        let is_direct = way == "direct";
        Self {
            way,
            p50_ms: spread(|slice| slice.seen.p50_ms),
            p99_ms: spread(|slice| slice.seen.p99_ms),
            added_p50_ms: added(|slice| slice.seen.p50_ms).filter(|_| !is_direct),
            added_p99_ms: added(|slice| slice.seen.p99_ms).filter(|_| !is_direct),
            processes: costs.map(|(name, cost)| role(name, cost)).collect(),
            slices: slices.to_vec(),
        }
    }
}

impl Part {
    fn all(of: &'static str, bare: &[Slice], direct: &[Slice], proxy: &[Slice]) -> [Self; 3] {
        let figure = |figure, unit, value: fn(&Slice) -> Option<f64>| {
            let each = |slices| all(slices, value).unwrap_or_default();
            Self::of(of, figure, unit, [each(bare), each(direct), each(proxy)])
        };
        [
            figure("p50", "ms", |slice| slice.seen.p50_ms),
            figure("p99", "ms", |slice| slice.seen.p99_ms),
            figure("cpu", "ms per 1,000 calls", |slice| Some(slice.price())),
        ]
    }

    /// Rounds of the floor, of our channel and of the proxy.
    fn of(
        of: &'static str,
        figure: &'static str,
        unit: &'static str,
        [bare, direct, proxy]: [Vec<f64>; 3],
    ) -> Self {
        let (ours, theirs) = (differences(&direct, &bare), differences(&proxy, &bare));
        // A proxy that adds nothing, by a stray round, has no parts.
        let parts = ours.iter().zip(&theirs).map(|(a, b)| if *b > 0.0 { a / b } else { f64::NAN });
        let part = Spread::of(parts);
        Self {
            of,
            figure,
            unit,
            ours: Spread::of(ours),
            theirs: Spread::of(theirs),
            part,
            part_max: PART_MAX,
            met: part.is_some_and(|part| part.median <= PART_MAX),
        }
    }
}

/// `value` of each slice; `None` when one has none.
fn all(slices: &[Slice], value: fn(&Slice) -> Option<f64>) -> Option<Vec<f64>> {
    slices.iter().map(value).collect()
}

/// Of values that were measured in the same round.
fn differences(these: &[f64], those: &[f64]) -> Vec<f64> {
    these.iter().zip(those).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clean slice of 2,000 calls.
    fn slice(p50_ms: f64, client_cpu_s: f64, sidecar_cpu_s: Option<f64>) -> Slice {
        let seen = Seen {
            ok: 2_000,
            failed: 0,
            shed: 0,
            wall_s: 2.0,
            p50_ms: Some(p50_ms),
            p99_ms: Some(p50_ms * 3.0),
            mean_ms: Some(p50_ms),
            cpu_s: client_cpu_s,
            by_backend: BTreeMap::new(),
            errors: BTreeMap::new(),
        };
        let cost = |cpu_s| Cost { count: 1, cpu_s, rss_kib: 2048 };
        let mut costs = BTreeMap::from([("client", cost(client_cpu_s)), ("greeters", cost(9.0))]);
        costs.extend(sidecar_cpu_s.map(|cpu_s| ("sidecar", cost(cpu_s))));
        Slice { seen, costs }
    }

    fn rounds() -> Rounds {
        BTreeMap::from([
            ("bare", vec![slice(0.20, 0.10, None), slice(0.25, 0.10, None)]),
            ("direct", vec![slice(0.21, 0.12, None), slice(0.26, 0.12, None)]),
            ("sidecar", vec![slice(0.60, 0.10, Some(0.3)), slice(0.65, 0.10, Some(0.3))]),
        ])
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn what_is_added_is_of_the_same_round_so_that_a_slow_round_is_slow_for_all() {
        let report =
            LoadReport::of(1000.0, String::new(), &["bare", "direct", "sidecar"], &rounds());
        let [bare, direct, sidecar] = report.ways.as_slice() else { panic!("three ways") };
        assert_eq!(direct.added_p50_ms, None, "nothing is added to itself");
        assert!(near(bare.added_p50_ms.unwrap().median, -0.01));
        let added = sidecar.added_p50_ms.unwrap();
        assert!(near(added.least, 0.39) && near(added.greatest, 0.39), "{added:?}");
        assert!(near(sidecar.p50_ms.unwrap().greatest, 0.65));
        let envoy = &sidecar.processes["sidecar"];
        assert!(near(envoy.cpu_ms_per_1000_calls.unwrap().median, 150.0));
        assert!(near(envoy.rss_mib.unwrap().median, 2.0));
    }

    #[test]
    fn our_part_is_what_we_add_to_the_floor_over_what_the_proxy_adds_to_it() {
        let report =
            LoadReport::of(1000.0, String::new(), &["bare", "direct", "sidecar"], &rounds());
        let part = |figure: &str| report.parts.iter().find(|part| part.figure == figure).unwrap();
        assert!(near(part("p50").part.unwrap().median, 0.01 / 0.40));
        assert!(part("p50").met);
        // 10 ms per 1,000 calls in the client against 150 of Envoy; greeters count for neither.
        let cpu = part("cpu");
        assert!(near(cpu.ours.unwrap().median, 10.0), "{cpu:?}");
        assert!(near(cpu.theirs.unwrap().median, 150.0), "{cpu:?}");
        assert!(near(cpu.part.unwrap().median, 1.0 / 15.0) && cpu.met);
    }

    #[test]
    fn a_part_above_the_limit_or_without_meaning_is_not_met() {
        let part = |direct: f64, proxy: f64| {
            Part::of("sidecar", "p50", "ms", [vec![0.2], vec![direct], vec![proxy]])
        };
        assert!(part(0.23, 0.6).met);
        assert!(!part(0.25, 0.6).met, "an eighth");
        let nothing = part(0.25, 0.2);
        assert_eq!((nothing.part, nothing.met), (None, false));
        assert!(part(0.19, 0.6).met, "below the floor by chance is within the limit");
        let without = Part::of("sidecar", "p50", "ms", [vec![], vec![0.2], vec![0.6]]);
        assert_eq!((without.part, without.met), (None, false));
    }

    #[test]
    fn a_slice_with_a_failed_or_shed_call_or_without_any_is_not_clean() {
        assert!(slice(0.2, 0.1, None).is_clean());
        let broken: [fn(&mut Seen); 3] = [|s| s.failed = 1, |s| s.shed = 1, |s| s.ok = 0];
        for change in broken {
            let mut slice = slice(0.2, 0.1, None);
            change(&mut slice.seen);
            assert!(!slice.is_clean());
        }
    }

    #[test]
    fn every_key_of_the_document_is_in_the_readme() {
        let names = ["bare", "direct", "sidecar"];
        let mut report = BenchReport {
            schema: SCHEMA,
            version: "",
            started_unix_s: 0.0,
            wall_s: 0.0,
            cpus: 2,
            debug_build: true,
            envoy: None,
            rounds: 2,
            confidence: 0.5,
            ways: vec![WayReport { name: "bare", what: "", calls_per_s_max: None }],
            not_run: vec![NotMeasured { name: "sidecar", why: String::new() }],
            loads: vec![LoadReport::of(1000.0, String::new(), &names, &rounds())],
            holds: true,
        };
        report.loads[0].ways.truncate(1);
        let readme = include_str!("../../README.md");
        let mut values = vec![serde_json::to_value(&report).unwrap()];
        let mut seen = 0;
        while let Some(value) = values.pop() {
            match value {
                serde_json::Value::Array(inner) => values.extend(inner),
                serde_json::Value::Object(inner) => {
                    for (key, value) in inner {
                        // Roles are values, not keys.
                        let is_role = PRICE.contains(&key.as_str()) || key == "greeters";
                        assert!(is_role || readme.contains(&format!("`{key}`")), "`{key}`");
                        seen += 1;
                        values.push(value);
                    }
                }
                _ => {}
            }
        }
        assert!(seen > 50, "{seen}");
    }
}
