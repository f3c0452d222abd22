//! Each rule is seen to fail: a bad snippet that only this rule finds, and its mended twin that no
//! rule finds.

use std::collections::BTreeSet;

use super::{RULES, check};
use crate::tree::Tree;

/// (rule, path, bad text, line of the finding, mended text)
type Case = (&'static str, &'static str, String, usize, String);

fn rust(body: &str) -> String {
    format!("//! Why.\n{body}\n")
}

fn case(rule: &'static str, path: &'static str, bad: &str, line: usize, good: &str) -> Case {
    (rule, path, rust(bad), line, rust(good))
}

fn long_function(lines: usize) -> String {
    format!("fn f() {{\n{}}}", "    f();\n".repeat(lines - 2))
}

/// Registry hosts may not be written down here either.
fn host(name: &str, domain: &str) -> String {
    format!("see https://{name}.{domain}/x\n")
}

const LIB: &str = "crates/a/src/lib.rs";
const CORE: &str = "crates/evenkeel-core/src/lib.rs";
const TEST: &str = "crates/a/tests/it.rs";

fn calls() -> Vec<Case> {
    let in_tests = "#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); dbg!(y) }\n}";
    vec![
        case("expect", LIB, "fn f() { x.unwrap() }", 2, in_tests),
        case("expect", LIB, "fn f() { x.expect(\"x\") }", 2, "fn f() { x.expect(\"it is 1\") }"),
        case(
            "expect",
            LIB,
            "fn f() {\n    x.expect(\n        \"x\",\n    )\n}",
            3,
            "fn f() {\n    x.expect(\n        \"it is\",\n    )\n}",
        ),
        case("unfinished", LIB, "fn f() { todo!() }", 2, "fn f() { \"todo!()\"; }"),
        case("unfinished", LIB, "fn f() { unimplemented!() }", 2, "// unimplemented!()"),
        case("unfinished", "xtask/src/a.rs", "fn f() { dbg!(x) }", 2, "fn f() { mydbg!(x) }"),
        case(
            "ignored-test",
            TEST,
            "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
            3,
            "#[test]\nfn f() {}",
        ),
        case("sleep", TEST, "fn f() { std::thread::sleep(d) }", 2, "fn sleep(d: u8) {}"),
        case(
            "sleep",
            LIB,
            "async fn f() { tokio::time::sleep(d).await }",
            2,
            "async fn f() { tokio::time::sleep(d).await } // a poll interval",
        ),
        case(
            "sleep",
            "services/a/src/lib.rs",
            "async fn f() {\n    time::sleep(d).await;\n}",
            3,
            "async fn f() {\n    // The delay that --delay asks for.\n    time::sleep(d).await;\n}",
        ),
        case("sleep", TEST, "async fn f() { sleep(d).await }", 2, "fn f() { clock.sleep(d) }"),
        case("print", LIB, "fn f() { println!() }", 2, "#[cfg(test)]\nfn f() { println!() }"),
        case("print", LIB, "fn f() { eprintln!(\"x\") }", 2, "fn f() { writeln!(w) }"),
        case("allow", LIB, "#[allow(dead_code)]", 2, "#[allow(dead_code)] // serde reads it"),
        case(
            "allow",
            LIB,
            "#[expect(\n    dead_code,\n)]",
            2,
            "#[expect(\n    dead_code,\n    reason = \"r\"\n)]",
        ),
    ]
}

fn lengths() -> Vec<Case> {
    let long_line = |columns: usize| format!("// {}", "ä".repeat(columns - 3));
    let statements = |lines: usize| "use a;\n".repeat(lines - 1);
    let with_tests =
        format!("{}#[cfg(test)]\nmod tests {{\n{}}}", statements(400), "\n".repeat(200));
    vec![
        case("function-length", TEST, &long_function(71), 2, &long_function(70)),
        case("line-length", TEST, &long_line(101), 2, &long_line(100)),
        (
            "line-length",
            "BUILD.bazel",
            format!("{}\n", "#".repeat(101)),
            1,
            format!("# https://example.com/{}\n", "x".repeat(100)),
        ),
        ("file-length", LIB, format!("//! Why.\n{}", statements(501)), 0, rust(&with_tests)),
    ]
}

fn layout() -> Vec<Case> {
    let text = str::to_owned;
    let cases = [
        ("file-head", LIB, "fn f() {}\n", 1, "//! Why.\nfn f() {}\n"),
        ("file-head", TEST, "// Why.\n", 1, "//! Why.\n"),
        ("file-head", "a.sh", "#!/bin/sh\nx\n", 1, "#!/bin/sh\n# Why.\nx\n"),
        ("module-name", "crates/a/src/utils.rs", "//! Why.\n", 0, ""),
        ("module-name", "crates/a/tests/common/mod.rs", "//! Why.\n", 0, ""),
        ("module-name", LIB, "//! Why.\npub mod misc {\n}\n", 2, "//! Why.\nmod commons;\n"),
        ("bazel", "crates/a/Cargo.toml", "", 0, ""),
        ("readme", "services/a/Cargo.toml", "", 0, ""),
        ("link", "docs/a.md", "[x](../README.md#top)\n", 1, "[x](https://a) [y](#b) [z](a.md)\n"),
        ("link", "a.md", "[x](../up.md)\n", 1, "```\n[x](../up.md)\n```\n"),
    ];
    cases.map(|(rule, path, bad, line, good)| (rule, path, text(bad), line, text(good))).into()
}

fn registry_hosts() -> Vec<Case> {
    let good = host("example", "com");
    let hosts =
        [("crates", "io"), ("index.crates", "io"), ("pypi", "org"), ("proxy.golang", "org")];
    hosts.map(|(n, d)| ("registry-host", "docs/a.md", host(n, d), 1, good.clone())).into()
}

fn core() -> Vec<Case> {
    let bad = [
        "use std::time::Instant;",
        "fn f() { std::time::SystemTime::now() }",
        "use std::net::{IpAddr, TcpStream};",
        "use std::thread;",
        "use tokio::sync::Notify;",
        "fn f() -> u64 { fastrand::u64(..) }",
        "fn f() { fastrand::Rng::new() }",
    ];
    let good = "use std::{net::SocketAddr, time::Duration};\nfn f(r: &mut fastrand::Rng) {}";
    bad.map(|line| case("core", CORE, line, 2, good)).into()
}

fn documents() -> Vec<Case> {
    let generated = "// Generated.\n#![allow(missing_docs)]\ninclude!(\"x.rs\");";
    let page = |block: &str| format!("<!-- diff: old.txt new.txt -->\n```diff\n{block}```\n");
    let good = page(" a\n-b\n+c\n");
    let mut cases = vec![
        case("documented", LIB, "// Why.\n#[allow(missing_docs)]\nenum E {}", 3, generated),
        case(
            "documented",
            LIB,
            "// Why.\n#![allow(unused, missing_docs)]\nmod m;",
            3,
            "#[allow(unused)] // missing_docs",
        ),
    ];
    let no_block = "<!-- diff: old.txt new.txt -->\n\n```diff\n a\n```\n".to_owned();
    for bad in [page(" a\n+c\n"), page(" a\n-b\n"), page(" a\n-b\n+c\n+d\n"), no_block] {
        cases.push(("diff", "docs/a.md", bad, 1, good.clone()));
    }
    cases
}

/// The findings of one file, with everything around it that the other rules want.
fn findings(path: &str, text: &str, rule: &str) -> Vec<(String, usize)> {
    let mut files = vec![(path.to_owned(), text.to_owned())];
    let of_diffs = [("old.txt", "a\nb\n"), ("new.txt", "a\nc\n")];
    files.extend(of_diffs.map(|(path, text)| (path.to_owned(), text.to_owned())));
    if let Some(folder) = path.strip_suffix("/Cargo.toml") {
        files.push((format!("{folder}/src/main.rs"), rust("")));
        let neighbours = ["BUILD.bazel", "README.md"].map(|name| format!("{folder}/{name}"));
        let missing = match rule {
            "bazel" => 0,
            "readme" => 1,
            _ => 2,
        };
        files.extend(
            neighbours
                .into_iter()
                .enumerate()
                .filter(|(n, _)| *n != missing)
                .map(|(_, path)| (path, String::new())),
        );
    }
    let found = check(&Tree::from_texts(files));
    found.into_iter().map(|f| (f.rule.to_owned(), f.line)).collect()
}

#[test]
fn every_rule_finds_its_planted_snippet_and_nothing_in_the_mended_one() {
    let cases = [calls(), lengths(), layout(), registry_hosts(), core(), documents()].concat();
    for (rule, path, bad, line, good) in &cases {
        let expected = [((*rule).to_owned(), *line)];
        let found = findings(path, bad, rule);
        assert_eq!(found.iter().collect::<BTreeSet<_>>(), expected.iter().collect(), "{bad}");
        // A name or a missing neighbour is mended at another path.
        match *rule {
            "bazel" | "readme" => assert_eq!(findings(path, good, "none"), []),
            "module-name" => assert_eq!(findings(LIB, &rust(good.as_str()), rule), []),
            _ => assert_eq!(findings(path, good, rule), [], "{good}"),
        }
    }
    let tried: BTreeSet<&str> = cases.iter().map(|case| case.0).collect();
    assert_eq!(tried, RULES.iter().map(|(name, _)| *name).collect(), "a rule without a snippet");
}

#[test]
fn walls_of_the_core_end_at_its_tests_and_its_folder() {
    let clock = "use std::time::Instant;";
    assert_eq!(findings(LIB, &rust(clock), "core"), []);
    assert_eq!(findings(CORE, &rust(&format!("#[cfg(test)]\n{clock}")), "core"), []);
}

#[test]
fn lock_files_may_name_registries() {
    assert_eq!(findings("Cargo.lock", &host("crates", "io"), "registry-host"), []);
}

#[test]
fn findings_name_file_line_rule_and_remedy() {
    let tree = Tree::from_texts([(LIB.to_owned(), rust("fn f() { todo!() }"))]);
    let shown = check(&tree)[0].to_string();
    let expected =
        "crates/a/src/lib.rs:2: unfinished: todo! is left over; finish it or leave it out";
    assert_eq!(shown, expected);
}
