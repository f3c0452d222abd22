//! Which crypto provider to use. rustls decides that too, but panics when it can't, in the middle
//! of a library; and it keeps to itself which providers it was built with.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::TlsError;

/// The provider to use: `explicit`, else the installed one, else the only one that is linked.
///
/// # Errors
///
/// [`TlsError::NoProvider`] or [`TlsError::TwoProviders`].
pub fn provider(explicit: Option<Arc<CryptoProvider>>) -> Result<Arc<CryptoProvider>, TlsError> {
    choose(explicit, CryptoProvider::get_default().cloned(), linked())
}

fn choose(
    explicit: Option<Arc<CryptoProvider>>,
    installed: Option<Arc<CryptoProvider>>,
    linked: [Option<CryptoProvider>; 2],
) -> Result<Arc<CryptoProvider>, TlsError> {
    if let Some(provider) = explicit.or(installed) {
        return Ok(provider);
    }
    match linked {
        [Some(one), None] | [None, Some(one)] => Ok(Arc::new(one)),
        [None, None] => Err(TlsError::NoProvider),
        [Some(_), Some(_)] => Err(TlsError::TwoProviders),
    }
}

/// The providers that rustls was built with, by whoever turned its features on.
///
/// A crate can't ask for the features of another one. But names of this block's glob import go
/// before those of the module around it: `ring` is rustls's module if it has one, else ours.
#[allow(
    unused_imports,
    clippy::useless_conversion,
    reason = "true for one set of rustls's features and not for the others"
)]
fn linked() -> [Option<CryptoProvider>; 2] {
    use rustls::crypto::*;
    [ring::default_provider().into(), aws_lc_rs::default_provider().into()]
}

#[allow(dead_code, reason = "not used when rustls has the module of this name")]
mod ring {
    pub(super) fn default_provider() -> Option<super::CryptoProvider> {
        None
    }
}

#[allow(dead_code, reason = "not used when rustls has the module of this name")]
mod aws_lc_rs {
    pub(super) fn default_provider() -> Option<super::CryptoProvider> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> CryptoProvider {
        rustls::crypto::ring::default_provider()
    }

    #[test]
    fn an_explicit_provider_goes_before_the_installed_one_and_that_before_what_is_linked() {
        let (explicit, installed) = (Arc::new(made()), Arc::new(made()));
        let both = || [Some(made()), Some(made())];
        let chosen = choose(Some(explicit.clone()), Some(installed.clone()), both()).unwrap();
        assert!(Arc::ptr_eq(&chosen, &explicit));
        let chosen = choose(None, Some(installed.clone()), both()).unwrap();
        assert!(Arc::ptr_eq(&chosen, &installed));
        for one in [[Some(made()), None], [None, Some(made())]] {
            assert!(choose(None, None, one).is_ok());
        }
    }

    #[test]
    fn none_and_two_without_a_choice_are_errors_and_not_a_panic() {
        let none = choose(None, None, [None, None]).unwrap_err();
        assert!(none.to_string().contains("rustls has none; turn on"), "{none}");
        let two = choose(None, None, [Some(made()), Some(made())]).unwrap_err();
        assert!(two.to_string().contains("choose one with CryptoProvider"), "{two}");
    }

    #[test]
    fn what_is_linked_is_seen() {
        // This test links ring (Cargo.toml), and deny.toml bans the other one.
        let [ring, aws_lc_rs] = linked();
        assert!(ring.is_some() && aws_lc_rs.is_none());
        assert!(provider(None).is_ok());
    }
}
