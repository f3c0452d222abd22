//! How long files, functions and lines may be. Clippy has a lint for functions only, and counts
//! other lines than a reader sees.

use crate::{Finding, tree::Tree};

/// Lines of a Rust file outside tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
const LINE_COLUMNS_MAX: usize = 100;
/// Files whose lines a person reads as code. Prose wraps where its reader's window ends.
const CODE: [&str; 7] = [".bazel", ".bzl", ".py", ".rs", ".sh", "/run", "justfile"];

pub(super) fn file_length(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        let lines = source.production().count();
        if lines > FILE_LINES_MAX {
            let message = format!(
                "{lines} lines without tests, at most {FILE_LINES_MAX}; would a newcomer find two \
                 rooms in one? Move one out"
            );
            out.push(Finding::new(path, 0, "file-length", message));
        }
    }
}

pub(super) fn function_length(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        for function in &source.functions {
            let (lines, name) = (function.lines.len(), &function.name);
            if lines > FUNCTION_LINES_MAX {
                let message = format!(
                    "{name} has {lines} lines, at most {FUNCTION_LINES_MAX}; give a step of it a \
                     name and a function of its own"
                );
                let line = function.lines.start + 1;
                out.push(Finding::new(path, line, "function-length", message));
            }
        }
    }
}

pub(super) fn line_length(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, text) in tree.texts() {
        if !CODE.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        for (n, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            // An address can't be broken.
            if columns > LINE_COLUMNS_MAX && !line.contains("https://") {
                let message = format!("{columns} columns, at most {LINE_COLUMNS_MAX}; break it");
                out.push(Finding::new(path, n + 1, "line-length", message));
            }
        }
    }
}
