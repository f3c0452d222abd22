//! The policies, one folder each, and the two pieces that policies with children are made of.

pub mod children;
pub mod grpclb;
pub mod pick_first;
pub mod round_robin;
pub mod router;
pub mod switch;
mod unreachable;

#[cfg(test)]
mod tests;
