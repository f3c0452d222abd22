//! The promises of the examples, each as a function from what was seen to a verdict.
//!
//! They are pure: a phase collects, a check judges, and tests feed made-up reports to see each of
//! them fail. A check that saw nothing to judge (no kill, no drain, no call) fails; silence is not
//! success.

use serde::Serialize;

mod envoy;
#[cfg(test)]
mod envoy_tests;
mod faults;
mod lookaside;
#[cfg(test)]
mod lookaside_tests;
mod mesh;
mod shares;
#[cfg(test)]
mod tests;

pub(crate) use envoy::{
    aborted_share, delayed, exact_turns, lost_in_flight, none_rejected, nothing_deprecated,
    nothing_rebuilt, slow_gets_less, turns_by_worker,
};
pub(crate) use faults::{
    Dead, Hung, aged, bounded, failures_within_open_streams, failures_within_sent, none_after_eof,
    only_unavailable_from, out_of_rotation,
};
pub(crate) use lookaside::{
    calm_shares, dropped, last_list_serves, moved_within, reports_add_up, tail_better,
};
pub(crate) use mesh::{
    Secured, Stranger, all_refused, caller_named, impostor_unused, mutual_tls,
    restricted_refuses_only, secured, strangers_refused,
};
pub(crate) use shares::{
    Life, all_served_within, back_within, drained_cleanly, each_served, even_shares, none_failed,
    one_gets_all, only_left_serves, only_left_serves_after, replaced,
};

/// One verdict.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Check {
    /// Stable: scripts may look for it.
    pub(crate) id: &'static str,
    pub(crate) holds: bool,
    pub(crate) expected: String,
    pub(crate) seen: String,
    /// The one flag or setting that makes it fail.
    pub(crate) breaks: &'static str,
}
