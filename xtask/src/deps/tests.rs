//! Each rule of `deps` is seen to fail on a planted graph or manifest.

use serde_json::{Value, json};

use super::{graph, manifests};
use crate::{metadata::Metadata, policy::Policy, tree::Tree};

const POLICY: &str = r#"
[licenses]
allow = ["MIT"]
[bans]
deny = [{ crate = "ginepro", reason = "r" }, { crate = "old@1.0.0", reason = "r" }]
skip = [{ crate = "twice@1.0.0", reason = "r" }]
[[bans.features]]
crate = "tower"
deny = ["balance"]
reason = "r"
"#;

/// A package `name@version` of a registry; ours (version 0.0.0) come from a folder.
fn package(spec: &str) -> Value {
    let (name, version) = spec.split_once('@').expect("specs have a version");
    let source = (version != "0.0.0").then_some("registry+https://example.com");
    json!({"id": spec, "name": name, "version": version, "license": "MIT", "source": source})
}

/// A node with its normal and its dev dependencies.
fn node(id: &str, deps: &[&str], dev: &[&str]) -> Value {
    let edge = |kind: Value| move |pkg: &&str| json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]});
    let edges: Vec<Value> =
        deps.iter().map(edge(Value::Null)).chain(dev.iter().map(edge("dev".into()))).collect();
    json!({"id": id, "deps": edges, "features": ["balance"]})
}

/// Rules and messages for a workspace of the core and `nodes`, after `change`.
fn found(nodes: &[Value], change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut nodes = nodes.to_vec();
    if !nodes.iter().any(|node| node["id"] == "evenkeel-core@0.0.0") {
        nodes.push(node("evenkeel-core@0.0.0", &[], &[]));
    }
    nodes.extend(["twice@1.0.0", "twice@2.0.0"].map(|id| node(id, &[], &[])));
    let id = |node: &Value| node["id"].as_str().expect("ids are text").to_owned();
    let ids: Vec<String> = nodes.iter().map(id).collect();
    let packages: Vec<Value> = ids.iter().map(|id| package(id)).collect();
    let members: Vec<&String> = ids.iter().filter(|id| id.ends_with("@0.0.0")).collect();
    let mut text = json!({
        "packages": packages, "workspace_members": members, "resolve": {"nodes": nodes}
    });
    change(&mut text);
    let metadata: Metadata = serde_json::from_value(text).expect("the planted graph is metadata");
    let policy: Policy = toml::from_str(POLICY).expect("the planted policy is one");
    let findings = graph(&policy, &metadata).expect("the graph has a core");
    findings.iter().map(|f| format!("{}: {}", f.rule, f.message)).collect()
}

fn assert_one(found: &[String], beginning: &str) {
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(beginning), "{found:?}");
}

#[test]
fn a_clean_graph_has_no_findings() {
    let nodes = [
        node("evenkeel@0.0.0", &["evenkeel-core@0.0.0", "h2@1.0.0"], &["evenkeel-server@0.0.0"]),
        node("evenkeel-server@0.0.0", &[], &["evenkeel@0.0.0"]),
        node("evenkeel-core@0.0.0", &[], &["h2@1.0.0"]),
        node("h2@1.0.0", &["tokio@1.0.0"], &[]),
        node("tokio@1.0.0", &[], &[]),
        node("old@2.0.0", &[], &[]),
    ];
    assert_eq!(found(&nodes, |_| ()), Vec::<String>::new());
}

#[test]
fn banned_packages_versions_and_features_are_found() {
    assert_one(&found(&[node("ginepro@1.0.0", &[], &[])], |_| ()), "ban: ginepro@1.0.0");
    assert_one(&found(&[node("old@1.0.0", &[], &[])], |_| ()), "ban: old@1.0.0");
    assert_one(&found(&[node("tower@1.0.0", &[], &[])], |_| ()), "feature: tower/balance is on");
}

#[test]
fn licences_and_sources_are_checked() {
    let nodes = [node("x@1.0.0", &[], &[])];
    let gpl = found(&nodes, |text| text["packages"][0]["license"] = "GPL-3.0".into());
    assert_one(&gpl, "licence: x@1.0.0: licence \"GPL-3.0\" is not in the allow list");
    let none = found(&nodes, |text| text["packages"][0]["license"] = Value::Null);
    assert_one(&none, "licence: x@1.0.0: licence \"\" can't be read");
    let git = found(&nodes, |text| text["packages"][0]["source"] = "git+https://x".into());
    assert_one(&git, "source: x@1.0.0 comes from git+https://x");
}

#[test]
fn second_versions_are_listed_and_the_list_is_not_stale() {
    let nodes = ["y@1.0.0", "y@2.0.0"].map(|id| node(id, &[], &[]));
    assert_one(&found(&nodes, |_| ()), "duplicate: y@1.0.0, y@2.0.0: several versions");
    let gone = found(&[], |text| {
        let packages = text["packages"].as_array_mut().expect("it is a list");
        packages.retain(|package| package["version"] != "2.0.0");
    });
    assert_one(&gone, "duplicate: twice@1.0.0 is no second version");
}

#[test]
fn our_packages_lean_downwards_only() {
    let up = [node("evenkeel@0.0.0", &["lab@0.0.0"], &[]), node("lab@0.0.0", &[], &[])];
    assert_one(&found(&up, |_| ()), "direction: evenkeel depends on lab");
    let unknown = [node("novel@0.0.0", &[], &[])];
    assert_one(&found(&unknown, |_| ()), "direction: novel@0.0.0: has no height");
}

#[test]
fn the_core_pulls_in_no_runtime_even_through_others() {
    let nodes = [
        node("evenkeel-core@0.0.0", &["x@1.0.0"], &[]),
        node("x@1.0.0", &["tokio@1.0.0"], &[]),
        node("tokio@1.0.0", &[], &[]),
    ];
    assert_one(&found(&nodes, |_| ()), "core: evenkeel-core pulls in tokio");
}

#[test]
fn dependencies_are_declared_at_the_root_and_used() {
    let check = |manifest: &str, code: &str| {
        let files = [
            ("Cargo.toml", "[workspace.dependencies]\nh2 = \"0.4\"\n"),
            ("a/Cargo.toml", manifest),
            ("a/src/lib.rs", code),
        ];
        let mut findings = Vec::new();
        let tree = Tree::from_texts(files.map(|(p, t)| (p.to_owned(), t.to_owned())));
        manifests::check(&tree, &mut findings).expect("the planted manifests are TOML");
        findings.iter().map(|f| format!("{}: {}", f.rule, f.message)).collect::<Vec<_>>()
    };
    let inherited = "[dev-dependencies]\nh2.workspace = true\n";
    assert_eq!(check(inherited, "use h2::client;"), Vec::<String>::new());
    assert_one(&check(inherited, "// h2"), "unused-dependency: h2 is not used");
    for own in ["h2 = \"0.4\"", "h2 = { workspace = true, features = [\"stream\"] }"] {
        let manifest = format!("[dependencies]\n{own}\n");
        assert_one(&check(&manifest, "use h2::client;"), "workspace-dependency: h2: expected");
    }
    assert_one(&check("", ""), "unused-dependency: h2: no package");
    let optional = "[dependencies]\nh2 = { workspace = true, optional = true }\n";
    assert_eq!(check(optional, "use h2::client;"), Vec::<String>::new());
}

#[test]
fn the_crypto_provider_is_chosen_by_processes_and_tests_and_by_no_library() {
    let check = |folder: &str, table: &str, feature: &str| {
        let manifest =
            format!("[{table}]\nrustls = {{ workspace = true, features = [\"{feature}\"] }}\n");
        let files = [
            ("Cargo.toml".to_owned(), "[workspace.dependencies]\nrustls = \"0.23\"\n".to_owned()),
            (format!("{folder}/Cargo.toml"), manifest),
            (format!("{folder}/src/lib.rs"), "use rustls::crypto;".to_owned()),
        ];
        let mut findings = Vec::new();
        manifests::check(&Tree::from_texts(files), &mut findings).expect("TOML");
        findings.iter().map(|f| format!("{}: {}", f.rule, f.message)).collect::<Vec<_>>()
    };
    assert_eq!(check("services/greeter", "dependencies", "ring"), Vec::<String>::new());
    assert_eq!(check("crates/evenkeel", "dev-dependencies", "ring"), Vec::<String>::new());
    let refused = "workspace-dependency: rustls: expected";
    assert_one(&check("crates/evenkeel", "dependencies", "ring"), refused);
    assert_one(&check("services/greeter", "dependencies", "tls12"), refused);
}
