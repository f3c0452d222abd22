//! Durations as people write them: `5s`, `100ms`, `1m30s`. A bare number is milliseconds, because
//! the settings that the greeter takes over from gRPC end in `_ms` there; the caller warns about
//! it.

use std::time::Duration;

use program::duration;

/// A duration setting, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The duration.
    pub(crate) value: Duration,
    /// The text, when it was a number without unit.
    pub(crate) bare_number: Option<String>,
}

/// Reads a setting; the error says what was expected and what came.
pub(crate) fn parse(text: &str) -> Result<Setting, String> {
    if let Ok(ms) = text.parse::<u64>() {
        let bare_number = Some(text.to_owned());
        return Ok(Setting { value: Duration::from_millis(ms), bare_number });
    }
    let value = duration::parse(text).map_err(|error| error.to_string())?;
    Ok(Setting { value, bare_number: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_units_are_read() {
        let cases = [
            ("5s", Duration::from_secs(5)),
            ("100ms", Duration::from_millis(100)),
            ("1.5s", Duration::from_millis(1500)),
            ("1m30s", Duration::from_secs(90)),
            ("2h", Duration::from_secs(7200)),
            ("250us", Duration::from_micros(250)),
            ("0s", Duration::ZERO),
        ];
        for (text, value) in cases {
            assert_eq!(parse(text), Ok(Setting { value, bare_number: None }), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_milliseconds_and_is_remembered() {
        let setting = parse("5000").expect("a number");
        assert_eq!(setting.value, Duration::from_secs(5));
        assert_eq!(setting.bare_number.as_deref(), Some("5000"));
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        let huge = "99999999999999999999999999h";
        for text in ["", "s", "5x", "-5s", "5 s", "5s5", "1.2.3s", "five", ".s", "∞", huge] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("5s, 100ms") && error.contains(text), "{error}");
        }
    }
}
