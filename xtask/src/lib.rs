//! Checks of this repository that neither rustc nor clippy can make: STYLE's numbers, DESIGN's
//! walls, and what the dependencies may be. They are a program and not a shell script because each
//! rule needs a test that sees it fail, and because they run wherever cargo does.

use std::{fmt, path::PathBuf, process::ExitCode};

pub mod api;
pub mod compile_time;
pub mod deps;
pub mod drift;
pub mod metadata;
pub mod package;
pub mod policy;
pub mod source;
pub mod tidy;
pub mod tree;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the repository's root, with `/`.
    pub path: String,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Finding {
    /// A finding in one line of a file.
    pub fn new(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.message)
    }
}

const USAGE: &str = "usage: cargo xtask COMMAND
  tidy [ROOT]     style as a test: lengths, names, forbidden calls, layout, links
  deps [ROOT]     dependencies: bans, features, licences, duplicates (deny.toml), direction, core
  drift [ROOT]    what Cargo, Bazel, Nix, Kustomize and the READMEs say of the same things
  api [--write]   the public API of the published packages against (or into) their api.txt
  package         the published packages as users get them: files, build and documentation alone
  compile-time [ROUNDS]
                  how long evenkeel takes to compile, beside tonic's channel";

/// Runs one command: exit code 0 when no rule is broken, 1 when one is, 2 when it could not run.
pub fn main_from(mut args: impl Iterator<Item = String>) -> ExitCode {
    let command = args.next().unwrap_or_default();
    let word = args.next();
    let write = command == "api" && word.as_deref() == Some("--write");
    if let Some(extra) = args.next() {
        eprintln!("expected at most one word after {command:?}, got {extra:?}\n{USAGE}");
        return ExitCode::from(2);
    }
    if command == "compile-time" {
        return compile_time(word.as_deref());
    }
    let root = word.filter(|_| !write).map_or_else(workspace_root, PathBuf::from);
    let outcome = match command.as_str() {
        "tidy" => tree::Tree::read(&root).map(|tree| (tidy::check(&tree), tree.summary())),
        "deps" => deps::check(&root),
        "drift" => {
            tree::Tree::read(&root).and_then(|tree| Ok((drift::check(&tree)?, tree.summary())))
        }
        "api" => api::check(&root, write),
        "package" => package::check(&root),
        _ => Err(format!("expected a command, got {command:?}\n{USAGE}")),
    };
    match outcome {
        Ok((findings, seen)) if findings.is_empty() => {
            println!("{command}: nothing to mend in {seen}");
            ExitCode::SUCCESS
        }
        Ok((findings, seen)) => {
            findings.iter().for_each(|f| println!("{f}"));
            println!("{command}: {} to mend in {seen}", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn compile_time(rounds: Option<&str>) -> ExitCode {
    let rounds = rounds.map_or(Ok(compile_time::ROUNDS), |word| {
        word.parse().map_err(|_| format!("expected a number of rounds, got {word:?}\n{USAGE}"))
    });
    match rounds.and_then(|rounds| compile_time::measure(&workspace_root(), rounds)) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// The repository that this program was built from; cargo's alias runs it anywhere below.
pub fn workspace_root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    here.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}
