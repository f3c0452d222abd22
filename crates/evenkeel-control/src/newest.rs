//! A value that is made of a snapshot, once for all who want it, or once for each zone whose
//! clients get a part of it. Made by the first of them and not by who brings the snapshot: of most
//! snapshots in a burst nobody wants anything.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::{control::lock, snapshot::Snapshot};

/// What is made of the newest snapshot that a client wanted, by the first who wants it.
pub(crate) struct Newest<T>(Mutex<Made<T>>);

struct Made<T> {
    /// Of the snapshot; 0 before the first.
    version: u64,
    /// As many as the snapshot has zones, and one for clients of none.
    by_part: BTreeMap<Option<Arc<str>>, Arc<T>>,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self(Mutex::new(Made { version: 0, by_part: BTreeMap::new() }))
    }
}

impl<T> Newest<T> {
    /// `part` is what [`Snapshot::part`] makes of a client's zone.
    pub(crate) fn get(
        &self,
        snapshot: &Snapshot,
        part: Option<&Arc<str>>,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let mut newest = lock(&self.0);
        // A reader that is late does not push the newer one out.
        if newest.version > snapshot.version {
            return Arc::new(make());
        }
        if newest.version < snapshot.version {
            *newest = Made { version: snapshot.version, by_part: BTreeMap::new() };
        }
        newest.by_part.entry(part.cloned()).or_insert_with(|| Arc::new(make())).clone()
    }
}
