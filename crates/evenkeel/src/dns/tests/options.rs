//! Values that can't work are refused with the field's name.

use super::*;

#[test]
fn options_that_cannot_work_are_refused() {
    let zero = Duration::ZERO;
    let ok = DnsOptions::default();
    assert_eq!(ok.check(), Ok(()));
    assert_eq!(DnsOptions { interval_min: zero, stale_max: zero, ..ok.clone() }.check(), Ok(()));
    let equal = DnsOptions { interval_min: ok.interval_max, ..ok.clone() };
    assert_eq!(equal.check(), Ok(()));

    let error = DnsOptions { timeout: zero, ..ok.clone() }.check().unwrap_err();
    assert_eq!(
        error,
        "DnsOptions::timeout is 0, so that every look-up would fail; set it to a few seconds"
    );
    let error = DnsOptions { interval_max: Duration::from_millis(999), ..ok }.check().unwrap_err();
    assert_eq!(
        error,
        "DnsOptions::interval_min (1s) is longer than interval_max (999ms); lower the one or \
         raise the other"
    );
}
