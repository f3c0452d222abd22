//! Measures `evenkeel::Channel` against what it must beat: tonic's `balance_list`, three tonic
//! Channels taken in turn by hand, grpc-go, and raw h2 as the floor. Each candidate and the servers
//! are processes of their own, so that CPU is counted per candidate; rounds are interleaved
//! (A, B, C, A, B, C, …), so that a machine that gets slower hits all of them.
//!
//! Nothing here asserts a time: the programs print what they measured beside what is aimed at.

pub mod allocations;
pub mod backends;
pub mod byte_service;
pub mod callers;
pub mod candidate;
pub mod clock;
pub mod cores;
pub mod floor;
pub mod memory;
pub mod overhead;
pub mod peer;
pub mod picks;
pub mod ratios;
pub mod statistics;
pub mod subprocess;
pub mod table;
