//! A rustls configuration that follows its sources. It is made as a whole for each new content, and
//! not patched through rustls's resolver traits: so a chain, its roots and what may be resumed
//! always belong together.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{RootCertStore, crypto::CryptoProvider, sign::CertifiedKey};

use crate::{Identity, Roots, TlsError};

/// What a configuration is made of, as of now.
#[derive(Debug, Clone)]
pub struct Material {
    /// The provider for all of it.
    pub provider: Arc<CryptoProvider>,
    /// This side's certificate, if it has one.
    pub identity: Option<Arc<CertifiedKey>>,
    /// Whom this side trusts, if it asks.
    pub roots: Option<Arc<RootCertStore>>,
}

type Make<C> = Box<dyn Fn(Material) -> Result<C, TlsError> + Send + Sync>;

/// A `rustls::ClientConfig` or `rustls::ServerConfig` that is made anew when files change.
pub struct Rotating<C> {
    recipe: Option<Recipe<C>>,
    state: Mutex<State<C>>,
}

struct Recipe<C> {
    provider: Arc<CryptoProvider>,
    identity: Option<Identity>,
    roots: Option<Roots>,
    make: Make<C>,
}

struct State<C> {
    config: Arc<C>,
    /// The sources' versions that were tried last, also when they could not be used.
    tried: (u64, u64),
}

impl<C> Rotating<C> {
    /// One that never changes.
    pub fn fixed(config: C) -> Self {
        Self { recipe: None, state: Mutex::new(State { config: Arc::new(config), tried: (0, 0) }) }
    }

    /// Makes the first configuration now.
    ///
    /// # Errors
    ///
    /// What `make` says, or that the certificate and the key do not belong together.
    pub fn new(
        provider: Arc<CryptoProvider>,
        identity: Option<Identity>,
        roots: Option<Roots>,
        make: impl Fn(Material) -> Result<C, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let recipe = Recipe { provider, identity, roots, make: Box::new(make) };
        let (tried, config) = recipe.cook();
        let state = State { config: Arc::new(config?), tried };
        Ok(Self { recipe: Some(recipe), state: Mutex::new(state) })
    }

    /// The configuration for one handshake; looks at the files when it is time to.
    pub async fn current(&self) -> Arc<C> {
        let Some(recipe) = &self.recipe else { return self.lock().config.clone() };
        if let Some(identity) = &recipe.identity {
            identity.source.refresh().await;
        }
        if let Some(roots) = &recipe.roots {
            roots.source.refresh().await;
        }
        if self.lock().tried != recipe.versions() {
            let (tried, config) = recipe.cook();
            let mut state = self.lock();
            // Another handshake may have been quicker, with something newer.
            if tried.0 < state.tried.0 || tried.1 < state.tried.1 {
                return state.config.clone();
            }
            state.tried = tried;
            match config {
                Ok(config) => state.config = Arc::new(config),
                Err(error) => {
                    drop(state);
                    recipe.failed(error.to_string());
                }
            }
        }
        self.lock().config.clone()
    }

    /// Whole at any time: nothing that holds this lock can panic half way.
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Recipe<C> {
    fn versions(&self) -> (u64, u64) {
        let identity = self.identity.as_ref().map_or(0, |identity| identity.source.version());
        (identity, self.roots.as_ref().map_or(0, |roots| roots.source.version()))
    }

    fn cook(&self) -> ((u64, u64), Result<C, TlsError>) {
        let identity = self.identity.as_ref().map(|identity| identity.source.current());
        let roots = self.roots.as_ref().map(|roots| roots.source.current());
        let version = |of: Option<u64>| of.unwrap_or(0);
        let versions =
            (version(identity.as_ref().map(|i| i.0)), version(roots.as_ref().map(|r| r.0)));
        let certified = identity.map(|(_, pair)| pair.certified(&self.provider)).transpose();
        let config = certified.map_err(|reason| self.misfit(reason)).and_then(|certified| {
            (self.make)(Material {
                provider: self.provider.clone(),
                identity: certified.map(Arc::new),
                roots: roots.map(|(_, store)| store),
            })
        });
        (versions, config)
    }

    fn misfit(&self, reason: String) -> TlsError {
        let what = self.identity.as_ref().map(|identity| identity.source.describe());
        TlsError::Content { what: what.unwrap_or_default(), reason }
    }

    /// The certificate is what can be wrong in itself; roots were read whole before.
    fn failed(&self, reason: String) {
        match (&self.identity, &self.roots) {
            (Some(identity), _) => identity.source.unusable(reason),
            (None, Some(roots)) => roots.source.unusable(reason),
            (None, None) => {}
        }
    }
}

impl<C> fmt::Debug for Rotating<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Rotating");
        if let Some(recipe) = &self.recipe {
            debug.field("identity", &recipe.identity).field("roots", &recipe.roots);
        }
        debug.finish_non_exhaustive()
    }
}
