//! The listing of a small crate's description, and the comparison with what is known.

use serde_json::json;

use super::{compare, walk::listing};

/// What rustdoc writes for a crate `a` with a struct that has a method and a field, re-exported
/// under another name, and a private module.
fn described() -> serde_json::Value {
    let item = |name: &str, visibility: &str, inner: serde_json::Value| {
        let attrs: [&str; 0] = [];
        json!({ "name": name, "visibility": visibility, "attrs": attrs, "inner": inner })
    };
    let none = json!({ "params": [], "where_predicates": [] });
    let duration = json!({ "resolved_path": { "path": "Duration", "id": 90, "args": null } });
    let class = json!({ "resolved_path": { "path": "Thing", "id": 2, "args": null } });
    let mut thing = item(
        "Thing",
        "public",
        json!({ "struct": {
            "kind": { "plain": { "fields": [3], "has_stripped_fields": true } },
            "generics": none, "impls": [4, 6],
        } }),
    );
    thing["attrs"] = json!(["non_exhaustive"]);
    thing["id"] = json!(2);
    json!({
        "root": 0,
        "paths": {
            "2": { "path": ["a", "hidden", "Thing"] },
            "90": { "path": ["core", "time", "Duration"] },
            "91": { "path": ["core", "marker", "Send"] },
        },
        "index": {
            "0": item("a", "public", json!({ "module": { "items": [1, 7] } })),
            "1": item("", "public", json!({ "use": {
                "source": "hidden::Thing", "name": "Renamed", "id": 2, "is_glob": false } })),
            "2": thing,
            "3": item("wait", "public", json!({ "struct_field": duration })),
            "4": item("", "default", json!({ "impl": {
                "trait": null, "blanket_impl": null, "items": [5], "for": class } })),
            "5": item("waits", "public", json!({ "function": {
                "sig": {
                    "inputs": [["self", { "borrowed_ref": {
                        "lifetime": null, "is_mutable": false, "type": { "generic": "Self" } } }],
                        ["most", duration]],
                    "output": { "primitive": "bool" },
                },
                "generics": none,
                "header": { "is_const": true, "is_async": false, "is_unsafe": false },
            } })),
            "6": item("", "default", json!({ "impl": {
                "trait": { "path": "Send", "id": 91, "args": null }, "blanket_impl": null,
                "is_negative": false, "generics": none, "items": [], "for": class } })),
            "7": item("hidden", "crate", json!({ "module": { "items": [2] } })),
        },
    })
}

#[test]
fn lists_what_a_user_can_name_and_how() {
    let wanted = [
        "#[non_exhaustive] struct a::Renamed",
        "const fn a::Renamed::waits(&self, most: Duration) -> bool",
        "field a::Renamed::wait: Duration",
        "impl Send for a::Renamed",
        "struct a::Renamed has private fields",
    ];
    assert_eq!(listing(&described()).expect("a valid description"), wanted);
}

#[test]
fn a_description_of_another_form_is_an_error() {
    let mut empty = described();
    empty["index"]["0"]["inner"] = json!({ "module": { "items": [] } });
    assert!(listing(&empty).expect_err("nothing public").contains("names no public item"));
    assert!(listing(&json!({})).expect_err("no root").contains("no root"));
}

#[test]
fn what_is_gone_and_what_is_new_are_told_apart() {
    let known = "# head\n#[non_exhaustive] enum a::Kept\nfn a::gone()\n";
    let now = ["#[non_exhaustive] enum a::Kept".to_owned(), "fn a::new()".to_owned()];
    let mut findings = Vec::new();
    compare("crates/a/api.txt", known, &now, &mut findings);
    let shown: Vec<_> = findings.iter().map(|f| (f.rule, f.line)).collect();
    assert_eq!(shown, [("api-removed", 3), ("api-added", 0)]);
    assert!(findings[0].message.starts_with("no longer there: fn a::gone();"));
    compare("crates/a/api.txt", known, &now[..1], &mut findings);
    assert_eq!(findings.len(), 3, "only what is gone");
}
