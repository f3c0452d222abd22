//! A real cluster, as far as the lab looks at one or plays on one.
//!
//! Everything goes through `kubectl` as a child process (ADR 0027): it knows every way to prove who
//! the user is, and it is what the user would type. What it prints is read as JSON.

pub(crate) mod kubectl;
pub(crate) mod objects;
