//! What text points to: files that must exist, and hosts that must not be named. Package registries
//! are reached through their clients' own settings, so that a mirror works without a change here.

use crate::{
    Finding,
    tree::{Tree, parent},
};

/// Hosts as (name, domain): put together only here, so that this file does not name them.
const REGISTRY_HOSTS: [(&str, &str); 10] = [
    ("crates", "io"),
    ("npmjs", "com"),
    ("npmjs", "org"),
    ("proxy.golang", "org"),
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("repo.maven.apache", "org"),
    ("rubygems", "org"),
    ("sum.golang", "org"),
    ("yarnpkg", "com"),
];

/// Lock files name where their entries come from; their tools write them.
fn is_lock_file(path: &str) -> bool {
    path.ends_with(".lock") || path.ends_with("-lock.json") || path.ends_with(".bazel.lock")
}

pub(super) fn no_registry_host(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, text) in tree.texts().filter(|(path, _)| !is_lock_file(path)) {
        for (n, line) in text.lines().enumerate() {
            for host in REGISTRY_HOSTS.map(|(name, domain)| format!("{name}.{domain}")) {
                if line.contains(&host) {
                    let message = "names the host of a package registry; leave that to the \
                                   client's own configuration";
                    out.push(Finding::new(path, n + 1, "registry-host", message));
                }
            }
        }
    }
}

pub(super) fn links_resolve(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, text) in tree.texts().filter(|(path, _)| path.ends_with(".md")) {
        let mut fenced = false;
        for (n, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|_| !fenced) {
                let file = target.split(['#', ' ']).next().unwrap_or_default();
                if target.contains("://") || target.starts_with("mailto:") || file.is_empty() {
                    continue;
                }
                if !resolve(parent(path), file).is_some_and(|p| tree.has(&p)) {
                    let message = format!("{file} does not exist; links are relative to this file");
                    out.push(Finding::new(path, n + 1, "link", message));
                }
            }
        }
    }
}

/// `docs` + `../README.md` → `README.md`; nothing when it leaves the repository.
fn resolve(folder: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
