//! The targets. See [`crate::TARGETS`].

pub(crate) mod dns;
pub(crate) mod grpclb_client;
pub(crate) mod grpclb_server;
pub(crate) mod http2_client;
pub(crate) mod http2_server;
pub(crate) mod service_config;
pub(crate) mod xds;

/// A message without what differs between inputs that do the same: numbers and names.
fn gist(message: &str) -> String {
    let mut gist: String = message.chars().filter(char::is_ascii_alphabetic).collect();
    gist.truncate(160);
    gist
}
