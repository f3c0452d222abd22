//! The outputs from a made-up run: the JSON keys are a promise to scripts, and the text must show
//! what it was given.

use super::*;
use crate::report::{over_time::Answers, timeline::Step};

/// Written by `LAB_GOLDEN=write cargo test -p lab`; its diff is what a reviewer reads.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/run.json");

fn made_up(holds: bool) -> RunReport {
    let example = ExampleReport {
        number: 9,
        name: "made-up",
        title: "a test",
        control_plane: "DNS",
        policy: "round_robin",
        real: &["nothing"],
        doubles: &["everything"],
        picture: "client --> greeter",
        holds,
        score: Score { checks: 1, calls: 5, failed: 1, ..Score::default() },
        phases_not_run: vec!["kill"],
        checks_not_run: vec![NotChecked { id: "made-up.steady.hot", why: "no fire" }],
        phases: vec![made_up_phase(holds)],
    };
    RunReport {
        schema: SCHEMA,
        version: "0.0.0",
        started_unix_s: 1_700_000_000.5,
        wall_s: 2.5,
        cpus: 2,
        holds,
        examples: vec![example],
        not_run: vec![NotRun { number: 8, name: "unequipped", why: "no Envoy".to_owned() }],
    }
}

fn made_up_phase(holds: bool) -> PhaseReport {
    let row = |backend: &str, calls, p50_ms| Row {
        backend: backend.to_owned(),
        calls,
        share: calls as f64 / 4.0,
        p50_ms,
        p99_ms: p50_ms.map(|ms| ms * 2.0),
        max_ms: p50_ms.map(|ms| ms * 4.0),
    };
    let step = |event, at_s, wait_s, cause: &str| Step { event, at_s, wait_s, cause: cause.into() };
    PhaseReport {
        name: "steady",
        what: "3 backends, nothing happens",
        client_flags: vec!["--rate".to_owned(), "700".to_owned()],
        greeter_env: BTreeMap::from([("GREETER_DELAY", "20ms".to_owned())]),
        lines: vec!["Greeting: Hello you (Backend IP: 127.64.0.1)".to_owned()],
        client: ClientFigures {
            wall_s: 1.5,
            calls: 5,
            ok: 4,
            fail: 1,
            shed: 0,
            rate: 3.5,
            by_code: BTreeMap::from([("UNAVAILABLE".to_owned(), 1)]),
            latency_ms: Latency { p50: Some(0.5), ..Latency::default() },
            streams_open_at_eof: BTreeMap::from([("127.64.0.1:8000".to_owned(), 1)]),
            transparent_retries: 2,
            cpu_s: 0.25,
        },
        over_time: Some(OverTime {
            from_unix_s: 1_700_000_001.0,
            slot_s: 0.5,
            backends: vec![Answers { backend: "127.64.0.1".to_owned(), calls: vec![3, 0] }],
            failed: vec![0, 1],
        }),
        marks: vec![Mark { unix_s: 1_700_000_001.5, what: "killed one of three".to_owned() }],
        processes: BTreeMap::from([(
            "client",
            ProcessCost { count: 1, cpu_ms_per_1000_calls: Some(62.5), rss_mib: None },
        )]),
        distributions: vec![Distribution {
            title: "all calls".to_owned(),
            rows: vec![row("127.64.0.1", 3, Some(0.5)), row("127.64.0.2", 1, None)],
        }],
        figures: BTreeMap::from([("outage_s", 1.5)]),
        timelines: vec![Timeline {
            title: "127.64.0.2:8000: from ready to its first call".to_owned(),
            steps: vec![
                step("backend ready", Some(-0.25), None, ""),
                step("DNS published", Some(0.0), Some(0.25), "the lab"),
                step("first call answered", None, None, "its turn"),
            ],
        }],
        checks: vec![Check {
            id: "made-up.steady.even",
            holds,
            expected: "even shares".to_owned(),
            seen: "75 / 25".to_owned(),
            breaks: "--lb-policy pick_first",
        }],
        spans: Some(crate::spans::made_up()),
    }
}

#[test]
fn the_json_document_has_the_documented_shape() {
    let printed = json::print(&made_up(true));
    if std::env::var_os("LAB_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(GOLDEN, &printed).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    assert_eq!(printed, golden, "keys are a promise: see SCHEMA before you change them");
}

/// The schema is made from the types, so that it can't say anything else; this keeps the committed
/// one in step.
#[test]
fn the_committed_schema_describes_the_document() {
    const SCHEMA_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/report.schema.json");
    let made = serde_json::to_value(schemars::schema_for!(RunReport)).unwrap();
    let made = json::print(&made);
    if std::env::var_os("LAB_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(SCHEMA_FILE, &made).unwrap();
    }
    let committed = std::fs::read_to_string(SCHEMA_FILE).unwrap();
    assert_eq!(made, committed, "LAB_GOLDEN=write cargo test -p lab writes it again");
}

#[test]
fn every_json_key_is_in_the_readme() {
    fn keys(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    found.push(key.clone());
                    // The keys of these maps are addresses, codes and settings.
                    let open =
                        ["by_code", "streams_open_at_eof", "greeter_env", "figures", "processes"];
                    let spans = ["by_process", "picks", "attributes"];
                    if !open.iter().chain(&spans).any(|open| open == key) {
                        keys(value, found);
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }
    let readme = include_str!("../../README.md");
    let mut found = Vec::new();
    keys(&serde_json::to_value(made_up(true)).unwrap(), &mut found);
    assert!(found.len() > 40, "{found:?}");
    for key in found {
        assert!(readme.contains(&format!("`{key}`")), "README.md does not explain `{key}`");
    }
}

#[test]
fn the_text_shows_lines_picture_doubles_shares_timeline_and_verdicts() {
    let text = text::print(&made_up(true));
    for part in [
        "Greeting: Hello you (Backend IP: 127.64.0.1)",
        "client --> greeter",
        "double: everything",
        "not run: kill",
        "- made-up.steady.hot was not run: no fire",
        "greeter GREETER_DELAY=20ms",
        "UNAVAILABLE 1",
        "75.00 %",
        "DNS published",
        "not seen",
        "√ made-up.steady.even: even shares",
        "seen: 75 / 25",
        "breaks it: --lb-policy pick_first",
        "√ all 1 checks hold",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 120 && line == line.trim_end()));
}

#[test]
fn a_failed_check_is_marked_and_repeated_at_the_end() {
    let text = text::print(&made_up(false));
    assert!(text.contains("  × made-up.steady.even: even shares"), "{text}");
    assert!(text.contains("× 1 of 1 checks failed"), "{text}");
    assert!(text.trim_end().ends_with("× made-up.steady.even: 75 / 25"), "{text}");
}

#[test]
fn a_phase_without_checks_has_shown_nothing() {
    let phase = PhaseReport::new("empty", "no check", &Report::default());
    assert!(!phase.holds());
}

#[test]
fn a_part_of_a_phase_counts_the_slots_between_its_moments() {
    let slot = |unix_s, one, two| Slot {
        unix_s,
        by_backend: BTreeMap::from([("a".to_owned(), one), ("b".to_owned(), two)]),
        fail: 0,
    };
    let slots = [slot(1.0, 100, 0), slot(2.0, 1, 2), slot(3.0, 0, 1), slot(4.0, 100, 0)];
    let part = Distribution::between("part", &slots, 0.5, 2.0, 4.0);
    let rows: Vec<_> = part.rows.iter().map(|row| (row.backend.as_str(), row.calls)).collect();
    assert_eq!(rows, [("a", 1), ("b", 3)]);
    assert_eq!(part.rows[1].share, 0.75);
    assert!(Distribution::between("none", &slots, 0.5, 4.0, 4.4).rows.is_empty());
}
