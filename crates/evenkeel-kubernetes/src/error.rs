//! Why a watch has nothing, or nothing newer, said so that it can be mended.

use std::time::Duration;

use crate::{ServiceKey, api};

/// What went wrong with a watch; it is tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct WatchError {
    /// In short, for programs.
    pub kind: WatchErrorKind,
    /// Which server and Service, what was expected, what came, what to do.
    pub message: String,
}

/// The kinds of [`WatchError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchErrorKind {
    /// The API server does not know who asks (401).
    Unauthorized,
    /// Who asks may not list and watch EndpointSlices there (403).
    Forbidden,
    /// The API server answered with this other status.
    Status(u16),
    /// There is no connection, or it was lost.
    Connection,
    /// Nothing came in time.
    Timeout,
    /// What came is not what an API server says, or exceeds a limit.
    Unreadable,
    /// There are no usable credentials to send.
    Credentials,
    /// The API server no longer has the version to watch from (410).
    Gone,
}

impl WatchError {
    pub(crate) fn new(kind: WatchErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// A refusal, with what the server says of its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) error: WatchError,
    /// `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

/// The error for an answer that is not a success.
pub(crate) fn refused(server: &str, key: &ServiceKey, status: &api::Status) -> WatchError {
    let code = status.code;
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    let namespace = key.namespace();
    let (kind, advice) = match code {
        401 => (
            WatchErrorKind::Unauthorized,
            "; it does not accept the credentials: look at the token of the ServiceAccount or the \
             user of the kubeconfig"
                .to_owned(),
        ),
        403 => (
            WatchErrorKind::Forbidden,
            format!(
                "; expected the right to list and watch endpointslices in namespace {namespace}: \
                 bind this account there to a Role with apiGroups: [\"discovery.k8s.io\"], \
                 resources: [\"endpointslices\"], verbs: [\"list\", \"watch\"]"
            ),
        ),
        410 => (WatchErrorKind::Gone, String::new()),
        _ => (WatchErrorKind::Status(code), String::new()),
    };
    let message = format!(
        "the API server {server} answered {code} for the EndpointSlices of {key}: {said}{advice}"
    );
    WatchError::new(kind, message)
}
