//! Nix's side, as text: lists of names, paths, and the settings of apps. Its language has no small
//! reader; what is compared stands in lines of a form that nixfmt keeps.

use std::collections::{BTreeMap, BTreeSet};

use super::Project;
use crate::{Finding, tree::parent};

/// The texts of `name = [ "a" "b" ];`.
pub(super) fn list(text: &str, name: &str) -> Option<BTreeSet<String>> {
    let (_, after) = text.split_once(&format!("{name} = ["))?;
    let inside = after.split_once(']')?.0;
    Some(inside.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// A file's text without its comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = |line: &'_ str| line.find("# ").map_or(line.len(), |at| at);
    text.lines().enumerate().map(move |(n, line)| (n + 1, &line[..code(line)]))
}

/// What `../x` in a file of nix/ leads to, from the root.
pub(super) fn paths(text: &str) -> BTreeSet<String> {
    named_paths(text).into_iter().filter_map(|(_, path)| resolve("nix", &path)).collect()
}

/// Words that begin with `./` or `../`, with their lines; not those that a shell or a text has.
fn named_paths(text: &str) -> Vec<(usize, String)> {
    let is_path = |c: char| c.is_alphanumeric() || "._-/".contains(c);
    let words = code(text).flat_map(|(n, line)| line.split(' ').map(move |word| (n, word)));
    words
        .map(|(n, word)| (n, word.trim_matches(['(', ')', ';', '}', '$', '{'])))
        .filter(|(_, word)| word.starts_with("./") || word.starts_with("../"))
        .filter(|(_, word)| word.chars().all(is_path))
        .map(|(n, word)| (n, word.to_owned()))
        .collect()
}

fn resolve(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Every path that a file of Nix names is in the repository.
pub(super) fn files(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    for (path, text) in project.tree.texts().filter(|(path, _)| path.ends_with(".nix")) {
        for (line, named) in named_paths(text) {
            let there = resolve(parent(path), &named).is_some_and(|file| project.tree.has(&file));
            if !there {
                let message = format!("{named} does not exist");
                out.push(Finding::new(path, line, "nix-files", message));
            }
        }
    }
    Ok(())
}

/// `overlay.key = value;` of nix/scripts.nix, by overlay and key.
pub(super) fn examples(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut examples: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let inside = text.split_once("examples = {").map_or("", |(_, after)| after);
    for line in inside.split_once("};").map_or("", |(inside, _)| inside).lines() {
        let Some((name, value)) = line.trim().trim_end_matches(';').split_once(" = ") else {
            continue;
        };
        if let Some((overlay, key)) = name.split_once('.') {
            let value = value.trim_matches('"').to_owned();
            examples.entry(overlay.to_owned()).or_default().insert(key.to_owned(), value);
        }
    }
    examples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_paths_and_examples_are_read_and_comments_are_not() {
        let text = "  names = [\n    \"a\"\n    \"b-c\"\n  ];\n  src = ../. ; # ../no\n  \
                    x = [ ../crates ../a/b.toml ./y.nix ];\n  d = readFile ./d.sh;\n";
        assert_eq!(list(text, "names"), Some(["a".into(), "b-c".into()].into()));
        assert_eq!(list(text, "others"), None);
        let expected = ["", "a/b.toml", "crates", "nix/d.sh", "nix/y.nix"];
        assert_eq!(paths(text), expected.map(str::to_owned).into());
        let text =
            "  examples = {\n    a.example = 1;\n    a.client = \"c\";\n  };\n  b.example = 2;";
        let expected = [("client".into(), "c".into()), ("example".into(), "1".into())].into();
        assert_eq!(examples(text), [("a".into(), expected)].into());
    }
}
