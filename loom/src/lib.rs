//! evenkeel's own atomics, proved: loom runs each model below under every order in which its
//! threads' steps can be interleaved, with every value that a load may see.
//!
//! The files under proof are evenkeel's, compiled a second time by path (`transport`, `call`): a
//! copy would drift, and evenkeel itself with `--cfg loom` would compile h2, hickory and tonic anew
//! for types that they do not use. What those files take from `crate::sync` is std's in evenkeel,
//! and loom's here.

mod call;
mod slots;
mod sync;
mod throttle;
mod transport;

// For the files that are compiled by path.
use http as _;
use pin_project_lite as _;

pub use slots::{
    a_full_connection_serves_whoever_waits, a_lowered_limit_loses_no_stream,
    a_raised_limit_reaches_who_waits, a_stream_is_never_held_twice,
    who_declines_lets_those_behind_have_it, who_leaves_the_line_passes_the_stream_on,
};
pub use throttle::{a_success_is_counted_beside_a_failure, one_of_two_failures_is_repeated};
