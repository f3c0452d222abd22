//! Where files are, what they are called, how they begin.

use crate::{
    Finding,
    source::find_word,
    tree::{Tree, parent, stem},
};

/// Names that say nothing, so that everything ends up in them.
const EMPTY_NAMES: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];

/// Scripts and recipes: their head is a `#` comment, after the line that names the interpreter.
const SCRIPTS: [&str; 4] = [".ci/run", ".py", ".sh", "justfile"];

pub(super) fn file_head(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        let first = source.lines.iter().find(|line| !line.raw.trim().is_empty());
        if !first.is_some_and(|line| line.raw.starts_with("//! ")) {
            let message = "expected //! on the first line: why this file exists, and why the \
                           obvious alternative does not do";
            out.push(Finding::new(path, 1, "file-head", message));
        }
    }
    for (path, text) in tree.texts() {
        let script = SCRIPTS.iter().any(|end| path.ends_with(end));
        let first = text.lines().find(|line| !line.starts_with("#!"));
        if script && !first.is_some_and(|line| line.starts_with("# ") || line.starts_with("\"\"\""))
        {
            let message = "expected a # comment on top: why this file exists";
            out.push(Finding::new(path, 1, "file-head", message));
        }
    }
}

pub(super) fn module_name(tree: &Tree, out: &mut Vec<Finding>) {
    let message = |name: &str| format!("{name} says nothing; name the module by what is in it");
    for (path, source) in tree.sources() {
        let parts = parent(path).split('/').chain([stem(path)]);
        for name in parts.filter(|part| EMPTY_NAMES.contains(part)) {
            out.push(Finding::new(path, 0, "module-name", message(name)));
        }
        for (n, line) in source.numbered() {
            // `mod utils;` is found at its file as well, unless #[path] hides it.
            let Some(at) = find_word(&line.code, "mod ") else { continue };
            let name = line.code[at + 4..].trim_end_matches([';', '{', ' ']);
            if EMPTY_NAMES.contains(&name) {
                out.push(Finding::new(path, n, "module-name", message(name)));
            }
        }
    }
}

/// Folders of packages: those with a Cargo.toml, except the workspace's own.
fn packages(tree: &Tree) -> impl Iterator<Item = &str> {
    tree.texts().filter_map(|(path, _)| path.strip_suffix("/Cargo.toml"))
}

pub(super) fn bazel_beside_cargo(tree: &Tree, out: &mut Vec<Finding>) {
    for folder in packages(tree).filter(|f| !tree.has(&format!("{f}/BUILD.bazel"))) {
        let message = "no BUILD.bazel beside it; Bazel looks a package's crates up by its folder";
        out.push(Finding::new(&format!("{folder}/Cargo.toml"), 0, "bazel", message));
    }
}

pub(super) fn readme_of_programs(tree: &Tree, out: &mut Vec<Finding>) {
    let programs = packages(tree).filter(|folder| {
        let service = folder.starts_with("services/") || *folder == "lab";
        service && tree.has(&format!("{folder}/src/main.rs"))
    });
    for folder in programs.filter(|f| !tree.has(&format!("{f}/README.md"))) {
        let message = "a program that people run needs a README.md: its flags, environment, exit \
                       codes";
        out.push(Finding::new(&format!("{folder}/Cargo.toml"), 0, "readme", message));
    }
}
