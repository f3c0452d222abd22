//! Rules for the text of Cargo.toml files. Versions and features stand once, at the root: a package
//! that asks for more would be compiled twice, once alone and once with the workspace
//! (docs/adr/0004).

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::{Finding, source::has_word, tree::Tree};

const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Features that whoever makes a process or a test chooses, and no library for them: the crypto
/// provider of rustls (docs/adr/0011).
const CHOSEN: [(&str, &str); 1] = [("rustls", "ring")];

/// Packages whose library has another name.
const LIBRARIES: [(&str, &str); 1] = [("rustls-webpki", "webpki")];

/// What prost's and tonic's generated code needs; the packages' own text need not name it.
const GENERATED: [&str; 4] = ["prost", "prost-types", "tonic", "tonic-prost"];

/// Adds what breaks a rule.
///
/// # Errors
///
/// A manifest is not TOML.
pub(super) fn check(tree: &Tree, out: &mut Vec<Finding>) -> Result<(), String> {
    let mut used = BTreeSet::new();
    for (path, text) in tree.texts().filter(|(path, _)| path.ends_with("/Cargo.toml")) {
        let manifest = parse(path, text)?;
        let folder = path.trim_end_matches("Cargo.toml");
        let tables = TABLES.iter().flat_map(|table| {
            let chooses = *table == "dev-dependencies" || !path.starts_with("crates/");
            entries(&manifest, table).map(move |(name, value)| (name, value, chooses))
        });
        for (name, value, chooses) in tables {
            if !is_inherited(name, value, chooses) {
                let message = format!(
                    "{name}: expected `{name}.workspace = true` and at most `optional = true`; \
                     versions and features belong into the root's [workspace.dependencies]"
                );
                out.push(Finding::new(path, 0, "workspace-dependency", message));
            }
            if !is_named(tree, folder, name) {
                let message = format!("{name} is not used; delete it");
                out.push(Finding::new(path, 0, "unused-dependency", message));
            }
            used.insert(name.to_owned());
        }
    }
    let Some((path, text)) = tree.texts().find(|(path, _)| *path == "Cargo.toml") else {
        return Err("expected a Cargo.toml at the root".into());
    };
    let root = parse(path, text)?;
    let workspace = root.get("workspace").and_then(Value::as_table);
    for (name, value) in workspace.into_iter().flat_map(|table| entries(table, "dependencies")) {
        // Our own packages are listed for whoever comes to need them.
        if !used.contains(name) && value.get("path").is_none() {
            let message = format!("{name}: no package of the workspace asks for it; delete it");
            out.push(Finding::new(path, 0, "unused-dependency", message));
        }
    }
    Ok(())
}

/// Says nothing but that the root has it, that it is optional, and what is the package's to choose.
fn is_inherited(name: &str, value: &Value, chooses: bool) -> bool {
    let Some(table) = value.as_table() else { return false };
    let allowed = |(key, value): (&String, &Value)| match (key.as_str(), value) {
        ("workspace" | "optional", Value::Boolean(true)) => true,
        ("features", Value::Array(features)) => {
            let known = |f: &Value| f.as_str().is_some_and(|f| CHOSEN.contains(&(name, f)));
            chooses && features.iter().all(known)
        }
        _ => false,
    };
    table.contains_key("workspace") && table.iter().all(allowed)
}

fn parse(path: &str, text: &str) -> Result<Table, String> {
    text.parse().map_err(|e| format!("{path}: {e}"))
}

fn entries<'a>(table: &'a Table, key: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let inner = table.get(key).and_then(Value::as_table);
    inner.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// True when the package's own code, or the code that its build script generates, names it.
fn is_named(tree: &Tree, folder: &str, dependency: &str) -> bool {
    let generates = tree.has(&format!("{folder}build.rs"));
    let library = LIBRARIES.iter().find(|(package, _)| *package == dependency);
    let word = library.map_or(dependency, |(_, library)| library).replace('-', "_");
    (generates && GENERATED.contains(&dependency))
        || tree
            .sources()
            .filter(|(path, _)| path.starts_with(folder))
            .any(|(_, source)| source.lines.iter().any(|line| has_word(&line.code, &word)))
}
