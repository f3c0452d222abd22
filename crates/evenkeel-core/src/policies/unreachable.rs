//! The one message of every policy that has nothing to send a call to: which endpoints there are,
//! and what went wrong last. A bare "connection refused" leaves a person to guess whose it was.

use crate::Status;

/// The number of addresses that a message names before it says "and N more".
const NAMED_MAX: usize = 5;

/// UNAVAILABLE for `total` things called `what`, of which `names` gives an address each.
pub(super) fn unreachable(
    what: &str,
    total: usize,
    names: impl Iterator<Item = String>,
    last_error: &str,
) -> Status {
    let names: Vec<String> = names.take(NAMED_MAX).collect();
    let more = match total.saturating_sub(names.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let names = names.join(", ");
    Status::unavailable(format!(
        "none of {total} {what} can be reached ({names}{more}); last error: {last_error}"
    ))
}
