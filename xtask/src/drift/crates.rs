//! Crate lists, targets, dependencies and features: Cargo's against Bazel's and Nix's. Bazel says
//! itself when a crate that is used is not named; it says nothing of one that is named and not
//! used, of a package that nobody gave a target, of tests that are no target, or of a feature that
//! cargo turns on and a library here does without.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{
    Project,
    cargo::{Package, manifests, texts},
    starlark::Call,
};
use crate::Finding;

/// Packages whose tests look at the whole repository: a sandbox holds declared files only.
const TESTED_BY_CARGO_ALONE: [&str; 1] = ["xtask"];
/// Folders that are links to others, which Bazel follows.
const LINKS: [(&str, &str); 1] = [("crates/evenkeel-proto/proto", "proto")];
/// What gives a package's program or library, and what only tests it.
const SHIPPED: [&str; 2] = ["rust_library", "rust_binary"];
const TESTING: [&str; 2] = ["rust_test", "rust_test_suite"];

/// Each package is in a workspace, and only those of the main one are Bazel's.
pub(super) fn members(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let manifests = manifests(project.tree)?;
    let others: BTreeSet<String> = (manifests.iter())
        .filter_map(|(folder, manifest)| Some((folder, manifest.get("workspace")?)))
        .flat_map(|(folder, workspace)| {
            let members = texts(workspace.get("members"));
            members.into_iter().map(move |m| format!("{folder}/{m}")).chain([(*folder).to_owned()])
        })
        .collect();
    for (folder, _) in &manifests {
        let path = format!("{folder}/Cargo.toml");
        let is_member = project.cargo.in_folder(folder).is_some();
        if !is_member && !others.contains(*folder) {
            let message = "is in no workspace; name it in the root's members";
            out.push(Finding::new(&path, 0, "members", message));
        }
        let calls = project.calls(folder);
        if !is_member && calls.iter().any(|call| call.function.starts_with("rust_")) {
            let message = "builds a package that is not in the main workspace; Bazel takes its \
                           crates from that one's lock file";
            out.push(Finding::new(&format!("{folder}/BUILD.bazel"), 0, "members", message));
        }
    }
    Ok(())
}

/// Each package's library, programs and tests are targets of the same names.
pub(super) fn targets(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    for (name, package) in &project.cargo.members {
        let folder = &package.folder;
        let build = format!("{folder}/BUILD.bazel");
        let calls = project.calls(folder);
        let mut missing = |message: String| out.push(Finding::new(&build, 0, "targets", message));
        let has = |file: &str| project.tree.has(&format!("{folder}/{file}"));
        let wanted = Package::crate_name(name);
        if has("src/lib.rs") && library(calls, &wanted).is_none() {
            missing(format!("expected a rust_library of the crate {wanted}"));
        }
        for (program, file) in programs(project, name, folder) {
            let found = calls.iter().any(|call| {
                call.function == "rust_binary"
                    && call.text("name") == Some(program.as_str())
                    && call.texts("srcs").contains(&file)
            });
            if !found {
                missing(format!("expected a rust_binary {program} of {file}"));
            }
        }
        if TESTED_BY_CARGO_ALONE.contains(&name.as_str()) {
            continue;
        }
        let below = format!("{folder}/src/");
        let unit = project.tree.sources().any(|(path, source)| {
            path.starts_with(&below) && source.lines.iter().any(|line| line.in_test)
        });
        if unit && !package.is_untested() && !has_call(calls, "rust_test") {
            missing("src/ has tests; expected a rust_test of them".to_owned());
        }
        if documented(project, &below) && !has_call(calls, "rust_doc_test") {
            missing("comments of src/ have examples; expected a rust_doc_test".to_owned());
        }
        let own = format!("{folder}/tests/");
        let apart = |path: &str| {
            path.strip_prefix(&own).is_some_and(|file| file.ends_with(".rs") && !file.contains('/'))
        };
        if project.tree.sources().any(|(path, _)| apart(path))
            && !has_call(calls, "rust_test_suite")
        {
            missing("tests/ has tests; expected a rust_test_suite of them".to_owned());
        }
    }
    Ok(())
}

/// Words behind the marks of a code block that `cargo test` builds.
const BUILT: [&str; 5] = ["", "compile_fail", "no_run", "rust", "should_panic"];

/// True when a documentation comment has code that `cargo test` builds.
fn documented(project: &Project<'_>, below: &str) -> bool {
    let mut sources = project.tree.sources().filter(|(path, _)| path.starts_with(below));
    sources.any(|(_, source)| {
        let comments = source.production().filter_map(|(_, line)| {
            let line = line.raw.trim_start();
            line.strip_prefix("//!").or(line.strip_prefix("///"))
        });
        // Marks come in pairs; the second one of each has no word.
        let marks = comments.filter_map(|text| text.trim_start().strip_prefix("```"));
        marks.step_by(2).any(|word| BUILT.contains(&word))
    })
}

fn has_call(calls: &[Call], function: &str) -> bool {
    calls.iter().any(|call| call.function == function)
}

fn library<'a>(calls: &'a [Call], crate_name: &str) -> Option<&'a Call> {
    calls.iter().find(|call| {
        let named = call.text("crate_name").or(call.text("name"));
        call.function == "rust_library" && named == Some(crate_name)
    })
}

/// A package's programs with their files, as cargo finds them.
fn programs(project: &Project<'_>, name: &str, folder: &str) -> Vec<(String, String)> {
    let main = "src/main.rs".to_owned();
    let has_main = project.tree.has(&format!("{folder}/{main}"));
    let bins = project.tree.sources().filter_map(|(path, _)| {
        let program = path.strip_prefix(&format!("{folder}/src/bin/"))?.strip_suffix(".rs")?;
        (!program.contains('/')).then(|| (program.to_owned(), format!("src/bin/{program}.rs")))
    });
    bins.chain(has_main.then(|| (name.to_owned(), main))).collect()
}

/// Packages of the workspace that targets depend on, against Cargo.toml.
pub(super) fn dependencies(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let ours = &project.cargo.members;
    for (name, package) in ours {
        let folder = &package.folder;
        let build = format!("{folder}/BUILD.bazel");
        let of = |functions: &[&str]| named_in_deps(project, package, functions);
        let own = |table: &str| -> BTreeSet<&str> {
            package.names(table).into_iter().filter(|name| ours.contains_key(*name)).collect()
        };
        let (normal, dev) = (own("dependencies"), own("dev-dependencies"));
        let (shipped, tested) = (of(&SHIPPED), of(&TESTING));
        let mut report = |message: String| {
            out.push(Finding::new(&build, 0, "dependencies", message));
        };
        for missing in normal.difference(&shipped) {
            report(format!("{missing} is in Cargo.toml and in no target's deps"));
        }
        for extra in shipped.difference(&normal) {
            report(format!("{extra} is in a target's deps and not in [dependencies] of {name}"));
        }
        if TESTED_BY_CARGO_ALONE.contains(&name.as_str()) {
            continue;
        }
        for missing in dev.difference(&tested) {
            report(format!("{missing} is in [dev-dependencies] and in no test's deps"));
        }
        for extra in tested.iter().filter(|d| !normal.contains(*d) && !dev.contains(*d)) {
            report(format!("{extra} is in a test's deps and not in Cargo.toml of {name}"));
        }
    }
    Ok(())
}

/// Other packages of the workspace that such targets name in `deps`.
fn named_in_deps<'a>(
    project: &'a Project<'_>,
    package: &Package,
    functions: &[&str],
) -> BTreeSet<&'a str> {
    let calls = project.calls(&package.folder).iter();
    calls
        .filter(|call| functions.contains(&call.function.as_str()))
        .flat_map(|call| call.texts("deps"))
        .filter_map(|label| {
            let folder = label.strip_prefix("//")?.split(':').next()?;
            project.cargo.in_folder(folder).map(|(name, _)| name)
        })
        .collect()
}

/// What the workspace turns on is what libraries and their tests are built with.
pub(super) fn features(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    for (name, package) in &project.cargo.members {
        let on = project.cargo.features_on(name);
        let build = format!("{}/BUILD.bazel", package.folder);
        for call in project.calls(&package.folder) {
            let is_library = call.function == "rust_library";
            let built: BTreeSet<String> = call.texts("crate_features").iter().cloned().collect();
            // A test of `crate` has its features.
            let is_suite = call.function == "rust_test_suite";
            if (is_library || is_suite) && built != on {
                let message = format!(
                    "crate_features are {built:?}; with the workspace's cargo builds {on:?}"
                );
                out.push(Finding::new(&build, call.line, "features", message));
            }
        }
    }
    Ok(())
}

/// The programs that are shipped, and what Nix needs to build them.
pub(super) fn programs_of_nix(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    const NIX: &str = "nix/programs.nix";
    let text = project.text(NIX)?;
    let nix = super::nix::list(text, "names").ok_or(format!("{NIX}: expected names = [ … ]"))?;
    let binaries = project.calls("").iter().find(|call| call.text("name") == Some("binaries"));
    let labels = binaries.map_or(&[][..], |call| call.texts("srcs"));
    let bazel: BTreeSet<String> = (labels.iter())
        .filter_map(|label| project.cargo.in_folder(label.strip_prefix("//")?))
        .map(|(name, _)| name.to_owned())
        .collect();
    if nix != bazel {
        let message = format!("names are {nix:?}; //:binaries of BUILD.bazel are {bazel:?}");
        out.push(Finding::new(NIX, 0, "programs", message));
    }
    let known = super::nix::paths(text);
    for package in project.cargo.members.values() {
        let folder = &package.folder;
        let covered = |path: &String| *path == *folder || folder.starts_with(&format!("{path}/"));
        if !known.iter().any(covered) {
            let message = format!("the sources have no ../{folder}, which is in the workspace");
            out.push(Finding::new(NIX, 0, "programs", message));
        }
    }
    Ok(())
}

/// Labels and files that BUILD files name are there.
pub(super) fn labels(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    const FILES: [&str; 6] = ["", "compile_data", "data", "deps", "shared_srcs", "srcs"];
    for (folder, calls) in &project.bazel {
        let build =
            if folder.is_empty() { "BUILD.bazel".into() } else { format!("{folder}/BUILD.bazel") };
        for call in calls.iter().filter(|call| call.function != "load") {
            let named = FILES.iter().flat_map(|argument| call.texts(argument));
            for label in named.chain(call.texts("crate")) {
                let plain = !label.starts_with(':') && !label.starts_with("//");
                if label.starts_with('@') || label.contains('*') {
                    continue;
                }
                let (package, target) = if plain || label.starts_with(':') {
                    (folder.as_str(), label.trim_start_matches(':'))
                } else {
                    let path = label.trim_start_matches("//");
                    let last = path.rsplit('/').next().unwrap_or(path);
                    path.split_once(':').unwrap_or((path, last))
                };
                if !is_there(project, package, target) {
                    let message = format!("{label} is neither a target nor a file");
                    out.push(Finding::new(&build, call.line, "labels", message));
                }
            }
        }
    }
    Ok(())
}

fn is_there(project: &Project<'_>, package: &str, target: &str) -> bool {
    // A tree has no links.
    let package = LINKS.iter().find(|(link, _)| *link == package).map_or(package, |(_, to)| to);
    let file = if package.is_empty() { target.to_owned() } else { format!("{package}/{target}") };
    let is_target = project.calls(package).iter().any(|call| call.text("name") == Some(target));
    project.bazel.contains_key(package) && (is_target || project.tree.text(&file).is_some())
}

/// `[workspace]` tables apart from the main one, for the rules of versions.
pub(super) fn other_workspaces<'a>(project: &Project<'a>) -> Result<Vec<(&'a str, Table)>, String> {
    let manifests = manifests(project.tree)?.into_iter();
    let apart = manifests.filter(|(folder, _)| project.cargo.in_folder(folder).is_none());
    Ok(apart.filter(|(_, manifest)| manifest.get("package").is_some_and(Value::is_table)).collect())
}
