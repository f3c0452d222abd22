//! Each rule is seen to fail: a small project in which everything agrees, and one change of one
//! text for each way to disagree.

use std::collections::BTreeSet;

use super::{RULES, check};
use crate::tree::Tree;

mod project;

/// (the rule that finds it, the file, its text, what stands there instead)
type Plant = (&'static str, &'static str, &'static str, &'static str);

/// The project with one text replaced, or with the file gone where there is no text to replace.
fn planted((_, path, old, new): Plant) -> Tree {
    let mut files = project::files();
    let at = files.iter().position(|(name, _)| *name == path).expect(path);
    if old.is_empty() && new.is_empty() {
        files.remove(at);
    } else {
        assert!(files[at].1.contains(old), "{path} has no {old:?}");
        files[at].1 = files[at].1.replacen(old, new, 1);
    }
    tree(files)
}

fn tree(files: Vec<(&'static str, String)>) -> Tree {
    Tree::from_texts(files.into_iter().map(|(path, text)| (path.to_owned(), text)))
}

/// Plants each, and expects findings of its rule and of no other.
fn are_found(plants: &[Plant]) {
    for plant in plants {
        let findings = check(&planted(*plant)).expect("the project can be read");
        let rules: BTreeSet<&str> = findings.iter().map(|finding| finding.rule).collect();
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(rules, BTreeSet::from([plant.0]), "{plant:?}: {shown:#?}");
    }
}

#[test]
fn nothing_is_found_where_everything_agrees() {
    assert_eq!(check(&tree(project::files())), Ok(vec![]));
}

const CLIENT: &str = "services/client/BUILD.bazel";
const CORE: &str = "crates/core/BUILD.bazel";

const CRATES: [Plant; 21] = [
    ("members", "Cargo.toml", "\"crates/core\", ", ""),
    ("members", "benches/Cargo.toml", "[workspace]", ""),
    ("members", "benches/BUILD.bazel", "#", "rust_library(name = \"benches\")\n#"),
    ("targets", "services/greeter/BUILD.bazel", "\"greeter\"", "\"greater\""),
    ("targets", CORE, "rust_test(", "filegroup("),
    ("targets", CORE, "rust_test_suite(", "filegroup("),
    ("targets", CORE, "rust_doc_test(", "filegroup("),
    ("targets", CLIENT, "rust_binary(", "rust_program("),
    ("dependencies", CLIENT, "\"//crates/core\"", ""),
    ("dependencies", CLIENT, "deps = [\":client_lib\"]", "deps = [\":client_lib\", \"//lab\"]"),
    ("dependencies", CLIENT, ", \"//services/greeter:greeter_lib\"", ""),
    ("dependencies", CORE, "\":core\"]", "\":core\", \"//lab\"]"),
    ("dependencies", "services/client/Cargo.toml", "core.workspace = true", ""),
    ("features", CORE, "crate_features = [\"tls\"]", ""),
    ("features", CORE, "crate_features = [\"tls\"]", "crate_features = [\"tls\", \"fast\"]"),
    ("features", "Cargo.toml", "features = [\"tls\"]", "features = []"),
    ("programs", "nix/programs.nix", "\"greeter\"", ""),
    ("programs", "nix/programs.nix", "../services", "../lab"),
    ("programs", "BUILD.bazel", "\"//services/greeter\"", ""),
    ("labels", CLIENT, "\":client_lib\"]", "\":client_library\"]"),
    ("labels", CLIENT, "data = [\"tests/a.json\"]", "data = [\"tests/b.json\"]"),
];

#[test]
fn crate_lists_targets_dependencies_and_features_that_differ_are_found() {
    // Without its member, what depends on it is wrong as well.
    let (first, rest) = CRATES.split_first().expect("there are some");
    let findings = check(&planted(*first)).expect("the project can be read");
    assert!(findings.iter().any(|finding| finding.rule == "members"), "{findings:?}");
    are_found(rest);
}

#[test]
fn a_program_without_a_target_is_found() {
    let mut files = project::files();
    files.push(("services/client/src/bin/extra.rs", "//! Why.\n".to_owned()));
    let findings = check(&tree(files)).expect("the project can be read");
    let shown = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let expected = "services/client/BUILD.bazel:0: targets: expected a rust_binary extra of \
                    src/bin/extra.rs";
    assert_eq!(shown, expected);
}

const TAGS: &str = "kustomize/components/images/kustomization.yaml";

#[test]
fn versions_that_differ_are_found() {
    are_found(&[
        ("versions", "MODULE.bazel", "version = \"0.1.0\"", "version = \"0.2.0\""),
        ("versions", "MODULE.bazel", "\"1.95.0\"", "\"1.96.0\""),
        ("versions", "MODULE.bazel", "edition = \"2024\"", "edition = \"2021\""),
        ("versions", "MODULE.bazel", "\"aarch64-unknown-linux-gnu\"", ""),
        ("versions", "flake.nix", "\"aarch64-linux\"", ""),
        ("versions", CORE, "edition = \"2024\"", "edition = \"2021\""),
        ("versions", "rust-toolchain.toml", "1.95.0", "1.94.0"),
        (
            "versions",
            "Cargo.toml",
            "version = \"0.1.0\", features",
            "version = \"0.2.0\", features",
        ),
        ("versions", "crates/core/Cargo.toml", "version.workspace = true", "version = \"0.1.0\""),
        ("versions", "benches/Cargo.toml", "http = \"1.5\"", "http = \"1.4\""),
        ("versions", "benches/Cargo.toml", "edition = \"2024\"", "edition = \"2021\""),
        ("versions", TAGS, "newTag: 0.1.0", "newTag: 0.2.0"),
        ("versions", TAGS, "version: 0.1.0 ", "version: 0.2.0 "),
        ("versions", TAGS, "v1.40.0", "v1.39.0"),
        ("versions", "envoy/requirements.txt", "1.40.0", "1.41.0"),
        ("versions", "README.md", "Rust 1.95", "Rust 1.94"),
        ("versions", "docs/versions.md", "MSRV: 1.95", "MSRV: 1.94"),
    ]);
}

#[test]
fn images_that_differ_are_found() {
    let server = "kustomize/base/greeter/deployment.yaml";
    are_found(&[
        ("images", TAGS, "- { name: evenkeel-client, newTag: 0.1.0 }", ""),
        ("images", TAGS, "images:", "images:\n- { name: evenkeel-other, newTag: 0.1.0 }"),
        ("images", "kustomize/components/sidecar/pod.yaml", "envoyproxy/envoy", "envoy"),
        ("images", ".github/workflows/release.yml", "client, greeter", "greeter"),
        ("images", ".github/workflows/hermetic.yml", ".#client-image", ""),
        ("images", "docs/images.md", "`evenkeel-client`", "`client`"),
    ]);
    // The container is of no program of ours then, so that its ports say nothing either.
    let plant = ("images", server, "image: evenkeel-greeter", "image: evenkeel-greter");
    let findings = check(&planted(plant)).expect("the project can be read");
    let message = "the image evenkeel-greter has no tag in kustomize/components/images";
    assert!(findings.iter().any(|finding| finding.message.starts_with(message)), "{findings:?}");
}

#[test]
fn an_image_of_no_program_is_an_error() {
    let plant = ("", "nix/images.toml", "program = \"client\"", "program = \"clint\"");
    let error = check(&planted(plant)).unwrap_err();
    assert!(error.starts_with("services/clint/src: expected flags"), "{error}");
}

#[test]
fn ports_that_differ_are_found() {
    let server = "kustomize/base/greeter/deployment.yaml";
    let service = "kustomize/base/greeter/service.yaml";
    let sidecar = "kustomize/components/sidecar/pod.yaml";
    are_found(&[
        (
            "ports",
            server,
            "readinessProbe: { grpc: { port: 8000 } }",
            "readinessProbe: { grpc: { port: 8001 } }",
        ),
        ("ports", service, "port: 8000", "port: 8080"),
        ("ports", service, "targetPort: grpc", "targetPort: http"),
        (
            "ports",
            "kustomize/base/client/deployment.yaml",
            "greeter-server:8000",
            "greeter-server:8080",
        ),
        ("ports", sidecar, "localhost:10000", "localhost:10001"),
        ("ports", sidecar, "port: 10000", "port: 10001"),
        ("ports", "envoy/sidecar.yaml", "port_value: 8000", "port_value: 9000"),
        ("ports", "services/greeter/README.md", "on port 8000", "on port 80"),
        ("ports", "kustomize/overlays/round-robin/sidecar.yaml", "number: 8000", "number: 80"),
    ]);
}

#[test]
fn settings_that_differ_are_found() {
    let page = "services/greeter/README.md";
    let client = "kustomize/base/client/deployment.yaml";
    are_found(&[
        ("environment", client, "GREETER_TARGET", "GREETER_TARGETS"),
        ("environment", client, "--count=0", "--counts=0"),
        ("environment", "kustomize/components/otel/patch.yaml", "OTEL_NAME", "OTLE_NAME"),
        ("readme", page, "`GREETER_LISTEN`", "`GREETER_PORT`"),
        ("readme", page, "`--listen`", "`--listens`"),
        ("readme", page, "`0.0.0.0:8000`", "`0.0.0.0:80`"),
        ("readme", page, "| `GREETER_DELAY` | `--delay` | `0s` | |\n", ""),
    ]);
}

#[test]
fn examples_and_apps_that_differ_are_found() {
    let apps = "nix/scripts.nix";
    let overlay = "kustomize/overlays/round-robin/kustomization.yaml";
    are_found(&[
        ("examples", apps, "round-robin.example = 1;", ""),
        ("examples", apps, "mesh-like.example = 4;", "mesh-like.example = 5;"),
        (
            "examples",
            apps,
            "round-robin.example = 1;",
            "round-robin.example = 1;\n    new.example = 9;",
        ),
        ("examples", apps, "mesh-like.client = \"greeter-client-with-it\";", ""),
        ("examples", overlay, "# Example 1", "# Example 2"),
        (
            "examples",
            "kustomize/README.md",
            "| `overlays/round-robin` | 1 |",
            "| `overlays/round-robin` | 2 |",
        ),
        ("examples", "README.md", "| 1 `round-robin` |", "| 2 `round-robin` |"),
        (
            "examples",
            "kustomize/overlays/round-robin/client/kustomization.yaml",
            "-round-robin",
            "-rr",
        ),
    ]);
}

#[test]
fn metrics_that_no_program_has_and_alerts_without_a_runbook_are_found() {
    let alerts = "docs/observability/alerts.yaml";
    let dashboard = "docs/observability/dashboard.json";
    are_found(&[
        ("metrics", alerts, "attempt_started_total", "attempt_started"),
        ("metrics", alerts, "grpc_client_attempt", "grpc_client_attempts"),
        ("metrics", alerts, "#toofew", "#few"),
        ("metrics", dashboard, "seconds_sum", "sum"),
        ("metrics", dashboard, "grpc_client_call_duration_seconds_sum", "up"),
        ("metrics", "docs/observability/README.md", "## TooFew", "## TooMany"),
    ]);
}

#[test]
fn files_that_nix_names_are_there() {
    are_found(&[("nix-files", "nix/scripts.nix", "./deploy.sh", "./deplay.sh")]);
}

#[test]
fn what_can_not_be_read_is_an_error_with_its_file() {
    for (path, old, new, says) in [
        ("crates/core/Cargo.toml", "[package]", "[package", "crates/core/Cargo.toml: "),
        (CORE, "rust_library(", "rust_library((", "crates/core/BUILD.bazel: line "),
        (TAGS, "images:", "images: [", TAGS),
        ("nix/scripts.nix", "", "", "nix/scripts.nix does not exist"),
        (
            "kustomize/overlays/round-robin/kustomization.yaml",
            "# Example 1",
            "# 1",
            "# Example NUMBER",
        ),
    ] {
        let error = check(&planted(("", path, old, new))).expect_err(path);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn each_rule_has_a_plant() {
    let here = include_str!("tests.rs");
    for (rule, _) in RULES {
        assert!(here.contains(&format!("\"{rule}\",")), "no plant for {rule}");
    }
}
