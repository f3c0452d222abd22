//! The crypto providers that this build of rustls has, as its features say. What channel and server
//! make of them is in `tests/`, one process for each case: an installed provider stays.

/// The names of the linked providers.
#[must_use]
pub fn linked() -> Vec<&'static str> {
    let all = [("ring", cfg!(feature = "ring")), ("aws_lc_rs", cfg!(feature = "aws_lc_rs"))];
    all.into_iter().filter(|(_, linked)| *linked).map(|(name, _)| name).collect()
}

/// The linked provider of that name.
#[must_use]
pub fn made(name: &str) -> Option<rustls::crypto::CryptoProvider> {
    match name {
        #[cfg(feature = "ring")]
        "ring" => Some(rustls::crypto::ring::default_provider()),
        #[cfg(feature = "aws_lc_rs")]
        "aws_lc_rs" => Some(rustls::crypto::aws_lc_rs::default_provider()),
        _ => None,
    }
}
