//! Our channel beside other gRPC clients: the client under test, our control plane for other
//! people's clients, gRPC's interop tests, and the runner that judges all of them.

pub mod client;
pub mod control_plane;
pub mod interop;
pub mod runner;
