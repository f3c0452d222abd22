//! Our channel beside other gRPC clients: the client under test, and the runner that judges it.

pub mod client;
pub mod runner;
