//! `grpc.channelz.v1.Channelz` (gRFC A14): a process's channels, servers and sockets for tools that
//! know gRPC and not us, grpcurl for one.
//!
//! A crate of its own above the channel and the server, because it is the one thing that knows
//! both, and a channel without it needs no generated code. It shows what it was given and nothing
//! else: there is no list of all channels of a process.
//!
//! ```no_run
//! use evenkeel::ChannelView;
//! use evenkeel_channelz::{Channelz, FILE_DESCRIPTOR_SET};
//! use evenkeel_server::{Server, ServerView};
//!
//! # fn example(mut routes: tonic::service::Routes, channel: evenkeel::Channel)
//! # -> Result<Server, evenkeel_server::ConfigError> {
//! let view = ServerView::new();
//! let channelz = Channelz::new(ChannelView::new([&channel]), [view.clone()]);
//! routes = routes.add_service(channelz.into_service());
//! Server::builder().view(&view).reflection([FILE_DESCRIPTOR_SET]).build(routes)
//! # }
//! ```
//!
//! What A14 asks for and is not counted here is left out: messages, traces, the time of the last
//! call, flow-control windows and socket options. A server does not look at statuses, so its
//! `calls_succeeded` are the calls that were answered with any; a channel's are those with OK, also
//! for its sockets.

mod convert;
mod service;

pub use evenkeel_proto::grpc::channelz::v1::FILE_DESCRIPTOR_SET;
pub use service::{Channelz, ChannelzService, PAGE_DEFAULT, PAGE_MAX};
