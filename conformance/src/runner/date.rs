//! Today's date in UTC, for the head of the generated page. A calendar crate for one line would
//! be the larger thing to keep.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-11-24`.
pub(crate) fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    of_day(i64::try_from(seconds / 86_400).unwrap_or_default())
}

/// Days since 1970-01-01 as a date. Years are counted from March, so that the day that leap years
/// add is a year's last; 719,468 days lie between 0000-03-01 and 1970-01-01.
fn of_day(day: i64) -> String {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_leap_days_and_year_ends() {
        for (day, date) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_453, "2025-12-31"),
            (20_454, "2026-01-01"),
            (20_781, "2026-11-24"),
        ] {
            assert_eq!(of_day(day), date);
        }
    }
}
