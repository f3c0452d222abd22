//! From the crate's root over everything that a user can name: one line for each item, sorted, so
//! that two listings differ where the API differs and nowhere else.

use serde_json::Value;

use super::types::{Types, list, text};

/// Implementations that every type has, or that no user asks for.
const DULL_TRAITS: [&str; 5] =
    ["Freeze", "RefUnwindSafe", "StructuralPartialEq", "UnsafeUnpin", "UnwindSafe"];

/// The lines of a crate's API.
///
/// # Errors
///
/// The JSON is of another form than rustdoc's.
pub(super) fn listing(described: &Value) -> Result<Vec<String>, String> {
    let mut walk = Walk {
        index: &described["index"],
        types: Types::new(described),
        lines: Vec::new(),
        depth: 0,
    };
    let root = walk.item(&described["root"]).ok_or("rustdoc's JSON has no root")?;
    let name = text(&root["name"]).to_owned();
    // The first round finds under which names the items are public, the second shows them so.
    for _ in 0..2 {
        walk.lines.clear();
        walk.module(&root["inner"]["module"], &name);
    }
    if walk.lines.is_empty() {
        return Err(format!("{name}: rustdoc's JSON names no public item; has its form changed?"));
    }
    walk.lines.sort();
    walk.lines.dedup();
    Ok(walk.lines)
}

/// Modules that re-export each other would be walked for ever.
const DEPTH_MAX: usize = 32;

struct Walk<'a> {
    index: &'a Value,
    types: Types<'a>,
    lines: Vec<String>,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn item(&self, id: &Value) -> Option<&'a Value> {
        self.index.get(id.to_string())
    }

    fn items(&self, ids: &'a Value) -> impl Iterator<Item = &'a Value> + use<'a> {
        let index = self.index;
        list(ids).filter_map(move |id| index.get(id.to_string()))
    }

    fn line(&mut self, item: &Value, rest: impl AsRef<str>) {
        let marks = list(&item["attrs"]).map(Value::to_string);
        let open = marks.filter(|mark| mark == "\"non_exhaustive\"").count() > 0;
        let mark = if open { "#[non_exhaustive] " } else { "" };
        self.lines.push(format!("{mark}{}", rest.as_ref()));
    }

    fn module(&mut self, module: &'a Value, path: &str) {
        if self.depth == DEPTH_MAX {
            return;
        }
        self.depth += 1;
        for item in self.items(&module["items"]) {
            self.named(item, path, text(&item["name"]));
        }
        self.depth -= 1;
    }

    /// An item under a name, which a re-export may change.
    fn named(&mut self, item: &'a Value, parent: &str, name: &str) {
        let path = format!("{parent}::{name}");
        let Some((kind, inner)) = item["inner"].as_object().and_then(|o| o.iter().next()) else {
            return;
        };
        let public = text(&item["visibility"]) == "public";
        if public && kind != "use" {
            self.types.names.entry(item["id"].to_string()).or_insert_with(|| path.clone());
        }
        match kind.as_str() {
            _ if !public => {}
            "module" => {
                self.line(item, format!("mod {path}"));
                self.module(inner, &path);
            }
            "use" => self.re_export(inner, parent),
            "struct" => self.structure(item, inner, &path),
            "enum" => self.enumeration(item, inner, &path),
            "trait" => self.trait_(item, inner, &path),
            "function" => self.function(item, inner, &path),
            "constant" | "static" => {
                let shown = self.types.show(&inner["type"]);
                self.line(item, format!("{kind} {path}: {shown}"));
            }
            "type_alias" => {
                let (parameters, _) = self.types.generics(&inner["generics"]);
                let shown = self.types.show(&inner["type"]);
                self.line(item, format!("type {path}{parameters} = {shown}"));
            }
            other => self.line(item, format!("{other} {path}")),
        }
    }

    fn re_export(&mut self, inner: &'a Value, parent: &str) {
        let glob = inner["is_glob"].as_bool().unwrap_or_default();
        match self.item(&inner["id"]) {
            Some(item) if glob => self.module(&item["inner"]["module"], parent),
            Some(item) => self.named(item, parent, text(&inner["name"])),
            // Of another crate.
            None => {
                let star = if glob { "::*" } else { "" };
                let (source, name) = (text(&inner["source"]), text(&inner["name"]));
                self.lines.push(format!("use {parent}::{name} = {source}{star}"));
            }
        }
    }

    fn structure(&mut self, item: &Value, inner: &'a Value, path: &str) {
        let (parameters, wheres) = self.types.generics(&inner["generics"]);
        self.line(item, format!("struct {path}{parameters}{wheres}"));
        let kind = &inner["kind"];
        self.fields(kind, path);
        let hidden = kind["plain"]["has_stripped_fields"].as_bool().unwrap_or_default();
        if hidden {
            self.lines.push(format!("struct {path} has private fields"));
        }
        self.impls(&inner["impls"], path);
    }

    /// Of a struct or of a variant.
    fn fields(&mut self, kind: &'a Value, path: &str) {
        for holder in [&kind["plain"]["fields"], &kind["struct"]["fields"], &kind["tuple"]] {
            for field in self.items(holder) {
                let shown = self.types.show(&field["inner"]["struct_field"]);
                self.line(field, format!("field {path}::{}: {shown}", text(&field["name"])));
            }
        }
    }

    fn enumeration(&mut self, item: &Value, inner: &'a Value, path: &str) {
        let (parameters, wheres) = self.types.generics(&inner["generics"]);
        self.line(item, format!("enum {path}{parameters}{wheres}"));
        for variant in self.items(&inner["variants"]) {
            let name = format!("{path}::{}", text(&variant["name"]));
            self.line(variant, format!("variant {name}"));
            self.fields(&variant["inner"]["variant"]["kind"], &name);
        }
        self.impls(&inner["impls"], path);
    }

    fn trait_(&mut self, item: &Value, inner: &'a Value, path: &str) {
        let (parameters, wheres) = self.types.generics(&inner["generics"]);
        let bounds = self.types.bounds(&inner["bounds"]);
        let bounds = if bounds.is_empty() { bounds } else { format!(": {bounds}") };
        self.line(item, format!("trait {path}{parameters}{bounds}{wheres}"));
        for member in self.items(&inner["items"]) {
            self.member(member, path);
        }
    }

    /// Of a trait or of an `impl`.
    fn member(&mut self, member: &'a Value, path: &str) {
        let path = format!("{path}::{}", text(&member["name"]));
        let inner = &member["inner"];
        if let Some(function) = inner.get("function") {
            self.function(member, function, &path);
        } else if let Some(constant) = inner.get("assoc_const") {
            let shown = self.types.show(&constant["type"]);
            self.line(member, format!("const {path}: {shown}"));
        } else if let Some(kind) = inner.get("assoc_type") {
            let shown = match &kind["type"] {
                Value::Null => format!(": {}", self.types.bounds(&kind["bounds"])),
                one => format!(" = {}", self.types.show(one)),
            };
            self.line(member, format!("type {path}{shown}"));
        }
    }

    fn function(&mut self, item: &Value, inner: &Value, path: &str) {
        let header = &inner["header"];
        let mut words = String::new();
        for (key, word) in
            [("is_const", "const "), ("is_async", "async "), ("is_unsafe", "unsafe ")]
        {
            words += if header[key].as_bool().unwrap_or_default() { word } else { "" };
        }
        let (parameters, wheres) = self.types.generics(&inner["generics"]);
        let signature = self.types.signature(&inner["sig"]);
        self.line(item, format!("{words}fn {path}{parameters}{signature}{wheres}"));
    }

    fn impls(&mut self, impls: &'a Value, path: &str) {
        for item in self.items(impls) {
            let inner = &item["inner"]["impl"];
            if !inner["blanket_impl"].is_null() {
                continue;
            }
            if inner["trait"].is_null() {
                for member in
                    self.items(&inner["items"]).filter(|m| text(&m["visibility"]) == "public")
                {
                    self.member(member, path);
                }
                continue;
            }
            let trait_ = self.types.path(&inner["trait"]);
            if DULL_TRAITS.contains(&trait_.as_str()) {
                continue;
            }
            let not = if inner["is_negative"].as_bool().unwrap_or_default() { "!" } else { "" };
            let (parameters, wheres) = self.types.generics(&inner["generics"]);
            let owner = self.types.show(&inner["for"]);
            self.lines.push(format!("impl{parameters} {not}{trait_} for {owner}{wheres}"));
            for member in
                self.items(&inner["items"]).filter(|m| m["inner"].get("assoc_type").is_some())
            {
                self.member(member, &format!("<{path} as {trait_}>"));
            }
        }
    }
}
