//! What a run says while it goes, and what it adds up to: one line per row, then the sum.

use super::expect::{Expectations, Expected, Verdict};
use super::row::Row;
use std::io::Write;

/// Judges rows as they come and counts.
pub(crate) struct Report<'a, W> {
    expectations: &'a Expectations,
    out: W,
    passed: u32,
    failed: u32,
    not_supported: u32,
    /// What did not pass, as it was said, for the end: a reader of a log sees its last lines first.
    complaints: Vec<String>,
    /// Every row that came, in order, with whether it failed.
    rows: Vec<(Row, bool)>,
}

impl<'a, W: Write> Report<'a, W> {
    /// An empty report that writes to `out`.
    pub(crate) fn new(expectations: &'a Expectations, out: W) -> Self {
        Self {
            expectations,
            out,
            passed: 0,
            failed: 0,
            not_supported: 0,
            complaints: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Judges one row and says so.
    pub(crate) fn row(&mut self, row: Row) {
        let name = format!("{} / {}", row.scenario, row.case);
        let verdict = self.expectations.judge(&row);
        match &verdict {
            Verdict::Passed => {
                self.passed += 1;
                self.line(&format!("√ {name}: {}", row.in_words()));
            }
            Verdict::Failed(why) => {
                self.failed += 1;
                self.complain(format!("× {name}: {}", row.in_words()));
                for text in why {
                    self.complain(format!("    {text}"));
                }
                for text in row.errors() {
                    self.complain(format!("    an error of it: {text}"));
                }
            }
            Verdict::NotSupportedYet => {
                self.not_supported += 1;
                let why = row.refused().map(|why| format!(": {why}")).unwrap_or_default();
                self.line(&format!("- {name}: not supported yet{why}"));
            }
        }
        self.rows.push((row, matches!(verdict, Verdict::Failed(_))));
    }

    /// Rows that came so far.
    pub(crate) fn came(&self) -> usize {
        self.rows.len()
    }

    /// Counts the rows of `scenarios` that did not come among those after the first `from`.
    pub(crate) fn missing(&mut self, scenarios: &[String], from: usize) {
        let came: Vec<Row> = self.rows[from..].iter().map(|(row, _)| row.clone()).collect();
        let missing: Vec<&Expected> = self.expectations.missing(scenarios, &came);
        for expected in missing {
            self.failed += 1;
            let Expected { scenario, case, .. } = expected;
            self.complain(format!("× {scenario} / {case}: the row did not come"));
        }
    }

    /// Says what did not pass once more, and the sum; whether all is well.
    pub(crate) fn sum(&mut self) -> bool {
        let complaints = std::mem::take(&mut self.complaints);
        if !complaints.is_empty() {
            self.line("what did not pass:");
        }
        for text in complaints {
            self.line(&text);
        }
        self.line(&format!(
            "conformance: {} passed, {} failed, {} not supported yet",
            self.passed, self.failed, self.not_supported
        ));
        self.failed == 0
    }

    /// One row per case, the worst of its runs: one that did not pass before one that did, then the
    /// one with most failed calls, then the latest. It knows how many calls failed in each run.
    pub(crate) fn into_rows(self) -> Vec<Row> {
        let mut kept: Vec<(Row, bool)> = Vec::new();
        for (mut row, bad) in self.rows {
            row.failed_by_run = row.failed().into_iter().collect();
            let Some((old, old_bad)) =
                kept.iter_mut().find(|(old, _)| old.is_of(&row.scenario, &row.case))
            else {
                kept.push((row, bad));
                continue;
            };
            let mut failed_by_run = std::mem::take(&mut old.failed_by_run);
            failed_by_run.append(&mut row.failed_by_run);
            if (bad, row.failed()) >= (*old_bad, old.failed()) {
                (*old, *old_bad) = (row, bad);
            }
            old.failed_by_run = failed_by_run;
        }
        let single = |row: &Row| row.failed_by_run.len() < 2;
        let mut rows: Vec<Row> = kept.into_iter().map(|(row, _)| row).collect();
        for row in rows.iter_mut().filter(|row| single(row)) {
            row.failed_by_run.clear();
        }
        rows
    }

    fn complain(&mut self, text: String) {
        self.line(&text);
        self.complaints.push(text);
    }

    fn line(&mut self, text: &str) {
        // A reader that left early (`| head`) is no reason to leave children behind.
        let _ = writeln!(self.out, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const EXPECT: &str = r#"
        not_supported_yet = ["ring_hash_experimental"]
        [[row]]
        scenario = "dead"
        case = "round_robin"
        why = "w"
        checks = [{ field = "fail", op = "==", value = 0 }]
        [[row]]
        scenario = "dead"
        case = "pick_first"
        why = "w"
        checks = [{ field = "fail", op = "==", value = 0 }]
    "#;

    fn row(case: &str, fail: u32) -> Row {
        let errors = if fail > 0 { vec!["connection refused"] } else { vec![] };
        Row::new("dead", case, json!({"fail": fail, "calls": 9, "errors": errors}))
    }

    #[test]
    fn says_a_line_per_row_and_the_sum() {
        let expectations = Expectations::parse(EXPECT).unwrap();
        let mut out = Vec::new();
        let mut report = Report::new(&expectations, &mut out);
        report.row(row("round_robin", 0));
        report.row(row("round_robin", 2));
        report.row(Row::new("dead", "ring_hash_experimental", json!({"refused": "no ring"})));
        report.missing(&["dead".to_owned()], 0);
        assert!(!report.sum());
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "√ dead / round_robin: 0 failed of 9\n\
             × dead / round_robin: 2 failed of 9\n    \
             expected fail = 0, got 2\n    \
             an error of it: connection refused\n\
             - dead / ring_hash_experimental: not supported yet: no ring\n\
             × dead / pick_first: the row did not come\n\
             what did not pass:\n\
             × dead / round_robin: 2 failed of 9\n    \
             expected fail = 0, got 2\n    \
             an error of it: connection refused\n\
             × dead / pick_first: the row did not come\n\
             conformance: 1 passed, 2 failed, 1 not supported yet\n"
        );
    }

    #[test]
    fn is_well_only_without_failures() {
        let expectations = Expectations::parse(EXPECT).unwrap();
        let mut report = Report::new(&expectations, Vec::new());
        report.row(row("round_robin", 0));
        assert!(report.sum());
    }

    #[test]
    fn keeps_the_worst_of_several_runs_and_what_failed_in_each() {
        let expectations = Expectations::parse(EXPECT).unwrap();
        let mut report = Report::new(&expectations, Vec::new());
        for fail in [0, 3, 1, 0] {
            report.row(row("round_robin", fail));
        }
        report.row(row("pick_first", 0));
        let kept = report.into_rows();
        assert_eq!(kept.len(), 2);
        assert_eq!((kept[0].failed(), &kept[0].failed_by_run[..]), (Some(3), &[0, 3, 1, 0][..]));
        assert!(kept[0].in_words().ends_with("in 4 runs 0/3/1/0 failed"), "{}", kept[0].in_words());
        assert_eq!(kept[1], row("pick_first", 0));
    }

    #[test]
    fn a_row_that_does_not_pass_is_worse_than_one_with_more_failed_calls() {
        let allowed = EXPECT.replace(r#""==", value = 0"#, r#"">=", value = 2"#);
        let expectations = Expectations::parse(&allowed).unwrap();
        let mut report = Report::new(&expectations, Vec::new());
        for fail in [5, 1, 4] {
            report.row(row("round_robin", fail));
        }
        assert_eq!(report.into_rows()[0].failed(), Some(1));
    }
}
