//! The file of evenkeel's `call` under proof.

#[path = "../../crates/evenkeel/src/call/retry.rs"]
#[allow(dead_code, reason = "the models call a part of it")]
mod retry;

pub(crate) use retry::{CallConfig, Pushback, Retries};
