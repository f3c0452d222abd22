//! Durations as people write them: `5s`, `100ms`, `1m30s`. Unlike the greeter's, a number without
//! unit is refused: nothing here has the name of a gRPC setting in milliseconds.

use std::time::Duration;

/// Reads a duration; the error says what was expected and what came.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    with_units(text)
        .ok_or_else(|| format!("expected a duration such as 5s, 100ms or 1m30s, got {text:?}"))
}

fn with_units(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
        total = total.checked_add(Duration::from_millis(ms))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [("5s", 5_000), ("100ms", 100), ("1m30s", 90_000), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "5x", "99999999999999999999h"] {
            assert!(parse(text).expect_err(text).contains("5s, 100ms"), "{text}");
        }
    }
}
