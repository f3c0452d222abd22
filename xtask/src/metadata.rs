//! What `cargo metadata` tells, reduced to what the checks ask. Reading Cargo.lock alone would miss
//! which features are on and which platform a dependency is for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

/// The workspace's dependency graph on this platform.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// All packages of the graph.
    pub packages: Vec<Package>,
    /// The ids of the packages that are ours.
    pub workspace_members: Vec<String>,
    /// The edges.
    pub resolve: Resolve,
}

/// A package.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// The id that edges use.
    pub id: String,
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// An SPDX expression.
    pub license: Option<String>,
    /// Where it comes from; nothing for a folder.
    pub source: Option<String>,
    /// Its Cargo.toml.
    #[serde(default)]
    pub manifest_path: PathBuf,
    /// The registries that it may go to: an empty list for none, nothing for any.
    #[serde(default)]
    pub publish: Option<Vec<String>>,
    /// `[package.metadata]`
    #[serde(default)]
    pub metadata: Value,
}

impl Package {
    /// Its folder below the repository's root, with `/`.
    pub fn folder(&self, root: &Path) -> String {
        let folder = self.manifest_path.parent().unwrap_or(&self.manifest_path);
        folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().into_owned()
    }
}

/// The edges of the graph.
#[derive(Debug, Deserialize)]
pub struct Resolve {
    /// One node for each package.
    pub nodes: Vec<Node>,
}

/// A package in the graph.
#[derive(Debug, Deserialize)]
pub struct Node {
    /// The package's id.
    pub id: String,
    /// What it depends on.
    pub deps: Vec<Edge>,
    /// The features that are on.
    pub features: Vec<String>,
}

/// A dependency.
#[derive(Debug, Deserialize)]
pub struct Edge {
    /// The id of the package that is depended on.
    pub pkg: String,
    /// For what: programs, tests, build scripts.
    pub dep_kinds: Vec<EdgeKind>,
}

/// What a dependency is for.
#[derive(Debug, Deserialize)]
pub struct EdgeKind {
    /// `dev`, `build`, or nothing for the program itself.
    pub kind: Option<String>,
}

impl Edge {
    /// True unless only tests need it.
    pub fn is_shipped(&self) -> bool {
        self.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
    }
}

impl Metadata {
    /// Asks cargo, for the platform that it builds for.
    ///
    /// # Errors
    ///
    /// cargo can't be run, fails (an outdated Cargo.lock, say), or answers what can't be read.
    pub fn of(root: &Path) -> Result<Self, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let platform = std::env::var("CARGO_BUILD_TARGET").map_or_else(|_| host(), Ok)?;
        let output = Command::new(cargo)
            .args(["metadata", "--format-version=1", "--locked", "--filter-platform", &platform])
            .current_dir(root)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| format!("cargo metadata cannot be run: {e}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata: {} (its own message is above)", output.status));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))
    }

    /// Packages by id.
    pub fn by_id(&self) -> BTreeMap<&str, &Package> {
        self.packages.iter().map(|package| (package.id.as_str(), package)).collect()
    }

    /// The packages of this workspace that users get from a registry, in the order of their names.
    pub fn published(&self) -> Vec<&Package> {
        let mut published: Vec<&Package> = (self.packages.iter())
            .filter(|p| self.is_ours(&p.id) && p.publish.as_ref().is_none_or(|to| !to.is_empty()))
            .collect();
        published.sort_by_key(|package| &package.name);
        published
    }

    /// True for a package of this workspace.
    pub fn is_ours(&self, id: &str) -> bool {
        self.workspace_members.iter().any(|member| member == id)
    }
}

fn host() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .map_err(|e| format!("rustc -vV cannot be run: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).ok_or_else(|| format!("rustc -vV names no host: {text:?}"))
}
