//! `expect.toml` in memory: which row has to be what, and the verdict on a row that came.
//!
//! A row that nobody expected fails as loudly as one that is wrong, and an expected row that did
//! not come fails too: otherwise a scenario that dies in its middle would look like a short one.

use super::error::Error;
use super::predicate::Predicate;
use super::row::Row;
use serde::Deserialize;
use std::collections::HashSet;

/// All expectations, in the order of the file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Expectations {
    /// Policies and interop cases that we do not have yet; a row of one is reported, not judged.
    pub not_supported_yet: Vec<String>,
    /// One entry per row of a scenario.
    pub rows: Vec<Expected>,
}

/// What one row has to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Expected {
    /// The scenario's name in `reference.py`, or `greeter` or `interop`.
    pub scenario: String,
    /// The case's name, letter for letter.
    pub case: String,
    /// Conditions that all have to hold.
    pub checks: Vec<Predicate>,
    /// Where the numbers come from, and why the tolerance is what it is.
    pub why: String,
    /// What grpc-go and C-core were measured to do; empty where they take no part.
    pub peers: String,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    not_supported_yet: Vec<String>,
    row: Vec<Entry>,
}

/// What one row has to be, or several that are alike.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    scenario: String,
    case: Option<String>,
    #[serde(default)]
    cases: Vec<String>,
    checks: Vec<Predicate>,
    why: String,
    #[serde(default)]
    peers: String,
}

impl Entry {
    fn rows(self) -> Result<Vec<Expected>, Error> {
        let Self { scenario, case, cases, checks, why, peers } = self;
        if case.is_some() != cases.is_empty() {
            return Err(Error::Expect(format!(
                "a row of {scenario}: expected either `case` or `cases`, got {case:?} and {cases:?}"
            )));
        }
        let row = |case| {
            let (scenario, checks) = (scenario.clone(), checks.clone());
            Expected { scenario, case, checks, why: why.clone(), peers: peers.clone() }
        };
        Ok(case.into_iter().chain(cases).map(row).collect())
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Every condition holds.
    Passed,
    /// These do not; each text says what was expected and what came.
    Failed(Vec<String>),
    /// The row is of a policy that our client does not have.
    NotSupportedYet,
}

impl Expectations {
    /// Parses and validates the text of an `expect.toml`.
    ///
    /// # Errors
    /// An unknown key, a row that is there twice, a row without conditions or without a reason,
    /// and a condition without meaning.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = toml::from_str(text).map_err(|e| Error::Expect(e.to_string()))?;
        let rows: Result<Vec<_>, Error> = file.row.into_iter().map(Entry::rows).collect();
        let rows = rows?.into_iter().flatten().collect();
        let all = Self { not_supported_yet: file.not_supported_yet, rows };
        let mut seen = HashSet::new();
        for row in &all.rows {
            let refuse = |what: String| {
                Err(Error::Expect(format!("row {} / {}: {what}", row.scenario, row.case)))
            };
            if !seen.insert((&row.scenario, &row.case)) {
                return refuse("is there twice, keep one".to_owned());
            }
            if row.checks.is_empty() || row.why.trim().is_empty() {
                return refuse("needs at least one check and a `why`".to_owned());
            }
            if all.policy_not_supported(&row.case).is_some() {
                return refuse("its policy is also in not_supported_yet, remove it there".into());
            }
            for check in &row.checks {
                if let Err(what) = check.validate() {
                    return refuse(what);
                }
            }
        }
        Ok(all)
    }

    /// The expectations that this build was made with.
    ///
    /// # Errors
    /// As [`Self::parse`]; a test keeps the file right.
    pub fn built_in() -> Result<Self, Error> {
        Self::parse(include_str!("../../expect.toml"))
    }

    /// The entry of a row, if there is one.
    pub fn of(&self, scenario: &str, case: &str) -> Option<&Expected> {
        self.rows.iter().find(|row| row.scenario == scenario && row.case == case)
    }

    /// The verdict on a row that came.
    pub fn judge(&self, row: &Row) -> Verdict {
        if self.policy_not_supported(&row.case).is_some() {
            return Verdict::NotSupportedYet;
        }
        let Some(expected) = self.of(&row.scenario, &row.case) else {
            let found = row.result.as_str().unwrap_or("nothing in expect.toml tells what it is");
            return Verdict::Failed(vec![format!("unexpected row: {found}")]);
        };
        let failed: Vec<String> =
            expected.checks.iter().filter_map(|check| check.check(&row.result).err()).collect();
        if failed.is_empty() { Verdict::Passed } else { Verdict::Failed(failed) }
    }

    /// Expected rows of these scenarios that are not among `came`.
    pub fn missing<'a>(&'a self, scenarios: &[String], came: &[Row]) -> Vec<&'a Expected> {
        self.rows
            .iter()
            .filter(|expected| scenarios.contains(&expected.scenario))
            .filter(|expected| {
                !came.iter().any(|row| row.is_of(&expected.scenario, &expected.case))
            })
            .collect()
    }

    /// A case is called after its policy, or its interop case, wherever a scenario has several. One
    /// that is missing in one direction only is named whole.
    fn policy_not_supported(&self, case: &str) -> Option<&str> {
        let first = case.split([' ', ',', ':']).next()?;
        let mut names = self.not_supported_yet.iter().map(String::as_str);
        names.find(|name| *name == first || *name == case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SMALL: &str = r#"
        not_supported_yet = ["ring_hash_experimental"]
        [[row]]
        scenario = "dead"
        case = "round_robin"
        why = "a dead address costs nothing"
        checks = [{ field = "fail", op = "==", value = 0 }]
    "#;

    fn row(case: &str, result: serde_json::Value) -> Row {
        Row::new("dead", case, result)
    }

    #[test]
    fn the_built_in_file_is_valid_and_knows_every_scenario() {
        let all = Expectations::built_in().unwrap();
        for scenario in crate::runner::scenario::names() {
            assert!(all.rows.iter().any(|row| row.scenario == scenario), "{scenario}");
        }
        for row in &all.rows {
            assert!(crate::runner::scenario::names().any(|name| name == row.scenario));
        }
    }

    #[test]
    fn tells_passed_from_failed_from_not_supported() {
        let all = Expectations::parse(SMALL).unwrap();
        assert_eq!(all.judge(&row("round_robin", json!({"fail": 0}))), Verdict::Passed);
        let failed = all.judge(&row("round_robin", json!({"fail": 583})));
        assert_eq!(failed, Verdict::Failed(vec!["expected fail = 0, got 583".to_owned()]));
        let other = all.judge(&row("ring_hash_experimental c=1", json!({"calls": null})));
        assert_eq!(other, Verdict::NotSupportedYet);
    }

    #[test]
    fn fails_rows_that_nobody_expected() {
        let all = Expectations::parse(SMALL).unwrap();
        assert!(matches!(all.judge(&row("new case", json!({"fail": 0}))), Verdict::Failed(_)));
        let error = all.judge(&row("error", json!("KeyError: 'timeline'")));
        assert_eq!(error, Verdict::Failed(vec!["unexpected row: KeyError: 'timeline'".into()]));
    }

    #[test]
    fn finds_expected_rows_that_did_not_come() {
        let all = Expectations::parse(SMALL).unwrap();
        assert_eq!(all.missing(&["dead".to_owned()], &[]).len(), 1);
        assert_eq!(all.missing(&["dist".to_owned()], &[]).len(), 0);
        let came = [row("round_robin", json!({}))];
        assert_eq!(all.missing(&["dead".to_owned()], &came).len(), 0);
    }

    #[test]
    fn rows_that_are_alike_stand_together() {
        let text = SMALL.replace("case = \"round_robin\"", "cases = [\"a: x\", \"b: x\"]");
        let all = Expectations::parse(&text).unwrap();
        assert_eq!(all.judge(&row("b: x", json!({"fail": 0}))), Verdict::Passed);
        assert!(matches!(all.judge(&row("a: x", json!({"fail": 1}))), Verdict::Failed(_)));
        let other = all.judge(&row("ring_hash_experimental: x", json!({})));
        assert_eq!(other, Verdict::NotSupportedYet);
    }

    #[test]
    fn refuses_a_file_with_mistakes() {
        let refused = |text: &str| Expectations::parse(text).unwrap_err().to_string();
        assert!(refused(&SMALL.replace("why =", "because =")).contains("because"));
        assert!(refused(&format!("typo = 1\n{SMALL}")).contains("typo"));
        let again = SMALL.split_once("[[row]]").unwrap().1;
        assert!(refused(&format!("{SMALL}\n[[row]]{again}")).contains("twice"));
        let none = SMALL.replace("case = \"round_robin\"", "");
        assert!(refused(&none).contains("either `case` or `cases`"));
        let both = SMALL.replace("case =", "cases = [\"x\"]\n        case =");
        assert!(refused(&both).contains("either `case` or `cases`"));
        let empty = SMALL.replace(r#"[{ field = "fail", op = "==", value = 0 }]"#, "[]");
        assert!(refused(&empty).contains("at least one check"));
        assert!(refused(&SMALL.replace("a dead address costs nothing", " ")).contains("why"));
        let both = SMALL.replace("\"ring_hash_experimental\"", "\"round_robin\"");
        assert!(refused(&both).contains("not_supported_yet"));
        assert!(refused(&SMALL.replace("value = 0", "value = inf")).contains("finite"));
    }
}
