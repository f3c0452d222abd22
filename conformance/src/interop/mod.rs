//! gRPC's interop tests (`doc/interop-test-descriptions.md` of grpc/grpc), both halves of them: the
//! client over our channel, and the server on `evenkeel-server`. They take the flags that every
//! implementation's do, so that ours can stand against anybody's.

mod cancel;
mod case;
mod echo;
mod flags;
mod outgoing;
mod proto;
mod run;
mod serve;
mod service;
mod soak;
mod streaming;
mod target;
mod unary;

pub use case::{Case, NOT_SUPPORTED};
pub use run::{EXIT_NOT_SUPPORTED, Failure, main_from, run_case};
pub use serve::{routes, server_main_from};
pub use service::TestServer;
pub use soak::Soak;
pub use target::Target;
