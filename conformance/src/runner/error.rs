//! Why a run could not be made. A row that fails is not an error: it is the result.

use std::io;

/// What keeps the runner from its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something outside this repository is not on this machine; exit code 3.
    #[error("{0}")]
    Skip(String),
    /// The command line asks for something that is not there; exit code 64.
    #[error("{0}")]
    Usage(String),
    /// `expect.toml` or a saved run is wrong; exit code 2.
    #[error("expectations: {0}")]
    Expect(String),
    /// A process that we started did not do what it has to; exit code 2.
    #[error("{0}")]
    Process(String),
    /// The operating system refused; exit code 2.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with its path or program.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The exit code of a run that ends with this.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Skip(_) => 3,
            Self::Usage(_) => 64,
            _ => 2,
        }
    }
}
