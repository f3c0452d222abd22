//! BUILD and MODULE files, seen well enough to compare: top-level calls with the texts in their
//! arguments. Only Bazel itself evaluates Starlark, and a comparison should not need Bazel; the
//! files of this repository are lists of calls, and a file that is more is an error here.

use std::collections::BTreeMap;

/// A call at the top level of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// `rust_library`, `rust.toolchain`.
    pub(super) function: String,
    /// The line of its name, from 1.
    pub(super) line: usize,
    /// The texts in each argument, also those inside of `glob`; `""` for those without name.
    pub(super) texts: BTreeMap<String, Vec<String>>,
}

impl Call {
    /// The texts of an argument.
    pub(super) fn texts(&self, name: &str) -> &[String] {
        self.texts.get(name).map_or(&[], Vec::as_slice)
    }

    /// The only text of an argument.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.texts(name).first().map(String::as_str)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// The calls of a file, in their order.
///
/// # Errors
///
/// A text or a call does not end.
pub(super) fn calls(source: &str) -> Result<Vec<Call>, String> {
    let tokens = tokens(source)?;
    let mut calls = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let call = match (&tokens[at], tokens.get(at + 1)) {
            ((line, Token::Word(word)), Some((_, Token::Sign('(')))) => Some((*line, word)),
            _ => None,
        };
        let Some((line, word)) = call else {
            at += 1;
            continue;
        };
        let (texts, end) = arguments(&tokens, at + 2)
            .ok_or_else(|| format!("line {line}: expected the end of {word}("))?;
        calls.push(Call { function: word.clone(), line, texts });
        at = end;
    }
    Ok(calls)
}

/// The texts of the arguments from `at` on, and where the call ends.
fn arguments(
    tokens: &[(usize, Token)],
    mut at: usize,
) -> Option<(BTreeMap<String, Vec<String>>, usize)> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut name, mut depth) = (String::new(), 0_usize);
    loop {
        match &tokens.get(at)?.1 {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') if depth == 0 => return Some((texts, at + 1)),
            Token::Sign(')' | ']' | '}') => depth -= 1,
            Token::Sign(',') if depth == 0 => name.clear(),
            Token::Word(word)
                if depth == 0 && tokens.get(at + 1).is_some_and(|t| t.1 == Token::Sign('=')) =>
            {
                name.clone_from(word);
                texts.entry(name.clone()).or_default();
            }
            Token::Text(text) => texts.entry(name.clone()).or_default().push(text.clone()),
            Token::Word(_) | Token::Sign(_) => {}
        }
        at += 1;
    }
}

fn tokens(source: &str) -> Result<Vec<(usize, Token)>, String> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let taken = if first == '#' {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(inside) = rest.strip_prefix("\"\"\"") {
            let end = inside.find("\"\"\"").ok_or(format!("line {line}: a text has no end"))?;
            end + 6
        } else if first == '"' {
            let end = rest[1..].find('"').ok_or(format!("line {line}: a text has no end"))?;
            tokens.push((line, Token::Text(rest[1..=end].to_owned())));
            end + 2
        } else if first.is_alphanumeric() || first == '_' {
            let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
            let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            tokens.push((line, Token::Word(rest[..end].to_owned())));
            end
        } else {
            if !first.is_whitespace() {
                tokens.push((line, Token::Sign(first)));
            }
            first.len_utf8()
        };
        line += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_seen_with_the_texts_of_each_argument() {
        let source = "\"\"\"Doc (with a sign).\"\"\"\n\
                      load(\"@rules//:defs.bzl\", \"rust_library\")  # \"not this\"\n\
                      rust = use_extension(\"@e\", \"rust\")\n\
                      rust.toolchain(\n    versions = [\"1.95.0\"],\n)\n\
                      rust_library(\n    name = \"a\",\n    \
                      srcs = glob([\"src/**\"], exclude = [\"src/main.rs\"]) + [\"x\"],\n    \
                      testonly = True,\n)\n";
        let calls = calls(source).unwrap();
        let seen: Vec<(&str, usize)> =
            calls.iter().map(|call| (call.function.as_str(), call.line)).collect();
        let expected =
            [("load", 2), ("use_extension", 3), ("rust.toolchain", 4), ("rust_library", 7)];
        assert_eq!(seen, expected);
        assert_eq!(calls[0].texts(""), ["@rules//:defs.bzl", "rust_library"]);
        assert_eq!(calls[2].text("versions"), Some("1.95.0"));
        assert_eq!(calls[3].texts("srcs"), ["src/**", "src/main.rs", "x"]);
        assert_eq!(calls[3].texts("testonly"), [""; 0]);
        assert_eq!(calls[3].texts("deps"), [""; 0]);
    }

    #[test]
    fn what_does_not_end_is_an_error_with_its_line() {
        assert_eq!(calls("a(\n").unwrap_err(), "line 1: expected the end of a(");
        assert_eq!(calls("\na(\"x)").unwrap_err(), "line 2: a text has no end");
    }
}
