//! Manifests as values: what a patch, a resource and a component have in common is where a value
//! stands, so rules walk over all documents alike. `kustomize build` would show the result, and not
//! which file said it; it is no part of the machine either.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::tree::Tree;

/// The folders whose YAML is compared.
const FOLDERS: [&str; 2] = ["envoy/", "kustomize/"];

/// All documents by path.
///
/// # Errors
///
/// One is no YAML.
pub(super) fn manifests(tree: &Tree) -> Result<BTreeMap<String, Vec<Value>>, String> {
    let ours = |path: &str| {
        path.ends_with(".yaml") && FOLDERS.iter().any(|folder| path.starts_with(folder))
    };
    let read = |(path, text): (&str, &str)| {
        let documents = serde_saphyr::from_multiple(text);
        let documents = documents.map_err(|error| format!("{path}: {error}"))?;
        Ok((path.to_owned(), documents))
    };
    tree.texts().filter(|(path, _)| ours(path)).map(read).collect()
}

/// Calls `look` for each mapping in a value, the outer ones first.
pub(super) fn mappings<'a>(value: &'a Value, look: &mut impl FnMut(&'a Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            look(map);
            map.values().for_each(|inner| mappings(inner, look));
        }
        Value::Array(list) => list.iter().for_each(|inner| mappings(inner, look)),
        _ => {}
    }
}

/// Calls `look` for each text in a value.
pub(super) fn texts<'a>(value: &'a Value, look: &mut impl FnMut(&'a str)) {
    match value {
        Value::String(text) => look(text),
        Value::Object(map) => map.values().for_each(|inner| texts(inner, look)),
        Value::Array(list) => list.iter().for_each(|inner| texts(inner, look)),
        _ => {}
    }
}

/// A text of a mapping.
pub(super) fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

/// The mappings of a list.
pub(super) fn list<'a>(
    map: &'a Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    let list = map.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}
