//! TLS of a server: its files, and ring as the crypto provider, which a process has to choose.

use std::{path::Path, sync::Arc};

use evenkeel_server::tls::{ClientAuth, Identity, Roots, ServerTls, TlsError};
use rustls::crypto::ring;

/// TLS with a certificate (its chain behind it) and its key, and for clients whose certificate
/// `client_ca` has signed, where that is given; all PEM files, followed when they change. None
/// without a certificate.
///
/// # Errors
///
/// A file can't be read or used; it is named.
pub fn server(
    certificate: Option<&Path>,
    key: Option<&Path>,
    client_ca: Option<&Path>,
) -> Result<Option<ServerTls>, TlsError> {
    let (Some(chain), Some(key)) = (certificate, key) else { return Ok(None) };
    let mut tls =
        ServerTls::new(Identity::watch(chain, key)?).provider(Arc::new(ring::default_provider()));
    if let Some(roots) = client_ca {
        tls = tls.client_auth(ClientAuth::Required(Roots::watch(roots)?));
    }
    Ok(Some(tls))
}
