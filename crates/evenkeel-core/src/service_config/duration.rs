//! Durations as protobuf writes them in JSON: decimal seconds and an `s`, e.g. `"1.5s"`.

use serde_json::Value;

use crate::{ConfigError, Nanos, SECOND_NS};

/// The longest duration that protobuf's JSON allows, in seconds.
const SECONDS_MAX: u64 = 315_576_000_000;
/// What a [`Nanos`] holds, in seconds: about 584 years.
const HELD_SECONDS_MAX: u64 = u64::MAX / SECOND_NS - 1;

/// Reads a duration of at least 0.
pub(crate) fn parse(field: &str, json: &Value) -> Result<Nanos, ConfigError> {
    json.as_str().and_then(read).ok_or_else(|| {
        ConfigError::new(field, "seconds with an s, like \"1.5s\", at most 9 decimals", json)
    })
}

/// Reads a duration above 0.
pub(super) fn parse_positive(field: &str, json: &Value) -> Result<Nanos, ConfigError> {
    match parse(field, json)? {
        0 => Err(ConfigError::new(field, "more than 0", json)),
        ns => Ok(ns),
    }
}

fn read(text: &str) -> Option<Nanos> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds: u64 = whole.parse().ok().filter(|s| *s <= SECONDS_MAX)?;
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    Some(seconds.min(HELD_SECONDS_MAX) * SECOND_NS + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_protobuf_writes_and_nothing_else() {
        let good = [
            ("0s", 0),
            ("1s", SECOND_NS),
            ("1.5s", 1_500_000_000),
            ("0.000000001s", 1),
            ("0.010s", 10_000_000),
        ];
        for (text, ns) in good {
            assert_eq!(parse("f", &text.into()), Ok(ns), "{text}");
        }
        let bad = ["", "s", "1", "1m", "-1s", "+1s", ".5s", "1.s", "1.0000000001s", "1e3s", " 1s"];
        for text in bad {
            let error = parse("f", &text.into()).unwrap_err();
            assert!(error.to_string().starts_with("f: expected seconds with an s"), "{text:?}");
        }
        assert!(parse("f", &315_576_000_001_u64.into()).is_err());
        assert!(parse("f", &"315576000001s".into()).is_err());
        assert!(parse("f", &"315576000000s".into()).is_ok());
        assert!(parse_positive("f", &"0s".into()).unwrap_err().expected.contains("more than 0"));
    }
}
