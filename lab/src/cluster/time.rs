//! Times as Kubernetes writes them: `2026-11-30T01:03:47Z`, whole seconds in UTC. A calendar crate
//! would do much more, and nothing else here needs one.

/// Seconds since 1970 of an RFC 3339 time in UTC; `None` for any other text.
pub(super) fn unix_s(text: &str) -> Option<f64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let hour: f64 = time.next()?.parse().ok()?;
    let minute: f64 = time.next()?.parse().ok()?;
    let second: f64 = time.next()?.parse().ok()?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) as f64 * 86_400.0 + hour * 3_600.0 + minute * 60.0 + second)
}

/// Days since 1970-01-01, by Howard Hinnant's `days_from_civil`: years begin in March there, so
/// that the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_api_are_read_to_the_second_or_finer() {
        assert_eq!(unix_s("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(unix_s("2024-02-29T12:00:00Z"), Some(1_709_208_000.0));
        assert_eq!(unix_s("2026-11-30T01:03:47Z"), Some(1_796_000_627.0));
        assert_eq!(unix_s("2026-11-30T01:03:47.250000Z"), Some(1_796_000_627.25));
        for other in ["", "2026-11-30", "2026-13-30T01:03:47Z", "2026-11-30T01:03:47+01:00"] {
            assert_eq!(unix_s(other), None, "{other}");
        }
    }
}
