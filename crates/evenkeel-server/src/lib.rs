//! What a good gRPC server needs and `tonic::transport::Server` lacks: a connection age with jitter
//! that ends in GOAWAY, a grace after it, and a drain in the order that loses no call. tonic's own
//! age setting has no jitter, and its grace closes connections without ever sending GOAWAY, so a
//! client loses what it has in flight.
//!
//! The accept loop is our own, over hyper's HTTP/2; any [`tonic::service::Routes`] runs on it:
//!
//! ```no_run
//! # type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
//! # async fn example(routes: tonic::service::Routes) -> Result<std::process::ExitCode> {
//! use std::time::Duration;
//! use evenkeel_server::{Server, Termination};
//!
//! let signals = Termination::install()?;
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:8000").await?;
//! let server = Server::builder()
//!     .max_connection_age(Duration::from_secs(300))
//!     .health(["helloworld.Greeter"])
//!     .build(routes)?;
//! let ended = signals.serve(server, [listener]).await?;
//! Ok(ended.exit_code().into())
//! # }
//! ```
//!
//! Compared with `tonic::transport::Server`, this crate reinstates `grpc-timeout`, connect info and
//! error recovery, and adds isolation of panics; see [`Server::serve`].

mod accept;
mod age;
mod call;
mod config;
mod connection;
mod connections;
mod drain;
mod health;
mod lifecycle;
mod server;
mod signals;
mod streams;
mod timeout;

pub use config::{
    AGE_JITTER, Builder, CONNECTION_WINDOW_BYTES, ConfigError, DEFAULT_DRAIN_DELAY,
    DEFAULT_DRAIN_GRACE, DEFAULT_HANDSHAKE_TIMEOUT, DEFAULT_MAX_CONCURRENT_STREAMS,
    DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_HEADER_LIST_BYTES, DEFAULT_MAX_PENDING_RESETS,
    DEFAULT_TCP_KEEPALIVE, DURATION_MAX, MIN_CONNECTION_AGE, STREAM_WINDOW_BYTES,
    TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_RETRIES,
};
pub use drain::{DrainReport, ShutdownHandle};
pub use health::Health;
pub use server::{ServeError, Server};
pub use signals::{Ended, Termination};
