//! The names of the cases, as the descriptions and all other implementations spell them.

/// A case that our client runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Case {
    /// Messages of zero bytes.
    EmptyUnary,
    /// Messages that are larger than a flow-control window.
    LargeUnary,
    /// Four requests, one response.
    ClientStreaming,
    /// One request, four responses.
    ServerStreaming,
    /// Request and response in turn, four times.
    PingPong,
    /// A stream without messages in either direction.
    EmptyStream,
    /// Headers and trailers that the server sends back.
    CustomMetadata,
    /// A status of the server's choice, with its message.
    StatusCodeAndMessage,
    /// A status message of white space and of letters outside ASCII.
    SpecialStatusMessage,
    /// UNIMPLEMENTED of a method that the service does not have.
    UnimplementedMethod,
    /// UNIMPLEMENTED of a service that the server does not have.
    UnimplementedService,
    /// Cancelled after the headers.
    CancelAfterBegin,
    /// Cancelled after a response.
    CancelAfterFirstResponse,
    /// DEADLINE_EXCEEDED of a server that says nothing.
    TimeoutOnSleepingServer,
    /// All calls on one of several servers, with pick_first.
    PickFirstUnary,
    /// Large calls on one channel, each within its time.
    RpcSoak,
    /// Large calls on a new channel each.
    ChannelSoak,
}

const NO_GZIP: &str = "messages are not compressed: no compression is linked";
const NO_ORCA: &str = "our channel has no policy yet that reads load reports (ORCA)";

/// Cases that need no cloud credentials and that we do not have, and why.
pub const NOT_SUPPORTED: [(&str, &str); 7] = [
    ("client_compressed_unary", NO_GZIP),
    ("server_compressed_unary", NO_GZIP),
    ("client_compressed_streaming", NO_GZIP),
    ("server_compressed_streaming", NO_GZIP),
    ("orca_per_rpc", NO_ORCA),
    ("orca_oob", NO_ORCA),
    ("cacheable_unary", "it needs calls by GET and a caching proxy before the server"),
];

impl Case {
    /// All of them, in the order of the descriptions.
    pub const ALL: [Self; 17] = [
        Self::EmptyUnary,
        Self::LargeUnary,
        Self::ClientStreaming,
        Self::ServerStreaming,
        Self::PingPong,
        Self::EmptyStream,
        Self::CustomMetadata,
        Self::StatusCodeAndMessage,
        Self::SpecialStatusMessage,
        Self::UnimplementedMethod,
        Self::UnimplementedService,
        Self::CancelAfterBegin,
        Self::CancelAfterFirstResponse,
        Self::TimeoutOnSleepingServer,
        Self::PickFirstUnary,
        Self::RpcSoak,
        Self::ChannelSoak,
    ];

    /// The value of `--test_case`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EmptyUnary => "empty_unary",
            Self::LargeUnary => "large_unary",
            Self::ClientStreaming => "client_streaming",
            Self::ServerStreaming => "server_streaming",
            Self::PingPong => "ping_pong",
            Self::EmptyStream => "empty_stream",
            Self::CustomMetadata => "custom_metadata",
            Self::StatusCodeAndMessage => "status_code_and_message",
            Self::SpecialStatusMessage => "special_status_message",
            Self::UnimplementedMethod => "unimplemented_method",
            Self::UnimplementedService => "unimplemented_service",
            Self::CancelAfterBegin => "cancel_after_begin",
            Self::CancelAfterFirstResponse => "cancel_after_first_response",
            Self::TimeoutOnSleepingServer => "timeout_on_sleeping_server",
            Self::PickFirstUnary => "pick_first_unary",
            Self::RpcSoak => "rpc_soak",
            Self::ChannelSoak => "channel_soak",
        }
    }

    /// The case of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|case| case.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_found_by_its_name_and_by_no_other() {
        for case in Case::ALL {
            assert_eq!(Case::named(case.name()), Some(case));
        }
        assert_eq!(Case::named("empty-unary"), None);
        assert!(NOT_SUPPORTED.iter().all(|(name, _)| Case::named(name).is_none()));
    }
}
