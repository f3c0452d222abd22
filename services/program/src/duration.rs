//! Durations as Go writes them (`1m30s`, `100ms`). gRPC's programs and the peers that we are
//! compared with take this form; crates for "human" durations read a bare number or `1 min` in ways
//! of their own, and a load test that runs 5 ms instead of 5 s is worse than an error.

use std::time::Duration;

use thiserror::Error;

/// The longest duration that is read, Go's own limit: 2⁶³ − 1 ns, about 292 years.
pub const DURATION_MAX: Duration = Duration::from_nanos(i64::MAX as u64);

/// Digits behind the point that count; a nanosecond is the 13th behind an hour's point.
const FRACTION_DIGITS_MAX: usize = 18;

/// Units and their nanoseconds, longer names before their own beginnings.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a text is not a duration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}; expected numbers with units such as 5s, 100ms or 1m30s, got {text:?}")]
pub struct DurationError {
    /// The text as given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads a duration: one or more decimal numbers, each with its unit (ns, us, ms, s, m, h), or `0`.
///
/// # Errors
///
/// An empty text, a missing or unknown unit, a negative value, or more than [`DURATION_MAX`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    parse_parts(text)
        .map_err(|reason| DurationError { text: text.chars().take(100).collect(), reason })
}

/// Like [`parse`], but zero is refused too: for waits and slots that must have a length.
///
/// # Errors
///
/// Those of [`parse`], and zero.
pub fn parse_positive(text: &str) -> Result<Duration, DurationError> {
    match parse(text)? {
        Duration::ZERO => {
            Err(DurationError { text: text.into(), reason: "it must be more than zero".into() })
        }
        duration => Ok(duration),
    }
}

fn parse_parts(text: &str) -> Result<Duration, String> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    match rest {
        "" => return Err("it is empty".into()),
        "0" => return Ok(Duration::ZERO),
        _ => {}
    }
    // A dash before anything else is no sign but the next flag, say.
    if rest.strip_prefix('-').is_some_and(|after| after.starts_with(|c: char| c.is_ascii_digit())) {
        return Err("it is negative".into());
    }
    let mut total_ns: u128 = 0;
    while !rest.is_empty() {
        let (part_ns, after) = parse_part(rest)?;
        total_ns += part_ns;
        if total_ns > DURATION_MAX.as_nanos() {
            return Err("it is longer than 292 years".into());
        }
        rest = after;
    }
    let ns = u64::try_from(total_ns).expect("checked against DURATION_MAX, which fits");
    Ok(Duration::from_nanos(ns))
}

/// Reads one number with its unit; returns its nanoseconds and what follows.
fn parse_part(text: &str) -> Result<(u128, &str), String> {
    let (whole, after) = digits(text);
    let (fraction, after) = match after.strip_prefix('.') {
        Some(after) => digits(after),
        None => ("", after),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err("a number is missing".into());
    }
    let unit = UNITS.iter().find_map(|(name, ns)| Some((*ns, after.strip_prefix(name)?)));
    let Some((unit_ns, after)) = unit else {
        return Err(if after.is_empty() || after.starts_with(|c: char| c.is_ascii_digit()) {
            "a unit is missing".into()
        } else {
            let unknown: String =
                after.chars().take_while(|c| !c.is_ascii_digit()).take(20).collect();
            format!("{unknown:?} is no unit")
        });
    };
    // More digits than any duration in range can have are out of range, whatever they say.
    let whole: u64 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| "it is longer than 292 years".to_owned())?,
    };
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let fraction_ns = match fraction {
        "" => 0,
        digits => {
            let value: u128 = digits.parse().expect("at most 18 ASCII digits");
            value * unit_ns / 10u128.pow(digits.len() as u32)
        }
    };
    Ok((u128::from(whole) * unit_ns + fraction_ns, after))
}

/// Splits the leading ASCII digits off.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, ns) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("100ms", 100_000_000),
            ("1m", 60_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1h1m1s", 3_661_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1.000000001s", 1_000_000_001),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("7us", 7_000),
            ("7µs", 7_000),
            ("7μs", 7_000),
            ("9ns", 9),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        for (text, reason) in [
            ("", "it is empty"),
            ("+", "it is empty"),
            ("5", "a unit is missing"),
            ("1s5", "a unit is missing"),
            ("1.5", "a unit is missing"),
            ("-5s", "it is negative"),
            ("-.5s", "a number is missing"),
            ("--quiet", "a number is missing"),
            ("s", "a number is missing"),
            (".s", "a number is missing"),
            ("5 s", "\" s\" is no unit"),
            ("5d", "\"d\" is no unit"),
            ("5min", "a number is missing"),
            ("1e3s", "\"e\" is no unit"),
            ("9223372036854775808ns", "it is longer than 292 years"),
            ("99999999999999999999999s", "it is longer than 292 years"),
            ("292y", "\"y\" is no unit"),
            ("2562048h", "it is longer than 292 years"),
        ] {
            assert_eq!(parse(text).unwrap_err().reason, reason, "{text}");
        }
        assert_eq!(
            parse("5").unwrap_err().to_string(),
            "a unit is missing; expected numbers with units such as 5s, 100ms or 1m30s, got \"5\""
        );
    }

    #[test]
    fn zero_is_refused_where_a_length_is_needed() {
        assert!(parse_positive("0s").unwrap_err().to_string().contains("more than zero"));
        assert_eq!(parse_positive("1ns"), Ok(Duration::from_nanos(1)));
    }
}
