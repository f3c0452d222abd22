//! One line of a scenario: read, saved, and said in a few words.
//!
//! The shape is the one of `reference/figures/*.jsonl`, so that our figures and those of the
//! other clients are read by the same code.

use super::error::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use std::path::Path;

/// One result row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Row {
    /// The scenario's name.
    pub scenario: String,
    /// The case's name within the scenario.
    pub case: String,
    /// The figures; a text if the scenario broke off.
    pub result: Value,
    /// Failed calls of each run, of several; this row is then the worst of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_by_run: Vec<u64>,
    /// Where a saved row comes from; other clients' figures have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// The run that a saved row comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Made {
    /// UTC date, `2026-11-24`.
    pub date: String,
    /// Version of this workspace.
    pub version: String,
    /// The command line.
    pub command: String,
}

const NEW_BACKEND: &str = "first_call_s_after_add";

/// Fields that a scenario adds to its counts and that are worth showing, with their words.
const TOLD: &[(&str, &str)] = &[
    ("longest_run", "longest run"),
    ("first_ok_s", "first ok s"),
    ("fail_window_s", "failures over s"),
    ("back_in_use_s_after_restart", "back in use after s"),
    ("connections", "connections"),
    ("rps", "calls/s"),
    (NEW_BACKEND, "new one used after s"),
    ("removed_backend_last_call_s_after_removal", "removed one last used after s"),
    ("fail_ms", "failed after ms"),
    ("services", "services"),
    ("reply", "reply"),
    ("channel_target", "channel"),
    ("socket_remote", "its socket to"),
    ("overall", "overall"),
    ("greeter", "helloworld.Greeter"),
    ("took_ms", "took ms"),
    ("new_list_used_s_after_balancer_restart", "new list used after s"),
    ("fallback_s_after_backend_death", "fallback used after s"),
    ("fallback_used_s_after_command", "fallback used after s"),
    ("list_used_s_after_command", "list used after s"),
    ("streams", "balancer streams"),
    ("sent", "responses sent"),
    ("nacks", "refused"),
    ("error", "error"),
];

impl Row {
    /// A row that was made now.
    pub fn new(scenario: &str, case: &str, result: Value) -> Self {
        let (scenario, case) = (scenario.to_owned(), case.to_owned());
        Self { scenario, case, result, failed_by_run: Vec::new(), made: None }
    }

    /// Calls that failed, if the row counts calls.
    pub fn failed(&self) -> Option<u64> {
        self.result.get("fail").and_then(Value::as_u64)
    }

    /// Whether this is the row of that scenario and case.
    pub fn is_of(&self, scenario: &str, case: &str) -> bool {
        self.scenario == scenario && self.case == case
    }

    /// Reads a file of rows, one a line.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not a row.
    pub fn read_file(path: &Path) -> Result<Vec<Self>, Error> {
        let text =
            std::fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                serde_json::from_str(line).map_err(|e| {
                    Error::Expect(format!("{}: expected rows, got {line}: {e}", path.display()))
                })
            })
            .collect()
    }

    /// The figures in a few words: `1743 (.1)/513 (.2), 1 failed of 4000 UNAVAILABLE`.
    pub fn in_words(&self) -> String {
        let Some(result) = self.result.as_object() else {
            return self.result.as_str().unwrap_or("no result").to_owned();
        };
        let mut words = Vec::new();
        if let Some(shares) = result.get("by_backend").and_then(shares_in_words) {
            words.push(shares);
        }
        if let Some(failed) = self.failed() {
            words.push(self.failures_in_words(failed));
        }
        if let [_, _, ..] = self.failed_by_run[..] {
            let each: Vec<String> = self.failed_by_run.iter().map(u64::to_string).collect();
            words.push(format!("in {} runs {} failed", each.len(), each.join("/")));
        }
        // With one backend the longest run is the number of calls, and says nothing.
        let one = result.get("by_backend").and_then(Value::as_object).is_none_or(|b| b.len() < 2);
        for (field, name) in TOLD {
            let Some(value) = result.get(*field) else { continue };
            let empty = match *field {
                "longest_run" => one,
                "fail_window_s" => is_zero(value),
                // Null says "never" of a new backend, and nothing of the others.
                NEW_BACKEND => false,
                _ => value.is_null(),
            };
            if empty {
                continue;
            }
            if let Some(text) = value_in_words(value) {
                words.push(format!("{name} {text}"));
            }
        }
        words.join(", ")
    }

    /// Why nothing was run, if the row says so.
    pub fn refused(&self) -> Option<&str> {
        self.result.get("refused")?.as_str()
    }

    /// Messages of failed calls, as far as the row keeps them.
    pub fn errors(&self) -> Vec<&str> {
        match self.result.get("errors") {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::Object(counts)) => counts.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn failures_in_words(&self, failed: u64) -> String {
        let calls = self.result.get("calls").and_then(Value::as_u64).unwrap_or_default();
        let codes = self.result.get("by_code").and_then(Value::as_object);
        let codes = codes.map(|map| map.keys().cloned().collect::<Vec<_>>().join("+"));
        format!("{failed} failed of {calls} {}", codes.unwrap_or_default()).trim_end().to_owned()
    }
}

fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn shares_in_words(by_backend: &Value) -> Option<String> {
    let mut shares: Vec<(&String, &Value)> = by_backend.as_object()?.iter().collect();
    if shares.is_empty() {
        return None;
    }
    shares.sort_by_key(|(ip, _)| *ip);
    let words: Vec<String> = shares
        .iter()
        .map(|(ip, calls)| format!("{calls} (.{})", ip.rsplit('.').next().unwrap_or(ip)))
        .collect();
    Some(words.join("/"))
}

/// `None`: nothing to say.
fn value_in_words(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("never".to_owned()),
        Value::Number(number) if number.as_f64().is_some_and(|n| n < -0.9) => None,
        Value::Number(number) => Some(rounded(number)),
        Value::String(text) => Some(format!("`{text}`")),
        Value::Array(list) => {
            let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            (!words.is_empty()).then(|| words.join(" "))
        }
        Value::Object(map) => map.get("max").map(Value::to_string),
        Value::Bool(_) => None,
    }
}

/// At most three digits behind the point: nothing here is known better.
fn rounded(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => ((float * 1e3).round() / 1e3).to_string(),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn says_shares_failures_and_times() {
        let result = json!({"calls": 4000, "fail": 1, "by_code": {"UNAVAILABLE": 1},
            "by_backend": {"127.0.1.2": 513, "127.0.1.1": 1743}, "longest_run": 8,
            "fail_window_s": 0.0, "back_in_use_s_after_restart": 1.8});
        assert_eq!(
            Row::new("kill9", "round_robin", result).in_words(),
            "1743 (.1)/513 (.2), 1 failed of 4000 UNAVAILABLE, longest run 8, \
             back in use after s 1.8"
        );
    }

    #[test]
    fn says_what_never_came_and_what_broke() {
        let result = json!({"fail": 0, "calls": 240, "by_backend": {},
            "first_call_s_after_add": null, "fail_ms": null});
        assert_eq!(
            Row::new("dnsadd", "x", result).in_words(),
            "0 failed of 240, new one used after s never"
        );
        let broken = Row::new("kill9", "error", json!("KeyError: 'timeline'"));
        assert_eq!(broken.in_words(), "KeyError: 'timeline'");
    }

    #[test]
    fn says_no_digits_that_nobody_measured() {
        let result = json!({"fail": 0, "calls": 2000, "rps": 1471.7157297003682});
        let words = Row::new("greeter", "ghz", result).in_words();
        assert_eq!(words, "0 failed of 2000, calls/s 1471.716");
    }

    #[test]
    fn a_saved_row_reads_back_as_itself() {
        let mut row = Row::new("dist", "round_robin c=1", json!({"fail": 0}));
        let line = serde_json::to_string(&row).unwrap();
        assert_eq!(line, r#"{"scenario":"dist","case":"round_robin c=1","result":{"fail":0}}"#);
        assert_eq!(serde_json::from_str::<Row>(&line).unwrap(), row);
        row.made =
            Some(Made { date: "2026-11-24".into(), version: "1".into(), command: "c".into() });
        let line = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<Row>(&line).unwrap(), row);
    }
}
