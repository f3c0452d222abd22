//! Rust text, seen well enough to search in: code apart from comments and literals, and which lines
//! are tests. A full parser would refuse a file in the middle of an edit and needs a dependency for
//! each edition; a rule that looks at words and braces needs neither.

mod lexer;

use std::ops::Range;

/// One line of a source file, in three views of the same length (in characters).
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// As it stands in the file.
    pub raw: String,
    /// With comments and the insides of literals blanked.
    pub code: String,
    /// With everything but comments blanked.
    pub comment: String,
    /// True when it is compiled for tests only.
    pub in_test: bool,
}

/// A function: its name and its lines, from `fn` to the closing brace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The name.
    pub name: String,
    /// Line indices, from 0, end exclusive.
    pub lines: Range<usize>,
}

/// A parsed source file.
#[derive(Clone, Debug)]
pub struct Source {
    /// The lines.
    pub lines: Vec<Line>,
    /// All functions with a body, in the order of their ends.
    pub functions: Vec<Function>,
    /// Names of modules in files of their own that are compiled for tests only.
    pub test_modules: Vec<String>,
}

impl Source {
    /// Reads a file's text; `test_file` says that all of it is a test.
    pub fn parse(text: &str, test_file: bool) -> Self {
        let mut lines = lexer::split(text);
        let code: Vec<(usize, char)> = lines
            .iter()
            .enumerate()
            .flat_map(|(n, line)| line.code.chars().chain(['\n']).map(move |c| (n, c)))
            .collect();
        let functions = functions(&code);
        let (regions, test_modules) = test_regions(&code);
        let whole = test_file || lines.iter().any(|l| l.code.trim() == "#![cfg(test)]");
        for (n, line) in lines.iter_mut().enumerate() {
            line.in_test = whole || regions.iter().any(|r| r.contains(&n));
        }
        Self { lines, functions, test_modules }
    }

    /// Line numbers (from 1) and lines outside tests.
    pub fn production(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.numbered().filter(|(_, line)| !line.in_test)
    }

    /// Line numbers (from 1) and lines.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().map(|(n, line)| (n + 1, line))
    }
}

/// True when `word` stands in `code` with no identifier character before or after it. A word that
/// begins or ends with a sign has no such seam at that end.
pub fn has_word(code: &str, word: &str) -> bool {
    find_word(code, word).is_some()
}

/// The byte position of `word` in `code`, as [`has_word`] sees it.
pub fn find_word(code: &str, word: &str) -> Option<usize> {
    let joins = |a: Option<char>, b: Option<char>| {
        a.is_some_and(is_identifier) && b.is_some_and(is_identifier)
    };
    code.match_indices(word).map(|(at, _)| at).find(|&at| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        !joins(before.chars().next_back(), word.chars().next())
            && !joins(word.chars().next_back(), after.chars().next())
    })
}

/// True for a character that can stand in an identifier.
pub fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text that begins at `at`, without line breaks being anything special.
fn starts_with(code: &[(usize, char)], at: usize, word: &str) -> bool {
    let mut chars = code[at..].iter();
    word.chars().all(|w| chars.next().is_some_and(|&(_, c)| c == w))
}

fn functions(code: &[(usize, char)]) -> Vec<Function> {
    struct Open {
        name: String,
        first: usize,
        depth: usize,
    }
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    // A header waits for its body: brackets must be closed again when its `{` or `;` comes.
    let mut header: Option<(Open, usize)> = None;
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, &(line, c)) in code.iter().enumerate() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            '{' => {
                if let Some((mut function, _)) = header.take_if(|(_, depth)| *depth == brackets) {
                    function.depth = braces;
                    open.push(function);
                }
                braces += 1;
            }
            '}' => {
                braces = braces.saturating_sub(1);
                if let Some(Open { name, first, .. }) = open.pop_if(|f| f.depth == braces) {
                    found.push(Function { name, lines: first..line + 1 });
                }
            }
            ';' => drop(header.take_if(|(_, depth)| *depth == brackets)),
            'f' => {
                let begins = at == 0 || !is_identifier(code[at - 1].1);
                if begins && starts_with(code, at, "fn ") {
                    let name: String = code[at + 3..]
                        .iter()
                        .map(|&(_, c)| c)
                        .take_while(|&c| is_identifier(c))
                        .collect();
                    header = Some((Open { name, first: line, depth: 0 }, brackets));
                }
            }
            _ => {}
        }
    }
    found
}

/// The lines of each item under `#[cfg(test)]`, and the modules among them whose body is elsewhere.
fn test_regions(code: &[(usize, char)]) -> (Vec<Range<usize>>, Vec<String>) {
    let (mut regions, mut modules) = (Vec::new(), Vec::new());
    for (at, &(first, _)) in code.iter().enumerate().filter(|(_, (_, c))| *c == '#') {
        if !["#[cfg(test)]", "#[cfg(all(test,"].iter().any(|a| starts_with(code, at, a)) {
            continue;
        }
        let (mut braces, mut brackets) = (0_usize, 0_usize);
        let mut item = String::new();
        for &(line, c) in &code[at + 1..] {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                '{' => braces += 1,
                '}' => braces = braces.saturating_sub(1),
                _ if brackets == 0 && braces == 0 => item.push(c),
                _ => {}
            }
            let ends = (c == '}' && braces == 0) || (c == ';' && braces == 0 && brackets == 0);
            if ends {
                regions.push(first..line + 1);
                if c == ';' {
                    modules.extend(module_name(&item));
                }
                break;
            }
        }
    }
    (regions, modules)
}

/// `tests` in ` pub(crate) mod tests;`.
fn module_name(item: &str) -> Option<String> {
    let at = find_word(item, "mod")?;
    Some(item[at + 3..].trim_matches(|c: char| !is_identifier(c)).to_owned())
}

#[cfg(test)]
mod tests;
