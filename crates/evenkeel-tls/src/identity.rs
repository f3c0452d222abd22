//! Who this side is: a certificate chain and its key.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use crate::{
    TlsError, pem,
    source::{Source, WATCH_INTERVAL, WatchStatus},
};

const WHAT: &str = "certificate and key";

/// A certificate with its chain and private key. Clones share content and watch; give one to as
/// many channels and servers as need it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(crate) source: Arc<Source<Pair>>,
}

/// A chain, leaf first, and the leaf's key.
pub(crate) struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From PEM: the chain, leaf first, and the leaf's key.
    ///
    /// # Errors
    ///
    /// [`TlsError::Content`]. Whether they belong together is found out when they are used.
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let source = Source::given(WHAT, &[chain.as_ref(), key.as_ref()], parse)?;
        Ok(Self { source })
    }

    /// From DER: the chain, leaf first, and the leaf's key.
    #[must_use]
    pub fn from_der(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { source: Source::fixed(WHAT, Pair { chain, key }) }
    }

    /// From two PEM files (which may be one and the same), read now and watched from now on: new
    /// handshakes look at them again after [`WATCH_INTERVAL`].
    ///
    /// # Errors
    ///
    /// [`TlsError::File`] or [`TlsError::Content`], if they can't be used now. Later it is
    /// [`Identity::status`] that tells.
    pub fn watch(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        Self::watch_every(WATCH_INTERVAL, chain, key)
    }

    /// The same with another interval; zero looks at each handshake.
    ///
    /// # Errors
    ///
    /// As [`Identity::watch`].
    pub fn watch_every(
        interval: Duration,
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let files = vec![chain.into(), key.into()];
        Ok(Self { source: Source::watch(WHAT, files, interval, parse)? })
    }

    /// What became of the files so far.
    #[must_use]
    pub fn status(&self) -> WatchStatus {
        self.source.status()
    }
}

impl Pair {
    pub(crate) fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider).map_err(|e| {
            match e {
                rustls::Error::InconsistentKeys(_) => {
                    "expected the key of the first certificate, got another one".to_owned()
                }
                other => other.to_string(),
            }
        })
    }
}

fn parse(contents: &[Vec<u8>]) -> Result<Pair, String> {
    let [chain, key] = contents else { return Err("expected a certificate and a key".into()) };
    Ok(Pair { chain: pem::certificates(chain)?, key: pem::key(key)? })
}
