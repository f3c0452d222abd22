//! Our channel beside other gRPC clients: the client under test, gRPC's interop tests, and the
//! runner that judges both.

pub mod client;
pub mod interop;
pub mod runner;
