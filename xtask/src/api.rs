//! `cargo xtask api`: the public API of each published package as a text, kept in `api.txt` beside
//! its Cargo.toml. A change of the API is then a change of a file in the same commit, and nobody
//! breaks a user without seeing it. Not cargo-semver-checks, which compares with a release: there
//! is none yet (docs/adr/0014).

mod types;
mod walk;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{Finding, metadata::Metadata};

/// The file beside Cargo.toml.
const FILE: &str = "api.txt";

/// Compares each published package with its listing, or writes the listings.
///
/// # Errors
///
/// cargo or rustdoc fails, or a file can't be read or written.
pub fn check(root: &Path, write: bool) -> Result<(Vec<Finding>, String), String> {
    let metadata = Metadata::of(root)?;
    let documented = document(root)?;
    let mut findings = Vec::new();
    let mut count = 0;
    for package in metadata.published() {
        let json = documented.join(format!("{}.json", package.name.replace('-', "_")));
        let text = fs::read_to_string(&json).map_err(|e| failed(&json, &e))?;
        let described: Value = serde_json::from_str(&text).map_err(|e| failed(&json, &e))?;
        let lines = walk::listing(&described)?;
        count += lines.len();
        let folder = package.folder(root);
        let listing = root.join(&folder).join(FILE);
        if write {
            let head = format!(
                "# The public API of {}, written by `cargo xtask api --write`.\n",
                package.name
            );
            fs::write(&listing, head + &lines.join("\n") + "\n")
                .map_err(|e| failed(&listing, &e))?;
            continue;
        }
        let known = fs::read_to_string(&listing).unwrap_or_default();
        compare(&format!("{folder}/{FILE}"), &known, &lines, &mut findings);
    }
    Ok((findings, format!("{count} lines of public API")))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

/// One finding for each line that is gone and each that is new.
fn compare(path: &str, known: &str, lines: &[String], out: &mut Vec<Finding>) {
    let known: Vec<(usize, &str)> =
        (known.lines().enumerate()).filter(|(_, line)| !line.starts_with("# ")).collect();
    let now: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    let before: BTreeSet<&str> = known.iter().map(|(_, line)| *line).collect();
    for (n, line) in known.iter().filter(|(_, line)| !now.contains(line)) {
        let message = format!(
            "no longer there: {line}; that breaks users. If it is wanted: `cargo xtask api \
             --write`, and a line in CHANGELOG.md under Changed or Removed (docs/versions.md)"
        );
        out.push(Finding::new(path, n + 1, "api-removed", message));
    }
    for line in now.difference(&before) {
        let message = format!("new: {line}; list it with `cargo xtask api --write`");
        out.push(Finding::new(path, 0, "api-added", message));
    }
}

/// Has rustdoc describe the workspace's libraries; the folder with the JSON files.
fn document(root: &Path) -> Result<PathBuf, String> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = env::var_os("CARGO_BUILD_TARGET").map_or(target.clone(), |t| target.join(t));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // A wrapper and not RUSTC_BOOTSTRAP for cargo: build scripts look at that, and everything would
    // be built again. The whole workspace, so that the features are those of all other steps.
    let status = Command::new(cargo)
        .args(["doc", "--quiet", "--workspace", "--no-deps", "--lib", "--locked"])
        .current_dir(root)
        .env("RUSTDOC", root.join("xtask/rustdoc-json"))
        .env("RUSTDOCFLAGS", "-Zunstable-options --output-format=json -Arustdoc::all")
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("cargo doc cannot be run: {e}"))?;
    if !status.success() {
        return Err(format!("cargo doc: {status} (its own message is above)"));
    }
    Ok(target.join("doc"))
}

#[cfg(test)]
mod tests;
