//! What may not be written in Rust: ways to fail without a word, unfinished code, tests that do not
//! run, time that passes for real. Clippy's lints of these names can't tell an integration test's
//! functions from production, nor read the reason beside an exception.

use crate::{
    Finding,
    source::{Line, Source, find_word, has_word},
    tree::Tree,
};

pub(super) fn expect_says_why(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        for (n, line) in source.production() {
            if has_word(&line.code, ".unwrap()") {
                let message = "an error ends the program without a word; return it, or \
                               .expect(\"why it cannot fail\")";
                out.push(Finding::new(path, n, "expect", message));
            }
            // The text may stand on the next line; rustfmt puts it there when it is long.
            let text = quoted_argument(line, ".expect(")
                .or_else(|| line.code.trim_end().ends_with(".expect(").then(|| next(source, n)));
            if text.is_some_and(|text| !text.trim().contains(' ')) {
                let message = "expected a sentence that says why it cannot fail";
                out.push(Finding::new(path, n, "expect", message));
            }
        }
    }
}

/// The text literal right after `call`, if there is one on this line. The views of a line have the
/// same number of characters, so positions are counted in characters.
fn quoted_argument(line: &Line, call: &str) -> Option<String> {
    let at = line.code.find(call)? + call.len();
    let inside = line.code[at..].strip_prefix('"')?;
    let skip = line.code[..at].chars().count() + 1;
    let length = inside.chars().take_while(|&c| c != '"').count();
    Some(line.raw.chars().skip(skip).take(length).collect())
}

fn next(source: &Source, n: usize) -> String {
    source.lines.get(n).map(|line| line.raw.clone()).unwrap_or_default()
}

pub(super) fn no_unfinished_code(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        for (n, line) in source.production() {
            for word in ["todo!", "unimplemented!", "dbg!"] {
                if has_word(&line.code, word) {
                    let message = format!("{word} is left over; finish it or leave it out");
                    out.push(Finding::new(path, n, "unfinished", message));
                }
            }
        }
    }
}

pub(super) fn no_ignored_test(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        for (n, line) in source.numbered() {
            if line.code.contains("#[ignore") {
                let message = "a test that nobody runs proves nothing; mend it or delete it";
                out.push(Finding::new(path, n, "ignored-test", message));
            }
        }
    }
}

pub(super) fn no_sleep(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        if !path.starts_with("crates/") && !path.starts_with("services/") {
            continue;
        }
        for (n, line) in source.numbered() {
            // Production code imports `sleep` to make a timer that its select ends; in a test, time
            // passes for real in any spelling.
            let by_path = ["thread::sleep", "time::sleep("].iter().any(|s| line.code.contains(s));
            let sleeps = by_path || (line.in_test && calls_sleep(&line.code));
            if sleeps && !has_reason(source, n) {
                let message = "await an event, or a timer that something can end; if it must be a \
                               sleep, a comment on this line or the one above says why";
                out.push(Finding::new(path, n, "sleep", message));
            }
        }
    }
}

/// A call of an imported `sleep`; not a method or a function that is called so.
fn calls_sleep(code: &str) -> bool {
    find_word(code, "sleep(").is_some_and(|at| {
        let before = code[..at].trim_end();
        !before.ends_with('.') && !has_word(before.rsplit(' ').next().unwrap_or(before), "fn")
    })
}

pub(super) fn libraries_do_not_print(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        if !path.starts_with("crates/") || !path.contains("/src/") {
            continue;
        }
        for (n, line) in source.production() {
            if ["println!", "eprintln!", "print!", "eprint!"]
                .iter()
                .any(|w| has_word(&line.code, w))
            {
                let message = "a library's user owns stdout and stderr; return it, record it or \
                               trace it";
                out.push(Finding::new(path, n, "print", message));
            }
        }
    }
}

pub(super) fn allow_has_a_reason(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources() {
        for (n, line) in source.numbered() {
            let code = &line.code;
            let switches = ["#[allow(", "#![allow(", "#[expect(", "#![expect("];
            let silent = switches.iter().any(|s| code.contains(s))
                && !attribute(source, n).contains("reason =")
                && !has_reason(source, n);
            if silent {
                let message = "a lint is switched off; say why in reason = \"…\" or a comment";
                out.push(Finding::new(path, n, "allow", message));
            }
        }
    }
}

/// The attribute that begins on line `n`, up to its closing bracket.
fn attribute(source: &Source, n: usize) -> String {
    let mut text = String::new();
    for line in &source.lines[n - 1..] {
        text.push_str(&line.code);
        if text.matches('[').count() == text.matches(']').count() {
            break;
        }
    }
    text
}

/// A comment on line `n`, or alone on the line above; documentation is not a reason.
fn has_reason(source: &Source, n: usize) -> bool {
    let comment = |line: &Line| {
        let text = line.comment.trim();
        !text.is_empty() && !text.starts_with("///") && !text.starts_with("//!")
    };
    let above = n.checked_sub(2).map(|at| &source.lines[at]);
    comment(&source.lines[n - 1])
        || above.is_some_and(|line| line.code.trim().is_empty() && comment(line))
}
