//! What can be wrong with certificates, keys, names and providers, said so that it can be mended.

use std::path::{Path, PathBuf};

/// Why TLS can't be used as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// rustls was built without a crypto provider, and none is installed.
    #[error(
        "expected a crypto provider, and rustls has none; turn on rustls's feature `ring` or \
         `aws_lc_rs` in the application, install one with CryptoProvider::install_default, or \
         give one"
    )]
    NoProvider,
    /// rustls was built with two crypto providers, and none is installed.
    #[error(
        "expected one crypto provider, and rustls has `ring` and `aws_lc_rs`; choose one with \
         CryptoProvider::install_default, or give one"
    )]
    TwoProviders,
    /// A file can't be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// PEM or DER is not what it should be.
    #[error("{what}: {reason}")]
    Content {
        /// What was read, with its files.
        what: String,
        /// What was expected, and what came.
        reason: String,
    },
    /// A name of a server or a peer can't be used.
    #[error("{0}")]
    Name(String),
    /// rustls refuses the combination.
    #[error("{0}")]
    Config(String),
}

impl TlsError {
    pub(crate) fn file(path: &Path, reason: impl ToString) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Config(error.to_string())
    }
}
