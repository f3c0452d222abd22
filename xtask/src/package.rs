//! `cargo xtask package`: the published packages as a user gets them. In the workspace a package
//! has its neighbours' features, the repository's files and its lock file; what only works with
//! those is found by nothing but packing it, building it and documenting it from its archive.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    Finding,
    metadata::{Metadata, Package},
};

/// What every archive holds.
const NEEDED: [&str; 4] = ["Cargo.toml", "LICENSE", "README.md", "src/lib.rs"];
/// The largest archive, in bytes. Registries take ten times as much; ours have no reason to.
const ARCHIVE_BYTES_MAX: u64 = 1 << 20;

/// Packs, builds and documents them.
///
/// # Errors
///
/// cargo can't be run, or a package does not build alone (cargo's own message is above).
pub fn check(root: &Path) -> Result<(Vec<Finding>, String), String> {
    let metadata = Metadata::of(root)?;
    let published = metadata.published();
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // Packs all, then builds each from its archive against the archives of the others.
    cargo(root, &["publish", "--dry-run", "--workspace", "--locked", "--allow-dirty"])?;
    let mut findings = Vec::new();
    for package in &published {
        let manifest = format!("{}/Cargo.toml", package.folder(root));
        let name = format!("{}-{}", package.name, package.version);
        // Where a dry run leaves them.
        let archive = target.join("package/tmp-crate").join(format!("{name}.crate"));
        let bytes =
            fs::metadata(&archive).map_err(|e| format!("{}: {e}", archive.display()))?.len();
        contents(&manifest, &files(root, package)?, bytes, &mut findings);
    }
    document(&target, &published)?;
    Ok((findings, format!("{} packages", published.len())))
}

/// The rules for what is in an archive.
fn contents(manifest: &str, files: &[String], bytes: u64, out: &mut Vec<Finding>) {
    for needed in NEEDED.iter().filter(|needed| !files.iter().any(|file| file == *needed)) {
        let message = format!("{needed} is not in the archive; name it under `include`");
        out.push(Finding::new(manifest, 0, "package", message));
    }
    for file in files.iter().filter(|f| f.starts_with("tests/") || f.starts_with("benches/")) {
        let message = format!("{file} is in the archive; it needs packages that are not published");
        out.push(Finding::new(manifest, 0, "package", message));
    }
    if bytes > ARCHIVE_BYTES_MAX {
        let message =
            format!("the archive has {bytes} bytes; expected at most {ARCHIVE_BYTES_MAX}");
        out.push(Finding::new(manifest, 0, "package", message));
    }
}

fn files(root: &Path, package: &Package) -> Result<Vec<String>, String> {
    let output = command(root, &["package", "--list", "--allow-dirty", "--locked", "-p"])
        .arg(&package.name)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo package cannot be run: {e}"))?;
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Each package's documentation from its unpacked archive, alone, with the features that it asks
/// docs.rs for. A workspace around them puts the archives in the place of the registry.
fn document(target: &Path, published: &[&Package]) -> Result<(), String> {
    let folder = target.join("package");
    let name = |p: &Package| format!("{}-{}", p.name, p.version);
    let members: Vec<String> = published.iter().map(|p| format!("{:?}", name(p))).collect();
    let patches = published.iter().map(|p| format!("{} = {{ path = {:?} }}\n", p.name, name(p)));
    let manifest = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[patch.crates-io]\n{}",
        members.join(", "),
        patches.collect::<String>()
    );
    let path = folder.join("Cargo.toml");
    fs::write(&path, manifest).map_err(|e| format!("{}: {e}", path.display()))?;
    for package in published {
        let features = package.metadata["docs"]["rs"]["features"].as_array();
        let features: Vec<&str> =
            features.into_iter().flatten().filter_map(Value::as_str).collect();
        let features = features.join(",");
        let arguments = ["doc", "--no-deps", "-p", &package.name, "--features", &features];
        cargo(&folder, &arguments)?;
    }
    Ok(())
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(arguments)
        .current_dir(folder)
        .env("RUSTDOCFLAGS", "-D warnings")
        // As the repository's profile has it for dependencies, so that they are not built again.
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .stdin(Stdio::null());
    command
}

fn cargo(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let shown = arguments.join(" ");
    let status = command(folder, arguments).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo {shown}: {status} (its own message is above)")),
        Err(error) => Err(format!("cargo {shown} cannot be run: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(files: &[&str], bytes: u64) -> Vec<String> {
        let files: Vec<String> = files.iter().map(|f| (*f).to_owned()).collect();
        let mut findings = Vec::new();
        contents("crates/a/Cargo.toml", &files, bytes, &mut findings);
        findings.into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn an_archive_has_what_it_needs_and_nothing_that_can_not_run() {
        assert!(messages(&["Cargo.toml", "LICENSE", "README.md", "src/lib.rs"], 1).is_empty());
        let found = messages(&["Cargo.toml", "README.md", "src/lib.rs", "tests/a.rs"], 2 << 20);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("LICENSE is not in the archive"));
        assert!(found[1].starts_with("tests/a.rs is in the archive"));
        assert!(found[2].starts_with("the archive has 2097152 bytes"));
    }
}
