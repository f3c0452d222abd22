//! The repository's files in memory, so that a rule is a function of texts and its test needs no
//! folder on a disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::source::Source;

/// Folders that are never part of the repository. Build folders are known by cargo's own mark too.
const SKIPPED: [&str; 3] = [".git", "node_modules", "target"];

/// Files by path; paths are relative to the root, with `/`.
#[derive(Debug, Default)]
pub struct Tree {
    texts: BTreeMap<String, String>,
    sources: BTreeMap<String, Source>,
    /// What is no text: pictures, which a page may show.
    others: BTreeSet<String>,
}

impl Tree {
    /// Reads every text file below `root`.
    ///
    /// # Errors
    ///
    /// A folder or file can't be read, or `root` has no Cargo.toml.
    pub fn read(root: &Path) -> Result<Self, String> {
        if !root.join("Cargo.toml").is_file() {
            let shown = root.display();
            return Err(format!("{shown}: expected the repository's root; found no Cargo.toml"));
        }
        let (mut texts, mut others) = (Vec::new(), BTreeSet::new());
        read_folder(root, "", &mut texts, &mut others)?;
        Ok(Self { others, ..Self::from_texts(texts) })
    }

    /// A tree of these files.
    pub fn from_texts(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        let texts: BTreeMap<String, String> = texts.into_iter().collect();
        let rust = || texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        // First round: which modules are declared for tests only, wherever their files are.
        let test_modules: BTreeSet<String> = rust()
            .flat_map(|(path, text)| {
                let names = Source::parse(text, false).test_modules;
                names.into_iter().map(move |name| format!("{}/{name}", module_folder(path)))
            })
            .collect();
        let sources = rust()
            .map(|(path, text)| (path.clone(), Source::parse(text, is_test(path, &test_modules))))
            .collect();
        Self { texts, sources, others: BTreeSet::new() }
    }

    /// All text files with their paths.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// One file's text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// All Rust files with their paths.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.sources.iter().map(|(path, source)| (path.as_str(), source))
    }

    /// True for a file, or a folder that holds one.
    pub fn has(&self, path: &str) -> bool {
        let below = format!("{path}/");
        path.is_empty()
            || self.texts.contains_key(path)
            || self.others.contains(path)
            || self.texts.range(below.clone()..).next().is_some_and(|(p, _)| p.starts_with(&below))
    }

    /// What was looked at, for the last line of output.
    pub fn summary(&self) -> String {
        format!("{} files, {} of them Rust", self.texts.len(), self.sources.len())
    }
}

/// The folder of a path, `""` at the root.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The last part of a path without its extension.
pub fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split_once('.').map_or(name, |(stem, _)| stem)
}

/// Where the submodules of a Rust file are.
fn module_folder(path: &str) -> String {
    match stem(path) {
        "lib" | "main" | "mod" => parent(path).to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

/// Whole files that are tests: by their place, or because their parent module says so.
fn is_test(path: &str, test_modules: &BTreeSet<String>) -> bool {
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
    stem(path) == "tests"
        || parent(path).split('/').any(|part| part == "tests" || part == "benches")
        || test_modules.iter().any(|m| module == m || module.starts_with(&format!("{m}/")))
}

fn read_folder(
    folder: &Path,
    shown: &str,
    out: &mut Vec<(String, String)>,
    others: &mut BTreeSet<String>,
) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: cannot be read: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let below = if shown.is_empty() { name.clone() } else { format!("{shown}/{name}") };
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            let built = SKIPPED.contains(&name.as_str()) || path.join("CACHEDIR.TAG").exists();
            if !built {
                read_folder(&path, &below, out, others)?;
            }
        } else if kind.is_file() {
            let bytes = fs::read(&path).map_err(|e| format!("{below}: cannot be read: {e}"))?;
            match String::from_utf8(bytes) {
                Ok(text) => out.push((below, text)),
                // A picture or an archive, and nothing that a rule could read.
                Err(_) => drop(others.insert(below)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        Tree::from_texts(files.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())))
    }

    #[test]
    fn a_picture_is_there_and_is_no_text() {
        let root = std::env::temp_dir().join(format!("xtask-tree-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("Cargo.toml"), "").unwrap();
        fs::write(root.join("a.png"), b"\x89PNG").unwrap();
        let tree = Tree::read(&root);
        fs::remove_dir_all(&root).unwrap();
        let tree = tree.unwrap();
        assert!(tree.has("a.png") && !tree.has("b.png"));
        assert_eq!(tree.texts().map(|(path, _)| path).collect::<Vec<_>>(), ["Cargo.toml"]);
    }

    #[test]
    fn test_files_are_known_by_place_name_and_declaration() {
        let body = "fn f() {}\n";
        let tree = tree(&[
            ("a/src/lib.rs", "#[cfg(test)]\nmod fleet;\nmod real;\n"),
            ("a/src/fleet.rs", body),
            ("a/src/fleet/step.rs", body),
            ("a/src/fleets.rs", body),
            ("a/src/real.rs", "fn f() {}\n#[cfg(test)]\nmod inner;\n"),
            ("a/src/real/inner/mod.rs", body),
            ("a/src/real/tests.rs", body),
            ("a/tests/it.rs", body),
        ]);
        let tests: Vec<&str> = tree
            .sources()
            .filter(|(_, source)| source.lines.iter().all(|line| line.in_test))
            .map(|(path, _)| path)
            .collect();
        let expected = [
            "a/src/fleet.rs",
            "a/src/fleet/step.rs",
            "a/src/real/inner/mod.rs",
            "a/src/real/tests.rs",
            "a/tests/it.rs",
        ];
        assert_eq!(tests, expected);
    }

    #[test]
    fn folders_exist_when_they_hold_a_file() {
        let tree = tree(&[("docs/adr/0001.md", ""), ("docs-old/x", "")]);
        for present in ["", "docs", "docs/adr", "docs/adr/0001.md"] {
            assert!(tree.has(present), "{present}");
        }
        for absent in ["doc", "docs/ad", "docs/adr/0001", "docs-ol"] {
            assert!(!tree.has(absent), "{absent}");
        }
    }
}
