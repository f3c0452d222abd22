//! Why the lab could not run. A check that does not hold is a result, never an error.

use std::{io, path::PathBuf};

use crate::{cluster::kubectl::KubectlError, envoy::Missing};

/// Each of these ends `lab run` with exit code 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LabError {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error(
        "no free block of loopback addresses in {tried} tries, the last one failed with: {last}; \
         each phase needs 127.x.y.1 to 127.x.y.254 on port {port}: run `lab doctor`"
    )]
    NoBlock { tried: usize, port: u16, last: io::Error },
    #[error("{name} was not ready within {limit_s} s; its log ends with:\n{log}")]
    NotReady { name: String, limit_s: u64, log: String },
    #[error("{name} ended with {status} before it should; its log ends with:\n{log}")]
    Ended { name: String, status: String, log: String },
    #[error("{name} is no longer running, so it can't be sent {signal}")]
    Gone { name: String, signal: &'static str },
    #[error("{name} did not end within {limit_s} s of {signal}; its log ends with:\n{log}")]
    Lingers { name: String, limit_s: u64, signal: &'static str, log: String },
    #[error("the report {path} of {name} can't be read ({source}); its log ends with:\n{log}")]
    Report { name: String, path: PathBuf, source: serde_json::Error, log: String },
    #[error(
        "envoy/{name}: expected \"{piece}\" once, found it {found} times; the lab's replacements \
         (lab/src/envoy/files.rs) have to follow the file"
    )]
    Replacement { name: &'static str, piece: String, found: usize },
    #[error(
        "--programs: expected the programs client, greeter and grpclb in {}, found no {name}",
        folder.display()
    )]
    NoProgram { folder: PathBuf, name: &'static str },
    #[error(transparent)]
    NoEnvoy(#[from] Missing),
    #[error("an example started an Envoy without saying that it needs one")]
    Unlooked,
    #[error("phase {phase} panicked: {message}")]
    Panicked { phase: String, message: String },
    #[error("{0}")]
    Cluster(String),
    #[error(transparent)]
    Kubectl(#[from] KubectlError),
    #[error("interrupted by {0}; every process of the lab is gone")]
    Interrupted(&'static str),
}

impl LabError {
    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
