//! Cargo's side: the workspace's packages as their manifests declare them. `cargo metadata` would
//! tell more, but of the tree on the disk only, and it needs cargo; this is a function of texts.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::tree::{Tree, parent};

/// The main workspace.
#[derive(Debug)]
pub(super) struct Workspace {
    /// `version` of `[workspace.package]`.
    pub(super) version: String,
    /// `edition`.
    pub(super) edition: String,
    /// `rust-version`.
    pub(super) rust_version: String,
    /// The members by name.
    pub(super) members: BTreeMap<String, Package>,
    /// `[workspace.dependencies]`.
    pub(super) dependencies: Table,
}

/// A member.
#[derive(Debug)]
pub(super) struct Package {
    /// Its folder, from the root.
    pub(super) folder: String,
    /// Its Cargo.toml.
    pub(super) manifest: Table,
}

impl Package {
    /// Names in one of its dependency tables.
    pub(super) fn names(&self, table: &str) -> BTreeSet<&str> {
        let table = self.manifest.get(table).and_then(Value::as_table);
        table.into_iter().flat_map(Table::keys).map(String::as_str).collect()
    }

    /// Its name as a crate.
    pub(super) fn crate_name(name: &str) -> String {
        name.replace('-', "_")
    }

    /// True when `[lib]` says that its unit tests are not built.
    pub(super) fn is_untested(&self) -> bool {
        let lib = self.manifest.get("lib").and_then(Value::as_table);
        lib.and_then(|lib| lib.get("test")).and_then(Value::as_bool) == Some(false)
    }
}

impl Workspace {
    /// Reads the manifests.
    ///
    /// # Errors
    ///
    /// A manifest is missing, is no TOML, or lacks what every one has.
    pub(super) fn read(tree: &Tree) -> Result<Self, String> {
        let root = manifest(tree, "Cargo.toml")?;
        let workspace = table(&root, "workspace", "Cargo.toml")?;
        let package = table(workspace, "package", "Cargo.toml")?;
        let text = |key: &str| {
            let value = package.get(key).and_then(Value::as_str);
            value.map(str::to_owned).ok_or(format!("Cargo.toml: [workspace.package] has no {key}"))
        };
        let mut members = BTreeMap::new();
        for folder in texts(workspace.get("members")) {
            let path = format!("{folder}/Cargo.toml");
            let manifest = manifest(tree, &path)?;
            let name = table(&manifest, "package", &path)?.get("name").and_then(Value::as_str);
            let name = name.ok_or(format!("{path}: [package] has no name"))?.to_owned();
            members.insert(name, Package { folder, manifest });
        }
        Ok(Self {
            version: text("version")?,
            edition: text("edition")?,
            rust_version: text("rust-version")?,
            members,
            dependencies: table(workspace, "dependencies", "Cargo.toml")?.clone(),
        })
    }

    /// The member in a folder.
    pub(super) fn in_folder(&self, folder: &str) -> Option<(&str, &Package)> {
        let mut members = self.members.iter();
        let found = members.find(|(_, package)| package.folder == folder);
        found.map(|(name, package)| (name.as_str(), package))
    }

    /// The features of a member that the workspace turns on, those that these turn on included.
    pub(super) fn features_on(&self, name: &str) -> BTreeSet<String> {
        let declared = self.members.get(name).and_then(|package| package.manifest.get("features"));
        let declared = declared.and_then(Value::as_table);
        let asked = self.members.values().flat_map(|package| {
            ["dependencies", "dev-dependencies", "build-dependencies"]
                .map(|kind| package.manifest.get(kind).and_then(|table| table.get(name)))
        });
        let mut open: Vec<String> = asked
            .chain([self.dependencies.get(name)])
            .flat_map(|dependency| texts(dependency.and_then(|value| value.get("features"))))
            .chain(["default".to_owned()])
            .collect();
        let mut on = BTreeSet::new();
        while let Some(feature) = open.pop() {
            // `dep:x` and `x/y` are no features of this package.
            let Some(more) = declared.and_then(|table| table.get(&feature)) else { continue };
            if on.insert(feature) {
                open.extend(texts(Some(more)));
            }
        }
        on
    }
}

/// Every Cargo.toml that is not the main workspace's root, parsed, with its folder.
///
/// # Errors
///
/// One is no TOML.
pub(super) fn manifests(tree: &Tree) -> Result<Vec<(&str, Table)>, String> {
    let paths = tree.texts().map(|(path, _)| path).filter(|path| path.ends_with("/Cargo.toml"));
    paths.map(|path| Ok((parent(path), manifest(tree, path)?))).collect()
}

fn manifest(tree: &Tree, path: &str) -> Result<Table, String> {
    let text = tree.text(path).ok_or(format!("{path} does not exist"))?;
    text.parse().map_err(|error| format!("{path}: {error}"))
}

fn table<'a>(from: &'a Table, key: &str, path: &str) -> Result<&'a Table, String> {
    let value = from.get(key).and_then(Value::as_table);
    value.ok_or_else(|| format!("{path}: expected a table {key}"))
}

/// The texts of a list.
pub(super) fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
