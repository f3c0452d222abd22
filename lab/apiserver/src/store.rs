//! The objects, and what happened to them: etcd and the watch cache in one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{answer::Refused, selector::Selector};

/// Changes that can be watched from; older ones are compacted away.
pub const HISTORY_MAX: usize = 10_000;
/// The first version that is given.
const VERSION_FIRST: u64 = 1_000;

type Key = (String, String);

/// All EndpointSlices of a cluster.
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    version: u64,
    /// Watches from before this version are refused.
    oldest: u64,
    uids: u64,
}

/// One change, with the object before and after it.
struct Change {
    version: u64,
    namespace: String,
    before: Option<Arc<Value>>,
    after: Option<Arc<Value>>,
}

/// An event as a watcher sees it.
pub(crate) struct Event {
    pub(crate) kind: &'static str,
    pub(crate) object: Value,
}

/// What changes between two looks.
pub(crate) struct Since {
    pub(crate) events: Vec<Event>,
    /// Where the next look goes on.
    pub(crate) version: u64,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            version: VERSION_FIRST,
            oldest: VERSION_FIRST,
            uids: 0,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Those of a namespace that are selected, in the order of their names.
    pub(crate) fn list(&self, namespace: &str, selector: &Selector) -> Vec<Arc<Value>> {
        let of_namespace = self.objects.iter().filter(|((ns, _), _)| ns == namespace);
        of_namespace.map(|(_, o)| o).filter(|o| selector.selects(o)).cloned().collect()
    }

    pub(crate) fn create(&mut self, namespace: &str, object: Value) -> Result<Arc<Value>, Refused> {
        let name = name_of(&object)?;
        if self.get(namespace, &name).is_some() {
            let message = format!("endpointslices.discovery.k8s.io \"{name}\" already exists");
            return Err(Refused::new(409, "AlreadyExists", message));
        }
        Ok(self.put(namespace, name, object))
    }

    pub(crate) fn replace(
        &mut self,
        namespace: &str,
        name: &str,
        object: Value,
    ) -> Result<Arc<Value>, Refused> {
        let before = self.get(namespace, name).ok_or_else(|| Refused::not_found(name))?;
        let wanted = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !wanted.is_empty() && before["metadata"]["resourceVersion"] != wanted {
            let message = format!(
                "Operation cannot be fulfilled on endpointslices.discovery.k8s.io \"{name}\": the \
                 object has been modified; please apply your changes to the latest version"
            );
            return Err(Refused::new(409, "Conflict", message));
        }
        Ok(self.put(namespace, name.to_owned(), object))
    }

    /// Creates or replaces; the same content is no change.
    pub(crate) fn put(&mut self, namespace: &str, name: String, mut object: Value) -> Arc<Value> {
        let key = (namespace.to_owned(), name);
        let before = self.objects.get(&key).cloned();
        let metadata = &mut object["metadata"];
        metadata["name"] = key.1.clone().into();
        metadata["namespace"] = namespace.into();
        metadata["uid"] = match &before {
            Some(before) => before["metadata"]["uid"].clone(),
            None => {
                self.uids += 1;
                format!("00000000-0000-0000-0000-{:012}", self.uids).into()
            }
        };
        object["kind"] = "EndpointSlice".into();
        object["apiVersion"] = "discovery.k8s.io/v1".into();
        if let Some(before) = &before {
            object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if **before == object {
                return before.clone();
            }
        }
        let after = Arc::new(self.stamped(object));
        self.objects.insert(key, after.clone());
        self.note(namespace, before, Some(after.clone()));
        after
    }

    pub(crate) fn delete(&mut self, namespace: &str, name: &str) -> Result<(), Refused> {
        let key = (namespace.to_owned(), name.to_owned());
        let before = self.objects.remove(&key).ok_or_else(|| Refused::not_found(name))?;
        // A deletion is a version of its own, and the deleted object carries it.
        let last = Arc::new(self.stamped((*before).clone()));
        self.note(namespace, Some(last), None);
        Ok(())
    }

    /// Forgets all changes so far: who has missed one of them has to list again.
    pub(crate) fn compact(&mut self) {
        self.oldest = self.version;
        self.history.clear();
    }

    /// What a watcher of `namespace` sees after `version`.
    pub(crate) fn since(
        &self,
        version: u64,
        namespace: &str,
        selector: &Selector,
    ) -> Result<Since, Refused> {
        if version < self.oldest {
            return Err(Refused::gone(version, self.oldest));
        }
        // Versions only grow along the history.
        let first = self.history.partition_point(|change| change.version <= version);
        let changes = self.history.range(first..).filter(|change| change.namespace == namespace);
        let events = changes.filter_map(|change| change.seen_by(selector)).collect();
        Ok(Since { events, version: self.version })
    }

    fn stamped(&mut self, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        object
    }

    fn note(&mut self, namespace: &str, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        let namespace = namespace.to_owned();
        self.history.push_back(Change { version: self.version, namespace, before, after });
        while self.history.len() > HISTORY_MAX {
            self.oldest = self.history.pop_front().map_or(self.oldest, |change| change.version);
        }
    }
}

impl Change {
    /// An object that is no longer selected is deleted for the watcher, at this change's version.
    fn seen_by(&self, selector: &Selector) -> Option<Event> {
        let selected = |object: &&Arc<Value>| selector.selects(object);
        let before = self.before.as_ref().filter(selected);
        let after = self.after.as_ref().filter(selected);
        let (kind, object) = match (before, after) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", (**after).clone()),
            (Some(_), Some(after)) => ("MODIFIED", (**after).clone()),
            (Some(before), None) => {
                let mut last = (**before).clone();
                last["metadata"]["resourceVersion"] = self.version.to_string().into();
                ("DELETED", last)
            }
        };
        Some(Event { kind, object })
    }
}

impl Event {
    pub(crate) fn added(object: &Value) -> Self {
        Self { kind: "ADDED", object: object.clone() }
    }

    /// `ends`: the initial events are over.
    pub(crate) fn bookmark(version: u64, ends: bool) -> Self {
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if ends {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        // As Go writes a slice of which nothing is set.
        let object = json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": metadata,
            "addressType": "",
            "endpoints": null,
            "ports": null,
        });
        Self { kind: "BOOKMARK", object }
    }

    pub(crate) fn line(&self) -> String {
        format!("{{\"type\":\"{}\",\"object\":{}}}\n", self.kind, self.object)
    }
}

fn name_of(object: &Value) -> Result<String, Refused> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if name.is_empty() || !name.bytes().all(fits) {
        let message = format!("EndpointSlice.discovery.k8s.io {name:?} is invalid: metadata.name");
        return Err(Refused::new(422, "Invalid", message));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, service: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}}})
    }

    fn seen(store: &Store, version: u64) -> Vec<&'static str> {
        let selector = Selector::parse("kubernetes.io/service-name=a").unwrap();
        let since = store.since(version, "default", &selector).unwrap();
        since.events.iter().map(|event| event.kind).collect()
    }

    #[test]
    fn changes_are_seen_through_the_selector() {
        let mut store = Store::new();
        let start = store.version();
        store.create("default", object("x", "a")).unwrap();
        store.create("default", object("y", "b")).unwrap();
        store.create("other", object("x", "a")).unwrap();
        store.put("default", "x".into(), object("x", "b"));
        store.put("default", "y".into(), object("y", "a"));
        store.delete("default", "y").unwrap();
        assert_eq!(seen(&store, start), ["ADDED", "DELETED", "ADDED", "DELETED"]);
    }

    #[test]
    fn the_same_content_is_no_change() {
        let mut store = Store::new();
        store.create("default", object("x", "a")).unwrap();
        let version = store.version();
        store.put("default", "x".into(), object("x", "a"));
        assert_eq!(store.version(), version);
    }

    #[test]
    fn old_changes_are_compacted() {
        let mut store = Store::new();
        let start = store.version();
        for number in 0..=HISTORY_MAX as u64 {
            let mut changed = object("x", "a");
            changed["number"] = number.into();
            store.put("default", "x".into(), changed);
        }
        let all = Selector::default();
        assert_eq!(store.since(start, "default", &all).err().map(|e| e.code), Some(410));
        assert_eq!(seen(&store, start + 1).len(), HISTORY_MAX);
        let now = store.version();
        store.compact();
        assert_eq!(store.since(now - 1, "default", &all).err().map(|e| e.code), Some(410));
        assert!(seen(&store, now).is_empty());
    }
}
