//! Splits Rust text into lines of code and comment. Only what hides code or imitates it is known:
//! comments (nested too), strings, raw strings, characters against lifetimes.

use super::{Line, is_identifier};

#[derive(Clone, Copy)]
enum State {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text,
    RawText { hashes: usize },
    Character,
}

/// The lines of `text`; `in_test` is not set yet.
pub(super) fn split(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        if chars[at] == '\n' {
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let (next, length, visible) = step(state, &chars, at);
        let line = lines.last_mut().expect("it starts with one line and only grows");
        // A token may not swallow a line break: the next round counts it.
        let end = (at..at + length).find(|&n| n >= chars.len() || chars[n] == '\n');
        let end = end.unwrap_or(at + length).max(at + 1);
        for &c in &chars[at..end] {
            line.raw.push(c);
            line.code.push(if visible == View::Code { c } else { ' ' });
            line.comment.push(if visible == View::Comment { c } else { ' ' });
        }
        state = next;
        at = end;
    }
    if lines.last().is_some_and(|l| l.raw.is_empty()) {
        lines.pop();
    }
    lines
}

#[derive(Clone, Copy, PartialEq)]
enum View {
    Code,
    Comment,
    Hidden,
}

/// The state after the token at `at`, the token's length, and which view shows it.
fn step(state: State, chars: &[char], at: usize) -> (State, usize, View) {
    let next = chars.get(at + 1).copied();
    match (state, chars[at]) {
        (State::Code, c) => from_code(c, chars, at),
        (State::LineComment, _) => (state, 1, View::Comment),
        (State::BlockComment { depth }, '/') if next == Some('*') => {
            (State::BlockComment { depth: depth + 1 }, 2, View::Comment)
        }
        (State::BlockComment { depth }, '*') if next == Some('/') => match depth {
            1 => (State::Code, 2, View::Comment),
            _ => (State::BlockComment { depth: depth - 1 }, 2, View::Comment),
        },
        (State::BlockComment { .. }, _) => (state, 1, View::Comment),
        (State::Text | State::Character, '\\') => (state, 2, View::Hidden),
        (State::Text, '"') | (State::Character, '\'') => (State::Code, 1, View::Code),
        (State::RawText { hashes }, '"') if closes(chars, at, hashes) => {
            (State::Code, 1 + hashes, View::Code)
        }
        (State::Text | State::Character | State::RawText { .. }, _) => (state, 1, View::Hidden),
    }
}

fn from_code(c: char, chars: &[char], at: usize) -> (State, usize, View) {
    let next = chars.get(at + 1).copied();
    let joined = at > 0 && is_identifier(chars[at - 1]);
    match c {
        '/' if next == Some('/') => (State::LineComment, 2, View::Comment),
        '/' if next == Some('*') => (State::BlockComment { depth: 1 }, 2, View::Comment),
        '"' => (State::Text, 1, View::Code),
        'r' if !joined || matches!(chars[at - 1], 'b' | 'c') => match raw_hashes(chars, at + 1) {
            Some(hashes) => (State::RawText { hashes }, 2 + hashes, View::Code),
            None => (State::Code, 1, View::Code),
        },
        // 'a' and '\n' are characters; 'a without a closing quote is a lifetime.
        '\'' if next == Some('\\') || chars.get(at + 2) == Some(&'\'') => {
            (State::Character, 1, View::Code)
        }
        _ => (State::Code, 1, View::Code),
    }
}

/// The number of `#` between `r` and `"`, or nothing when this is no raw string.
fn raw_hashes(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from..].iter().take_while(|&&c| c == '#').count();
    (chars.get(from + hashes) == Some(&'"')).then_some(hashes)
}

fn closes(chars: &[char], at: usize, hashes: usize) -> bool {
    chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
}
