//! Where endpoints come from. A source brings a [`crate::config::Config`] or a
//! [`crate::merge::Change`] to the [`crate::Control`] and says how it is doing; what it said last
//! is served until it says something else.

pub mod file;
pub mod flags;
pub mod kubernetes;
