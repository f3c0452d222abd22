//! What is written for users: that public items are documented, and that a page's diffs are of
//! real files. rustc sees the first only where nobody switched its lint off, and nothing sees the
//! second.

use crate::{Finding, tree::Tree};

pub(super) fn only_generated_code_is_undocumented(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        for (n, line) in source.numbered() {
            let switched_off = ["allow(", "expect("].iter().any(|word| {
                let found = line.code.split(word).nth(1);
                found.is_some_and(|rest| rest.contains("missing_docs"))
            });
            // The switch and then, before any other code, the generated text.
            let next = source.lines.iter().skip(n).find(|next| !next.code.trim().is_empty());
            let generated = next.is_some_and(|next| next.code.contains("include!("));
            if switched_off && !generated {
                let message = "public items are documented; only generated code, `include!`d right \
                               below, is not";
                out.push(Finding::new(path, n, "documented", message));
            }
        }
    }
}

/// `<!-- diff: OLD NEW -->`, paths from the root, and a block that is the whole diff.
const MARK: &str = "<!-- diff: ";

pub(super) fn diffs_are_of_the_files(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, text) in tree.texts().filter(|(path, _)| path.ends_with(".md")) {
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let Some(files) = line.strip_prefix(MARK).and_then(|l| l.strip_suffix(" -->")) else {
                continue;
            };
            if let Err(message) = diff(tree, files, &lines[n + 1..]) {
                out.push(Finding::new(path, n + 1, "diff", message));
            }
        }
    }
}

/// Without its added lines the block is the old file, without its removed ones the new file.
fn diff(tree: &Tree, files: &str, below: &[&str]) -> Result<(), String> {
    let form = "expected `<!-- diff: OLD NEW -->` and a ```diff block on the next line";
    let (old, new) = files.split_once(' ').ok_or(form)?;
    let block = below.split_first().filter(|(first, _)| **first == "```diff").ok_or(form)?.1;
    let end = block.iter().position(|line| *line == "```").ok_or(form)?;
    for (file, others) in [(old, '+'), (new, '-')] {
        let wanted = tree.texts().find(|(path, _)| *path == file);
        let (_, wanted) = wanted.ok_or_else(|| format!("{file} does not exist"))?;
        let kept = block[..end].iter().filter(|line| !line.starts_with(others));
        // The first column is the diff's; an editor may have taken the blank of an empty line.
        let shown: Vec<&str> = kept.map(|line| line.get(1..).unwrap_or_default()).collect();
        if let Some(at) = (0..shown.len().max(wanted.lines().count()))
            .find(|at| shown.get(*at).copied() != wanted.lines().nth(*at))
        {
            return Err(format!("the diff is not that of {file}, from its line {} on", at + 1));
        }
    }
    Ok(())
}
