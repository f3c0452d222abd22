//! `cargo xtask drift`: what Cargo, Bazel, Nix, Kustomize and the READMEs each say of one thing.
//! Every one of these tools reads its own files alone, so a list or a version that was changed in
//! one of them is found by whoever next uses another. Each rule is a function of the tree's texts;
//! `tests` plants a disagreement for each.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Finding, tree::Tree};

mod cargo;
mod crates;
mod examples;
mod images;
mod metrics;
mod nix;
mod ports;
mod settings;
mod starlark;
mod versions;
mod yaml;

/// A rule looks at the whole project; an error is a file that can't be read.
type Rule = fn(&Project<'_>, &mut Vec<Finding>) -> Result<(), String>;

/// All rules with the names that their findings carry.
const RULES: [(&str, Rule); 14] = [
    ("dependencies", crates::dependencies),
    ("environment", settings::environment),
    ("examples", examples::examples),
    ("features", crates::features),
    ("images", images::images),
    ("labels", crates::labels),
    ("members", crates::members),
    ("metrics", metrics::metrics),
    ("nix-files", nix::files),
    ("ports", ports::ports),
    ("programs", crates::programs_of_nix),
    ("readme", settings::readme),
    ("targets", crates::targets),
    ("versions", versions::versions),
];

/// The project as each tool describes it.
struct Project<'a> {
    tree: &'a Tree,
    cargo: cargo::Workspace,
    /// Calls of BUILD files by folder.
    bazel: BTreeMap<String, Vec<starlark::Call>>,
    /// Documents of kustomize/ and envoy/ by path.
    manifests: BTreeMap<String, Vec<Value>>,
    /// The images that are built here, with the programs in them.
    images: BTreeMap<String, String>,
    /// The services' programs.
    programs: BTreeMap<String, settings::Program>,
}

impl<'a> Project<'a> {
    fn read(tree: &'a Tree) -> Result<Self, String> {
        let builds = tree.texts().filter_map(|(path, text)| {
            let folder = path.strip_suffix("BUILD.bazel")?;
            let calls = starlark::calls(text).map_err(|error| format!("{path}: {error}"));
            Some(calls.map(|calls| (folder.trim_end_matches('/').to_owned(), calls)))
        });
        let bazel = builds.collect::<Result<_, String>>()?;
        let images = images::listed(tree)?;
        let programs = settings::programs(tree, images.values())?;
        let manifests = yaml::manifests(tree)?;
        Ok(Self { tree, cargo: cargo::Workspace::read(tree)?, bazel, manifests, images, programs })
    }

    /// The calls of a folder's BUILD file.
    fn calls(&self, folder: &str) -> &[starlark::Call] {
        self.bazel.get(folder).map_or(&[], Vec::as_slice)
    }

    /// A file that has to be there.
    fn text(&self, path: &str) -> Result<&'a str, String> {
        self.tree.text(path).ok_or_else(|| format!("{path} does not exist"))
    }
}

/// Everything that two files tell differently, in the order of the files.
///
/// # Errors
///
/// A file that is compared is missing or can't be read as what it is.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, String> {
    let project = Project::read(tree)?;
    let mut findings = Vec::new();
    for (_, rule) in RULES {
        rule(&project, &mut findings)?;
    }
    findings.sort();
    Ok(findings)
}

#[cfg(test)]
mod tests;
