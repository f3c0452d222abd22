//! The bearer token of a request. Tokens of ServiceAccounts last an hour and are replaced in their
//! file; those of plugins say when they expire.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use http::HeaderValue;

use super::{
    exec::{self, Exec},
    read_file,
};

/// A plugin's token is replaced this long before it expires.
const EXPIRY_MARGIN_S: u64 = 10;

/// Where the token comes from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Token {
    /// None is sent; a client certificate, or nothing, says who asks.
    None,
    /// Always the same.
    Fixed(String),
    /// Read for each request.
    File(PathBuf),
    /// A program prints it.
    Exec(Exec),
}

/// What the last run of the program brought.
#[derive(Default)]
pub(super) struct Credentials {
    cached: Mutex<Option<exec::Printed>>,
}

impl Credentials {
    pub(super) async fn authorization(&self, token: &Token) -> Result<Option<HeaderValue>, String> {
        match token {
            Token::None => Ok(None),
            Token::Fixed(token) => bearer(token, "the kubeconfig").map(Some),
            Token::File(path) => {
                // Small, and on a file system in memory: not worth a thread.
                let text = read_file(path).map_err(|e| e.to_string())?;
                let text = String::from_utf8_lossy(&text);
                bearer(text.trim(), &path.display().to_string()).map(Some)
            }
            Token::Exec(exec) => {
                if let Some(token) = self.cached() {
                    return bearer(&token, &exec.command).map(Some);
                }
                let printed = exec.run().await?;
                let value = bearer(&printed.token, &exec.command)?;
                *self.lock() = Some(printed);
                Ok(Some(value))
            }
        }
    }

    pub(super) fn forget(&self) {
        *self.lock() = None;
    }

    fn cached(&self) -> Option<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_s = now.map_or(0, |now| now.as_secs());
        let cached = self.lock();
        let cached = cached.as_ref()?;
        let fresh = cached.expires_s.is_none_or(|at| now_s + EXPIRY_MARGIN_S < at);
        fresh.then(|| cached.token.clone())
    }

    /// No code that holds this lock can panic; should it ever, the data is whole all the same.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<exec::Printed>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(token: &str, source: &str) -> Result<HeaderValue, String> {
    let text = format!("Bearer {token}");
    match HeaderValue::from_str(&text) {
        Ok(mut value) if !token.is_empty() => {
            value.set_sensitive(true);
            Ok(value)
        }
        _ => Err(format!(
            "the token of {source} is empty or has bytes that no header can; expected visible ASCII"
        )),
    }
}
