//! Whom this side trusts.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{RootCertStore, pki_types::CertificateDer};

use crate::{
    TlsError, pem,
    source::{Source, WATCH_INTERVAL, WatchStatus},
};

const WHAT: &str = "roots";

/// The certificates that a peer's chain may end in. Clones share content and watch.
///
/// The platform's roots are a file on most Linux distributions:
/// `Roots::watch("/etc/ssl/certs/ca-certificates.crt")`. Elsewhere the crate
/// `rustls-native-certs` finds them: `Roots::from_der(load_native_certs().certs)`; or give the
/// channel a `rustls::ClientConfig` with the verifier of `rustls-platform-verifier`.
#[derive(Clone, Debug)]
pub struct Roots {
    pub(crate) source: Arc<Source<RootCertStore>>,
}

impl Roots {
    /// From PEM, one or more certificates.
    ///
    /// # Errors
    ///
    /// [`TlsError::Content`], when there is none, or none that can be used.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        Ok(Self { source: Source::given(WHAT, &[pem.as_ref()], parse)? })
    }

    /// From DER, one or more certificates.
    ///
    /// # Errors
    ///
    /// As [`Roots::from_pem`].
    pub fn from_der(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let store = store(certificates)
            .map_err(|reason| TlsError::Content { what: WHAT.to_owned(), reason })?;
        Ok(Self { source: Source::fixed(WHAT, store) })
    }

    /// From a PEM file, read now and watched from now on: new handshakes look at it again after
    /// [`WATCH_INTERVAL`].
    ///
    /// # Errors
    ///
    /// [`TlsError::File`] or [`TlsError::Content`], if it can't be used now. Later it is
    /// [`Roots::status`] that tells.
    pub fn watch(pem: impl Into<PathBuf>) -> Result<Self, TlsError> {
        Self::watch_every(WATCH_INTERVAL, pem)
    }

    /// The same with another interval; zero looks at each handshake.
    ///
    /// # Errors
    ///
    /// As [`Roots::watch`].
    pub fn watch_every(interval: Duration, pem: impl Into<PathBuf>) -> Result<Self, TlsError> {
        Ok(Self { source: Source::watch(WHAT, vec![pem.into()], interval, parse)? })
    }

    /// What became of the file so far.
    #[must_use]
    pub fn status(&self) -> WatchStatus {
        self.source.status()
    }
}

fn parse(contents: &[Vec<u8>]) -> Result<RootCertStore, String> {
    let mut all = Vec::new();
    for content in contents {
        all.extend(pem::certificates(content)?);
    }
    store(all)
}

/// A platform's bundle may have certificates that webpki can't read; one good one is enough.
fn store(
    certificates: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let (good, bad) = store.add_parsable_certificates(certificates);
    if good == 0 {
        return Err(format!("expected X.509 certificates, got {bad} that can't be read as such"));
    }
    Ok(store)
}
