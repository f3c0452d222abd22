//! The runner: drives a client through the scenarios of `../shared/peers` and judges what comes.
//!
//! The scenarios themselves are not ours: they are `reference.py`, the program that measured
//! grpc-go, C-core and tonic, so that nobody has to believe our imitation of it. Ours is what the
//! rows have to be (`expect.toml`), other people's clients against our greeter, gRPC's interop
//! cases, and the page.

mod balancer;
mod block;
mod certificates;
mod channelz;
mod cli;
mod connections;
mod control_plane;
mod date;
mod error;
mod expect;
mod facility;
mod interop;
mod lane;
mod lookaside;
mod page;
mod peers;
mod predicate;
mod process;
mod report;
mod row;
mod saved;
mod scenario;
mod strangers;

pub use cli::main_from;
pub use error::Error;
pub use expect::{Expectations, Expected, Verdict};
pub use predicate::Predicate;
pub use row::{Made, Row};
