//! A value that is made of a snapshot, once for all who want it. Made by the first of them and not
//! by who brings the snapshot: of most snapshots in a burst nobody wants anything.

use std::sync::{Arc, Mutex};

use crate::{control::lock, snapshot::Snapshot};

/// What is made of the newest snapshot that a client wanted, by the first who wants it.
pub(crate) struct Newest<T>(Mutex<Option<(u64, Arc<T>)>>);

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Newest<T> {
    pub(crate) fn get(&self, snapshot: &Snapshot, make: impl FnOnce() -> T) -> Arc<T> {
        let mut newest = lock(&self.0);
        match &*newest {
            Some((version, made)) if *version == snapshot.version => made.clone(),
            other => {
                let made = Arc::new(make());
                // A reader that is late does not push the newer one out.
                if other.as_ref().is_none_or(|(version, _)| *version < snapshot.version) {
                    *newest = Some((snapshot.version, made.clone()));
                }
                made
            }
        }
    }
}
