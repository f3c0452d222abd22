//! `cargo xtask deps`: what the workspace may depend on. deny.toml says which packages, features,
//! licences and second versions; this module adds what cargo-deny can't express: in which direction
//! our own packages may lean on each other, what the core may pull in, and that each dependency is
//! declared once and used.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{
    Finding,
    metadata::{Metadata, Node, Package},
    policy::Policy,
    tree::Tree,
};

mod manifests;

/// Our packages by height: a dependency may not lie higher than what depends on it. Tests may lean
/// on anything (evenkeel's on evenkeel-server, say).
const HEIGHTS: [(&str, u8); 23] = [
    ("apiserver", 0),
    ("evenkeel-core", 0),
    ("evenkeel-proto", 0),
    ("evenkeel-tls", 0),
    ("evenkeel-kubernetes", 1),
    ("evenkeel", 2),
    ("evenkeel-server", 2),
    ("evenkeel-sim", 2),
    ("evenkeel-channelz", 3),
    ("evenkeel-control", 3),
    ("evenkeel-telemetry", 3),
    ("helloworld", 4),
    ("program", 4),
    ("client", 5),
    ("greeter", 5),
    ("grpclb", 5),
    ("greeters", 5),
    ("conformance", 6),
    ("fuzz", 6),
    ("lab", 6),
    ("own-policy", 6),
    ("own-resolver", 6),
    ("xtask", 6),
];

/// What evenkeel-core may not pull in, directly or through others.
const NOT_IN_CORE: [&str; 9] =
    ["h2", "hickory-resolver", "hyper", "mio", "rand", "socket2", "tokio", "tonic", "tower"];

/// Everything that breaks a rule, and what was looked at.
///
/// # Errors
///
/// deny.toml, cargo's answer or a manifest can't be read.
pub fn check(root: &Path) -> Result<(Vec<Finding>, String), String> {
    let (policy, metadata) = (Policy::read(root)?, Metadata::of(root)?);
    let mut findings = graph(&policy, &metadata)?;
    manifests::check(&Tree::read(root)?, &mut findings)?;
    findings.sort();
    Ok((findings, format!("{} packages", metadata.packages.len())))
}

/// The rules that look at the graph.
fn graph(policy: &Policy, metadata: &Metadata) -> Result<Vec<Finding>, String> {
    let mut out = Vec::new();
    packages(policy, metadata, &mut out);
    duplicates(policy, metadata, &mut out);
    features(policy, metadata, &mut out);
    directions(metadata, &mut out);
    core(metadata, &mut out)?;
    Ok(out)
}

fn finding(path: &str, rule: &'static str, message: String) -> Finding {
    Finding::new(path, 0, rule, message)
}

/// `name@version`, as deny.toml writes it.
fn spec(package: &Package) -> String {
    format!("{}@{}", package.name, package.version)
}

/// What can be said of each package alone: bans, licences, sources.
fn packages(policy: &Policy, metadata: &Metadata, out: &mut Vec<Finding>) {
    for package in metadata.packages.iter().filter(|p| !metadata.is_ours(&p.id)) {
        let spec = spec(package);
        let banned =
            policy.bans.deny.iter().find(|e| e.package == package.name || e.package == spec);
        if let Some(entry) = banned {
            out.push(finding("Cargo.lock", "ban", format!("{spec} is banned: {}", entry.reason)));
        }
        let expression = package.license.as_deref().unwrap_or_default();
        let problem = match policy.permits(expression) {
            Ok(true) => None,
            Ok(false) => Some("is not in the allow list of deny.toml".to_owned()),
            Err(error) => Some(format!("can't be read: {error}")),
        };
        if let Some(problem) = problem {
            let message = format!("{spec}: licence {expression:?} {problem}");
            out.push(finding("deny.toml", "licence", message));
        }
        if !package.source.as_deref().is_some_and(|s| s.starts_with("registry+")) {
            let from = package.source.as_deref().unwrap_or("a folder");
            let message = format!("{spec} comes from {from}; only released packages last");
            out.push(finding("Cargo.lock", "source", message));
        }
    }
}

fn duplicates(policy: &Policy, metadata: &Metadata, out: &mut Vec<Finding>) {
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in &metadata.packages {
        versions.entry(&package.name).or_default().insert(spec(package));
    }
    let skipped = |spec: &String| policy.bans.skip.iter().any(|entry| entry.package == *spec);
    for specs in versions.values() {
        let open: Vec<&str> = specs.iter().filter(|s| !skipped(s)).map(String::as_str).collect();
        if open.len() > 1 {
            let message = format!(
                "{}: several versions of one package; align them, or list all but one under \
                 bans.skip with the reason",
                open.join(", ")
            );
            out.push(finding("deny.toml", "duplicate", message));
        }
    }
    for entry in &policy.bans.skip {
        if !versions.values().any(|specs| specs.len() > 1 && specs.contains(&entry.package)) {
            let message = format!("{} is no second version any more; delete it", entry.package);
            out.push(finding("deny.toml", "duplicate", message));
        }
    }
}

fn features(policy: &Policy, metadata: &Metadata, out: &mut Vec<Finding>) {
    let packages = metadata.by_id();
    for node in &metadata.resolve.nodes {
        let Some(package) = packages.get(node.id.as_str()) else { continue };
        for ban in policy.bans.features.iter().filter(|ban| ban.package == package.name) {
            for feature in node.features.iter().filter(|f| ban.deny.contains(f)) {
                let message = format!("{}/{feature} is on: {}", package.name, ban.reason);
                out.push(finding("Cargo.toml", "feature", message));
            }
        }
    }
}

fn directions(metadata: &Metadata, out: &mut Vec<Finding>) {
    let packages = metadata.by_id();
    let height = |id: &str| {
        let package = packages.get(id)?;
        let known = HEIGHTS.iter().find(|(name, _)| *name == package.name);
        Some((package.name.as_str(), known.map(|(_, height)| *height)))
    };
    for node in metadata.resolve.nodes.iter().filter(|node| metadata.is_ours(&node.id)) {
        let Some((name, Some(own))) = height(&node.id) else {
            let message = format!("{}: has no height in xtask/src/deps.rs; give it one", node.id);
            out.push(finding("xtask/src/deps.rs", "direction", message));
            continue;
        };
        for edge in node.deps.iter().filter(|e| e.is_shipped() && metadata.is_ours(&e.pkg)) {
            if let Some((on, Some(theirs))) = height(&edge.pkg)
                && theirs > own
            {
                let message = format!("{name} depends on {on}, which lies higher; turn it around");
                out.push(finding("docs/ARCHITECTURE.md", "direction", message));
            }
        }
    }
}

fn core(metadata: &Metadata, out: &mut Vec<Finding>) -> Result<(), String> {
    let packages = metadata.by_id();
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let core = packages.values().find(|package| package.name == "evenkeel-core");
    let core = core.ok_or("expected a package evenkeel-core in the workspace")?;
    let mut seen = BTreeSet::from([core.id.as_str()]);
    let mut open = vec![core.id.as_str()];
    while let Some(id) = open.pop() {
        let edges = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        for edge in edges.filter(|edge| edge.is_shipped()) {
            if seen.insert(&edge.pkg) {
                open.push(&edge.pkg);
            }
        }
    }
    let names = seen.iter().filter_map(|id| packages.get(id)).map(|p| p.name.as_str());
    for name in names.filter(|name| NOT_IN_CORE.contains(name)) {
        let message = format!("evenkeel-core pulls in {name}; the core stays without I/O");
        out.push(finding("crates/evenkeel-core/Cargo.toml", "core", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
