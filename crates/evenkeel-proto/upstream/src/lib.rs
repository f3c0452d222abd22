//! Nothing; see `tests/subset.rs`.
