//! TLS of the balancer: its files, and ring as the crypto provider, which a process has to choose.

use std::sync::Arc;

use evenkeel_server::tls::{ClientAuth, Identity, Roots, ServerTls, TlsError};
use rustls::crypto::ring;

use crate::args::Args;

/// None without a certificate.
pub(crate) fn of(args: &Args) -> Result<Option<ServerTls>, TlsError> {
    let (Some(chain), Some(key)) = (&args.tls_cert, &args.tls_key) else { return Ok(None) };
    let mut tls =
        ServerTls::new(Identity::watch(chain, key)?).provider(Arc::new(ring::default_provider()));
    if let Some(roots) = &args.tls_client_ca {
        tls = tls.client_auth(ClientAuth::Required(Roots::watch(roots)?));
    }
    Ok(Some(tls))
}
