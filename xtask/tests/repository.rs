//! The checks on the repository itself, so that `cargo test` is enough to see what CI will say.
//! Bazel does not run this file: its sandbox holds declared files only.

use xtask::{Finding, deps, drift, tidy, tree::Tree, workspace_root};

fn assert_none(findings: &[Finding]) {
    let shown: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(shown.is_empty(), "{} to mend:\n{}", shown.len(), shown.join("\n"));
}

#[test]
fn the_repository_is_tidy() {
    let tree = Tree::read(&workspace_root()).expect("the repository can be read");
    assert_none(&tidy::check(&tree));
}

#[test]
fn the_dependencies_are_allowed() {
    let (findings, _) = deps::check(&workspace_root()).expect("cargo knows the dependencies");
    assert_none(&findings);
}

#[test]
fn nothing_has_drifted() {
    let tree = Tree::read(&workspace_root()).expect("the repository can be read");
    assert_none(&drift::check(&tree).expect("every file that is compared can be read"));
}
