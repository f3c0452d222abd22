//! The lexer and the two questions asked of it: where functions end, and what is a test.

use super::{Function, Source, find_word, has_word};

fn code(text: &str) -> Vec<String> {
    let lines = Source::parse(text, false).lines;
    lines.iter().map(|line| line.code.trim_end().to_owned()).collect()
}

#[test]
fn blanks_comments_and_literals() {
    let cases = [
        ("a // .unwrap()", "a"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"x("a // \" b") + 1"#, r#"x("         ") + 1"#),
        (r##"x(r#"a " b"#) + 1"##, r##"x(r#"     "#) + 1"##),
        (r#"x(br"\") + 1"#, r#"x(br" ") + 1"#),
        (r"c == '\'' || d", r"c == '  ' || d"),
        (r#"c == '"' || d"#, r"c == ' ' || d"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("for r in 0..3 {}", "for r in 0..3 {}"),
    ];
    for (text, expected) in cases {
        assert_eq!(code(text), [expected], "{text}");
    }
}

#[test]
fn keeps_strings_and_comments_open_over_lines() {
    assert_eq!(code("f(\"a\n{ b\", c)\n/* x\n} */ d"), ["f(\"", "   \", c)", "", "     d"]);
    assert_eq!(code("f(\"a \\\n  b\") // c\nd"), ["f(\"", "   \")", "d"]);
}

#[test]
fn shows_comments_apart_from_code() {
    let source = Source::parse("let url = \"http://x\"; // why", false);
    assert_eq!(source.lines[0].comment.trim(), "// why");
}

#[test]
fn finds_functions_and_their_lines() {
    let text = "\
trait T {
    fn none(&self) -> [u8; 4];
}
impl T {
    fn outer(x: [u8; 2], f: fn(u8) -> u8)
    where
        X: Y,
    {
        fn inner() { { } }
        \"}\";
    }
}
";
    let expected = [
        Function { name: "inner".into(), lines: 8..9 },
        Function { name: "outer".into(), lines: 4..11 },
    ];
    assert_eq!(Source::parse(text, false).functions, expected);
}

#[test]
fn tells_tests_from_production() {
    let text = "\
fn a() {}
#[cfg(test)]
#[allow(dead_code)]
mod tests {
    fn b() { if x { } }
}
fn c() {}
#[cfg(all(test, unix))]
fn d(x: [u8; 2]) {
}
#[cfg(test)]
pub(crate) mod fleet;
fn e() {}
";
    let source = Source::parse(text, false);
    let tests: Vec<bool> = source.lines.iter().map(|l| l.in_test).collect();
    let expected =
        [false, true, true, true, true, true, false, true, true, true, true, true, false];
    assert_eq!(tests, expected);
    assert_eq!(source.test_modules, ["fleet"]);
}

#[test]
fn words_end_at_identifiers() {
    assert!(has_word("use tokio::time;", "tokio"));
    assert!(!has_word("use my_tokio::time;", "tokio"));
    assert!(!has_word("tokio2", "tokio"));
    assert_eq!(find_word("unhelpful mod x", "mod"), Some(10));
    assert!(has_word("x.unwrap()", ".unwrap()"));
}
