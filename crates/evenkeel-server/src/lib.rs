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
//! # Limits
//!
//! A client that breaks a limit loses its connection (GOAWAY, ENHANCE_YOUR_CALM) or its stream, and
//! each limit that is hit is counted ([`Server::stats`], [`Event`]). h2 has some of them; the
//! others are the socket's under hyper:
//!
//! | attack | limit | whose | counter |
//! | --- | --- | --- | --- |
//! | Rapid Reset, no handler yet | [`Builder::max_pending_resets`] | h2 | `abuse_resets` |
//! | Rapid Reset, running calls | [`Builder::max_resets_per_second`] | ours | `abuse_resets` |
//! | too many streams, MadeYouReset | [`ERROR_RESETS_MAX`] | h2 | `abuse_error_resets` |
//! | CONTINUATION flood | 5 frames | h2 | `abuse_continuations` |
//! | header bomb | a multiple of [`Builder::max_header_list_bytes`] | h2 | `abuse_header_list` |
//! | long header list | [`Builder::max_header_list_bytes`], answered 431 | h2 | `streams_refused` |
//! | empty and tiny DATA | a budget | h2 | `abuse_data_frames` |
//! | PING flood | [`Builder::max_pings_per_second`] | ours | `abuse_pings` |
//! | SETTINGS flood | [`SETTINGS_PER_SECOND_MAX`] | ours | `abuse_settings` |
//! | WINDOW_UPDATE flood | [`WINDOW_UPDATES_PER_SECOND_MAX`] | ours | `abuse_window_updates` |
//! | PRIORITY, unknown frames | [`OTHER_FRAMES_PER_SECOND_MAX`] | ours | `abuse_other_frames` |
//! | many connections | [`Builder::max_connections`] | ours | `connections_refused` |
//! | idle connections | [`Builder::max_connection_idle`] | ours | `connections_idle` |
//! | silence, also in TLS | [`Builder::handshake_timeout`] | ours | `handshake_timeouts` |
//! | slow-loris | [`Builder::handshake_timeout`] | ours | `frames_stalled` |
//! | no window for responses | [`Builder::max_response_stall`] | ours | `responses_stalled` |
//! | nobody reads the socket | [`Builder::max_write_stall`] | ours | `writes_stalled` |
//!
//! No connection reads more than about [`TURN_FRAMES_MAX`] frames before others have their turn.
//! What a client can make the server hold is at most its streams
//! ([`Builder::max_concurrent_streams`]) times the largest response, until the stall's limit: where
//! responses are large, lower one of them. HTTP/2 gets a response in pieces of
//! [`RESPONSE_PIECE_BYTES_MAX`], so that a window of one byte holds no more than no window does,
//! and for no longer.
//!
//! # TLS
//!
//! The feature `tls` adds the module `tls` and `Builder::tls`; the application chooses the crypto
//! provider. All limits above hold for what is inside TLS.
//!
//! # Load
//!
//! [`Builder::orca`] makes the server tell its load to clients and balancers: in each call's
//! trailers, and as a stream; see [`orca`].
//!
//! # Restarts
//!
//! On Kubernetes a new pod has an address of its own, so a restart is a drain there and nothing
//! else. Where one process takes over from another on the same address, give both the same
//! listening socket (inherited, or [`std::net::TcpListener::try_clone`]) and drain the old one: no
//! connection is ever in a queue that closes. SO_REUSEPORT is not offered: each process then has
//! its own queue, and what waits in the old one is reset when it closes.
//!
//! Compared with `tonic::transport::Server`, this crate reinstates `grpc-timeout`, connect info and
//! error recovery, and adds isolation of panics; see [`Server::serve`].

mod accept;
mod age;
mod call;
mod config;
mod connection;
mod connections;
mod counted;
mod drain;
mod frames;
mod goaway;
mod health;
mod layer;
mod lifecycle;
mod meter;
mod observe;
pub mod orca;
mod secure;
mod server;
mod signals;
mod socket;
mod streams;
mod timeout;
#[cfg(feature = "tls")]
pub mod tls;
mod view;

pub use config::{
    AGE_JITTER, Builder, CONNECTION_WINDOW_BYTES, ConfigError, DEFAULT_DRAIN_DELAY,
    DEFAULT_DRAIN_GRACE, DEFAULT_HANDSHAKE_TIMEOUT, DEFAULT_MAX_CONCURRENT_STREAMS,
    DEFAULT_MAX_CONNECTION_IDLE, DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_HEADER_LIST_BYTES,
    DEFAULT_MAX_PENDING_RESETS, DEFAULT_MAX_PINGS_PER_SECOND, DEFAULT_MAX_RESETS_PER_SECOND,
    DEFAULT_MAX_RESPONSE_STALL, DEFAULT_MAX_WRITE_STALL, DEFAULT_TCP_KEEPALIVE, DURATION_MAX,
    ERROR_RESETS_MAX, MIN_CONNECTION_AGE, OTHER_FRAMES_PER_SECOND_MAX, RESPONSE_PIECE_BYTES_MAX,
    SETTINGS_PER_SECOND_MAX, STREAM_WINDOW_BYTES, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_RETRIES,
    TURN_BYTES_MAX, TURN_FRAMES_MAX, WINDOW_UPDATES_PER_SECOND_MAX,
};
pub use counted::{CallEnd, CallMeter};
pub use drain::{DrainReport, ShutdownHandle};
pub use health::Health;
pub use layer::{CallLayer, CallScope, CallStart};
pub use observe::{Event, Observer, ServerStats};
pub use server::{ServeError, Server};
pub use signals::{Ended, Termination};
pub use view::{ConnectionSnapshot, ListenerSnapshot, ServerSnapshot, ServerView, StreamCounts};
