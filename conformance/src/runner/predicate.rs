//! The small typed language of `expect.toml`: what a field of a result row has to be.
//!
//! It is data and not code, so that one file shows all that we promise, with its tolerances, and
//! so that a figure of any other client can be judged by the same words. It has only what the rows
//! need: an operator that no row uses is not here.

use serde::Deserialize;
use serde_json::Value;
use std::fmt;

/// The `field` that is the row's whole result.
const WHOLE: &str = ".";

/// One condition on one field. `field` is a path of keys joined by `/`, from the row's `result`, or
/// `.` for the result itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", deny_unknown_fields)]
#[non_exhaustive]
pub enum Predicate {
    /// The number is at most `value`. `null` fails: what never came is not early.
    #[serde(rename = "<=")]
    AtMost {
        /// Path of the number.
        field: String,
        /// The greatest number that passes, in the field's own unit.
        value: f64,
    },
    /// The number is at least `value`.
    #[serde(rename = ">=")]
    AtLeast {
        /// Path of the number.
        field: String,
        /// The least number that passes, in the field's own unit.
        value: f64,
    },
    /// The number is exactly `value`.
    #[serde(rename = "==")]
    Equal {
        /// Path of the number.
        field: String,
        /// The only number that passes.
        value: f64,
    },
    /// The map has `entries` numbers, each within `within_percent` of their mean.
    #[serde(rename = "even")]
    Even {
        /// Path of the map from a name to a count.
        field: String,
        /// How many names there have to be.
        entries: usize,
        /// Allowed distance from the mean, in percent of the mean (0 to 100).
        within_percent: f64,
    },
    /// The smallest number in the map is from `min` to `max`.
    #[serde(rename = "least")]
    Least {
        /// Path of the map from a name to a number.
        field: String,
        /// The least that passes.
        min: f64,
        /// The greatest that passes.
        max: f64,
    },
    /// The greatest number in the map is from `min` to `max`.
    #[serde(rename = "most")]
    Most {
        /// Path of the map from a name to a number.
        field: String,
        /// The least that passes.
        min: f64,
        /// The greatest that passes.
        max: f64,
    },
    /// The map or list has exactly `value` entries.
    #[serde(rename = "entries")]
    Entries {
        /// Path of the map or list.
        field: String,
        /// The only size that passes.
        value: usize,
    },
    /// The map has no key beside these; an empty map passes.
    #[serde(rename = "only")]
    Only {
        /// Path of the map.
        field: String,
        /// The keys that may occur.
        value: Vec<String>,
    },
    /// The text holds `value`, or the list has it as an entry.
    #[serde(rename = "contains")]
    Contains {
        /// Path of the text or list.
        field: String,
        /// What has to be there, letter for letter.
        value: String,
    },
}

impl Predicate {
    /// Judges one result.
    ///
    /// # Errors
    /// Says what was expected and what came, when they differ or the field is not there.
    pub fn check(&self, result: &Value) -> Result<(), String> {
        let found = lookup(result, self.field())
            .ok_or_else(|| format!("expected {self}, but the row has no such field"))?;
        if self.holds(found) { Ok(()) } else { Err(format!("expected {self}, got {found}")) }
    }

    /// Refuses conditions that can never hold, or always do.
    ///
    /// # Errors
    /// Names the condition and the allowed range.
    pub fn validate(&self) -> Result<(), String> {
        if self.field().split('/').any(str::is_empty) {
            return Err(format!("`{self}`: field must be keys joined by `/`, e.g. `fail_ms/max`"));
        }
        match self {
            Self::AtMost { value, .. }
            | Self::AtLeast { value, .. }
            | Self::Equal { value, .. }
                if !value.is_finite() =>
            {
                Err(format!("`{self}`: value must be a finite number"))
            }
            Self::Least { min, max, .. } | Self::Most { min, max, .. }
                if !(min.is_finite() && max.is_finite() && min <= max) =>
            {
                Err(format!("`{self}`: min and max must be finite numbers in this order"))
            }
            Self::Even { entries: 0, .. } => Err(format!("`{self}`: entries must be 1 or more")),
            Self::Even { within_percent, .. } if !(0.0..=100.0).contains(within_percent) => {
                Err(format!("`{self}`: within_percent must be 0 to 100"))
            }
            Self::Contains { value, .. } if value.is_empty() => {
                Err(format!("`{self}`: value must not be empty, everything contains that"))
            }
            _ => Ok(()),
        }
    }

    fn field(&self) -> &str {
        match self {
            Self::AtMost { field, .. }
            | Self::AtLeast { field, .. }
            | Self::Equal { field, .. }
            | Self::Even { field, .. }
            | Self::Least { field, .. }
            | Self::Most { field, .. }
            | Self::Entries { field, .. }
            | Self::Only { field, .. }
            | Self::Contains { field, .. } => field,
        }
    }

    fn holds(&self, found: &Value) -> bool {
        match self {
            Self::AtMost { value, .. } => found.as_f64().is_some_and(|n| n <= *value),
            Self::AtLeast { value, .. } => found.as_f64().is_some_and(|n| n >= *value),
            Self::Equal { value, .. } => found.as_f64().is_some_and(|n| n == *value),
            Self::Even { entries, within_percent, .. } => even(found, *entries, *within_percent),
            Self::Least { min, max, .. } => within(found, f64::min, *min, *max),
            Self::Most { min, max, .. } => within(found, f64::max, *min, *max),
            Self::Entries { value, .. } => match found {
                Value::Object(map) => map.len() == *value,
                Value::Array(list) => list.len() == *value,
                _ => false,
            },
            Self::Only { value, .. } => {
                found.as_object().is_some_and(|map| map.keys().all(|key| value.contains(key)))
            }
            Self::Contains { value, .. } => match found {
                Value::String(text) => text.contains(value),
                Value::Array(list) => list.iter().any(|entry| entry == value),
                _ => false,
            },
        }
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost { field, value } => write!(f, "{field} <= {value}"),
            Self::AtLeast { field, value } => write!(f, "{field} >= {value}"),
            Self::Equal { field, value } => write!(f, "{field} = {value}"),
            Self::Even { field, entries, within_percent: 0.0 } => {
                write!(f, "{field} exactly even over {entries}")
            }
            Self::Even { field, entries, within_percent } => {
                write!(f, "{field} even over {entries} within {within_percent} %")
            }
            Self::Least { field, min, max } => write!(f, "{field} least from {min} to {max}"),
            Self::Most { field, min, max } => write!(f, "{field} most from {min} to {max}"),
            Self::Entries { field, value } => write!(f, "{field} of {value}"),
            Self::Only { field, value } if value.is_empty() => write!(f, "{field} empty"),
            Self::Only { field, value } => write!(f, "{field} only {}", value.join(" or ")),
            Self::Contains { field, value } => write!(f, "{field} contains `{value}`"),
        }
    }
}

fn lookup<'a>(result: &'a Value, path: &str) -> Option<&'a Value> {
    if path == WHOLE {
        return Some(result);
    }
    path.split('/').try_fold(result, |value, key| value.get(key))
}

/// Whether the number of the map that `choose` prefers is from `min` to `max`.
fn within(found: &Value, choose: fn(f64, f64) -> f64, min: f64, max: f64) -> bool {
    let numbers = found.as_object().map(|map| map.values().map(Value::as_f64));
    let numbers: Option<Vec<f64>> = numbers.and_then(Iterator::collect);
    let chosen = numbers.and_then(|numbers| numbers.into_iter().reduce(choose));
    chosen.is_some_and(|chosen| (min..=max).contains(&chosen))
}

fn even(found: &Value, entries: usize, within_percent: f64) -> bool {
    let Some(map) = found.as_object() else { return false };
    let counts: Option<Vec<f64>> = map.values().map(Value::as_f64).collect();
    let Some(counts) = counts else { return false };
    let mean = counts.iter().sum::<f64>() / entries as f64;
    // A rounding error of the mean must not fail an exact share.
    let slack = mean * within_percent / 100.0 + 1e-6;
    counts.len() == entries && mean > 0.0 && counts.iter().all(|n| (n - mean).abs() <= slack)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<Predicate, String> {
        toml::from_str::<Predicate>(text).map_err(|e| e.to_string())
    }

    fn judge(text: &str, result: Value) -> Result<(), String> {
        parse(text).unwrap().check(&result)
    }

    #[test]
    fn compares_numbers_at_their_edges() {
        let at_most = "op = '<='\nfield = 'fail'\nvalue = 1";
        assert_eq!(judge(at_most, json!({"fail": 1})), Ok(()));
        assert_eq!(judge(at_most, json!({"fail": 2})), Err("expected fail <= 1, got 2".to_owned()));
        let at_least = "op = '>='\nfield = 'connections'\nvalue = 25.0";
        assert_eq!(judge(at_least, json!({"connections": 25})), Ok(()));
        assert!(judge(at_least, json!({"connections": 24})).is_err());
        let equal = "op = '=='\nfield = 'ok'\nvalue = 3000";
        assert_eq!(judge(equal, json!({"ok": 3000})), Ok(()));
        assert!(judge(equal, json!({"ok": 2999})).is_err());
    }

    #[test]
    fn fails_what_never_came_and_what_is_not_there() {
        let text = "op = '<='\nfield = 'first_call_s_after_add'\nvalue = 2.0";
        assert_eq!(
            judge(text, json!({"first_call_s_after_add": null})),
            Err("expected first_call_s_after_add <= 2, got null".to_owned())
        );
        assert!(judge(text, json!({})).unwrap_err().contains("no such field"));
        assert!(judge(text, json!("TimeoutError: no event")).is_err());
        assert!(judge(text, json!({"first_call_s_after_add": "1.0"})).is_err());
    }

    #[test]
    fn follows_a_path_of_keys() {
        let text = "op = '<='\nfield = 'fail_ms/max'\nvalue = 100";
        assert_eq!(judge(text, json!({"fail_ms": {"max": 1.2}})), Ok(()));
        assert!(judge(text, json!({"fail_ms": {}})).is_err());
    }

    #[test]
    fn judges_shares_against_their_mean() {
        let text = "op = 'even'\nfield = 'b'\nentries = 3\nwithin_percent = 1";
        assert_eq!(judge(text, json!({"b": {"1": 1000, "2": 1010, "3": 990}})), Ok(()));
        assert!(judge(text, json!({"b": {"1": 1029, "2": 973, "3": 998}})).is_err());
        assert!(judge(text, json!({"b": {"1": 1500, "2": 1500}})).is_err());
        assert!(judge(text, json!({"b": {"1": 0, "2": 0, "3": 0}})).is_err());
        let exact = "op = 'even'\nfield = 'b'\nentries = 3\nwithin_percent = 0";
        assert_eq!(judge(exact, json!({"b": {"1": 7, "2": 7, "3": 7}})), Ok(()));
        assert!(judge(exact, json!({"b": {"1": 7, "2": 8, "3": 6}})).is_err());
    }

    #[test]
    fn judges_the_least_and_the_most_of_a_map() {
        let least = "op = 'least'\nfield = 'b'\nmin = 120\nmax = 160";
        assert_eq!(judge(least, json!({"b": {"1": 331, "2": 120, "3": 332}})), Ok(()));
        assert!(judge(least, json!({"b": {"1": 331, "2": 119, "3": 332}})).is_err());
        let error = judge(least, json!({"b": {"1": 267, "2": 267}})).unwrap_err();
        assert!(error.starts_with("expected b least from 120 to 160, got {"), "{error}");
        let most = "op = 'most'\nfield = 'b'\nmin = 1.5\nmax = 2.5";
        assert_eq!(judge(most, json!({"b": {"1": 0.1, "2": 2.5}})), Ok(()));
        assert!(judge(most, json!({"b": {"1": 0.1, "2": 2.6}})).is_err());
        assert!(judge(most, json!({"b": {"1": 0.1, "2": 1.4}})).is_err());
        for nothing in [json!({"b": {}}), json!({"b": {"1": 2, "2": null}}), json!({"b": 2})] {
            assert!(judge(most, nothing).is_err());
        }
    }

    #[test]
    fn counts_entries_and_names() {
        let entries = "op = 'entries'\nfield = 'b'\nvalue = 1";
        assert_eq!(judge(entries, json!({"b": {"x": 3000}})), Ok(()));
        assert!(judge(entries, json!({"b": {"x": 1, "y": 1}})).is_err());
        assert!(judge(entries, json!({"b": 1})).is_err());
        let only = "op = 'only'\nfield = 'by_code'\nvalue = ['UNAVAILABLE']";
        assert_eq!(judge(only, json!({"by_code": {}})), Ok(()));
        assert_eq!(judge(only, json!({"by_code": {"UNAVAILABLE": 4}})), Ok(()));
        assert!(judge(only, json!({"by_code": {"UNAVAILABLE": 3, "CANCELLED": 1}})).is_err());
    }

    #[test]
    fn finds_text_and_list_entries() {
        let text = "op = 'contains'\nfield = 'services'\nvalue = 'helloworld.Greeter'";
        assert_eq!(judge(text, json!({"services": ["helloworld.Greeter"]})), Ok(()));
        assert!(judge(text, json!({"services": ["helloworld.Greeter2"]})).is_err());
        assert_eq!(judge(text, json!({"services": "a helloworld.Greeter b"})), Ok(()));
        assert!(judge(text, json!({"services": "nothing"})).is_err());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let unknown_key = "op = '<='\nfield = 'fail'\nvalue = 1\ntolerance = 2";
        assert!(parse(unknown_key).unwrap_err().contains("tolerance"));
        assert!(parse("op = '<'\nfield = 'fail'\nvalue = 1").unwrap_err().contains('<'));
        assert!(parse("op = '<='\nfield = 'fail'").unwrap_err().contains("value"));
        assert!(parse("op = '<='\nfield = 'fail'\nvalue = 'one'").is_err());
        assert!(parse("field = 'fail'\nvalue = 1").is_err());
    }

    #[test]
    fn refuses_conditions_without_meaning() {
        for text in [
            "op = 'even'\nfield = 'b'\nentries = 0\nwithin_percent = 1",
            "op = 'even'\nfield = 'b'\nentries = 3\nwithin_percent = -1",
            "op = '<='\nfield = ''\nvalue = 1",
            "op = '<='\nfield = 'a//b'\nvalue = 1",
            "op = '<='\nfield = 'a'\nvalue = nan",
            "op = 'contains'\nfield = 'a'\nvalue = ''",
            "op = 'least'\nfield = 'a'\nmin = 2\nmax = 1",
            "op = 'most'\nfield = 'a'\nmin = nan\nmax = 1",
        ] {
            assert!(parse(text).unwrap().validate().is_err(), "{text}");
        }
    }
}
