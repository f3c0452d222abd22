//! Reads certificates and keys. A file that has no certificate, or one that is cut off, must not
//! pass for an empty list: it is most likely being written at this moment.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};

/// All certificates of a PEM text, in its order; at least one.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let list = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let list = list.map_err(|e| format!("expected certificates in PEM: {}", explain(&e)))?;
    if list.is_empty() {
        return Err(format!(
            "expected -----BEGIN CERTIFICATE----- in {} bytes, found none",
            text.len()
        ));
    }
    Ok(list)
}

/// The first private key of a PEM text: PKCS #8, PKCS #1 (RSA) or SEC 1 (EC).
pub(crate) fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text).map_err(|e| match e {
        pem::Error::NoItemsFound => format!(
            "expected -----BEGIN PRIVATE KEY----- (or RSA, or EC) in {} bytes, found none",
            text.len()
        ),
        other => format!("expected a private key in PEM: {}", explain(&other)),
    })
}

fn explain(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it is cut off, -----END is missing".to_owned(),
        other => other.to_string(),
    }
}
