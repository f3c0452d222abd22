//! Types, generics and bounds of rustdoc's JSON as Rust text. As short as Rust: std's types by
//! their last name, all others by their whole path.

use std::collections::BTreeMap;

use serde_json::Value;

/// Renders with the crate's table of paths.
pub(super) struct Types<'a> {
    paths: &'a Value,
    /// By id: the names that users have for the crate's own items, whatever private module these
    /// are in.
    pub(super) names: BTreeMap<String, String>,
}

/// The one entry of `{"kind": value}`, or a bare word.
fn tagged(value: &Value) -> (&str, &Value) {
    let object = value.as_object().and_then(|o| o.iter().next());
    object.map_or_else(|| (text(value), &Value::Null), |(kind, inner)| (kind.as_str(), inner))
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn is(value: &Value) -> bool {
    value.as_bool().unwrap_or_default()
}

fn joined<'a, I: IntoIterator<Item = &'a Value>>(
    items: I,
    between: &str,
    show: impl FnMut(&'a Value) -> String,
) -> String {
    items.into_iter().map(show).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(between)
}

impl<'a> Types<'a> {
    pub(super) fn new(described: &'a Value) -> Self {
        Self { paths: &described["paths"], names: BTreeMap::new() }
    }

    pub(super) fn show(&self, value: &Value) -> String {
        let (kind, inner) = tagged(value);
        match kind {
            "resolved_path" => self.path(inner),
            "generic" | "primitive" => text(inner).to_owned(),
            "infer" => "_".to_owned(),
            "tuple" => format!("({})", joined(list(inner), ", ", |t| self.show(t))),
            "slice" => format!("[{}]", self.show(inner)),
            "array" => format!("[{}; {}]", self.show(&inner["type"]), text(&inner["len"])),
            "impl_trait" => format!("impl {}", self.bounds(inner)),
            "dyn_trait" => {
                let traits = joined(list(&inner["traits"]), " + ", |t| self.path(&t["trait"]));
                match text(&inner["lifetime"]) {
                    "" => format!("dyn {traits}"),
                    lifetime => format!("dyn {traits} + {lifetime}"),
                }
            }
            "borrowed_ref" => {
                let lifetime = text(&inner["lifetime"]);
                let space = if lifetime.is_empty() { "" } else { " " };
                let mutable = if is(&inner["is_mutable"]) { "mut " } else { "" };
                format!("&{lifetime}{space}{mutable}{}", self.show(&inner["type"]))
            }
            "raw_pointer" => {
                let kind = if is(&inner["is_mutable"]) { "mut" } else { "const" };
                format!("*{kind} {}", self.show(&inner["type"]))
            }
            "qualified_path" => {
                let owner = self.show(&inner["self_type"]);
                let name = text(&inner["name"]);
                match self.path(&inner["trait"]) {
                    trait_ if trait_.is_empty() => format!("{owner}::{name}"),
                    trait_ => format!("<{owner} as {trait_}>::{name}"),
                }
            }
            "function_pointer" => format!("fn{}", self.signature(&inner["sig"])),
            // Better a line that looks odd than one that hides a change.
            _ => value.to_string(),
        }
    }

    /// A path with its arguments.
    pub(super) fn path(&self, path: &Value) -> String {
        if path.is_null() {
            return String::new();
        }
        let id = path["id"].to_string();
        if let Some(name) = self.names.get(&id) {
            return name.clone() + &self.arguments(&path["args"]);
        }
        let full = &self.paths[id]["path"];
        let parts: Vec<&str> = list(full).map(text).collect();
        let shown = match parts.first() {
            None => text(&path["path"]).to_owned(),
            Some(&("std" | "core" | "alloc")) => (*parts.last().unwrap_or(&"")).to_owned(),
            Some(_) => parts.join("::"),
        };
        shown + &self.arguments(&path["args"])
    }

    fn arguments(&self, args: &Value) -> String {
        let (kind, inner) = tagged(args);
        if kind == "parenthesized" {
            let inputs = joined(list(&inner["inputs"]), ", ", |t| self.show(t));
            return format!("({inputs}){}", self.output(&inner["output"]));
        }
        let mut shown: Vec<String> = list(&inner["args"])
            .map(|argument| match tagged(argument) {
                ("type", t) => self.show(t),
                ("const", c) => text(&c["expr"]).to_owned(),
                (_, lifetime) => text(lifetime).to_owned(),
            })
            .collect();
        shown.extend(list(&inner["constraints"]).map(|c| {
            let (kind, binding) = tagged(&c["binding"]);
            match kind {
                "equality" => {
                    // A term: a type as such or under its tag.
                    let (tag, term) = tagged(binding);
                    let term = if tag == "type" { term } else { binding };
                    format!("{} = {}", text(&c["name"]), self.show(term))
                }
                _ => format!("{}: {}", text(&c["name"]), self.bounds(binding)),
            }
        }));
        if shown.is_empty() { String::new() } else { format!("<{}>", shown.join(", ")) }
    }

    pub(super) fn bounds(&self, bounds: &Value) -> String {
        joined(list(bounds), " + ", |bound| match tagged(bound) {
            ("trait_bound", inner) => {
                let maybe = if text(&inner["modifier"]) == "maybe" { "?" } else { "" };
                format!("{maybe}{}", self.path(&inner["trait"]))
            }
            ("outlives", lifetime) => text(lifetime).to_owned(),
            _ => bound.to_string(),
        })
    }

    /// `<T: Bound>` and ` where …`.
    pub(super) fn generics(&self, generics: &Value) -> (String, String) {
        let parameters = joined(list(&generics["params"]), ", ", |parameter| {
            let name = text(&parameter["name"]);
            match tagged(&parameter["kind"]) {
                // The desugared form of an `impl Trait` argument, which the argument shows.
                ("type", kind) if is(&kind["is_synthetic"]) => String::new(),
                ("type", kind) => match self.bounds(&kind["bounds"]) {
                    bounds if bounds.is_empty() => name.to_owned(),
                    bounds => format!("{name}: {bounds}"),
                },
                ("const", kind) => format!("const {name}: {}", self.show(&kind["type"])),
                _ => name.to_owned(),
            }
        });
        let wheres = joined(list(&generics["where_predicates"]), ", ", |predicate| {
            match tagged(predicate) {
                ("bound_predicate", inner) => {
                    let bounds = self.bounds(&inner["bounds"]);
                    format!("{}: {bounds}", self.show(&inner["type"]))
                }
                ("lifetime_predicate", inner) => {
                    let outlives = joined(list(&inner["outlives"]), " + ", |l| text(l).to_owned());
                    format!("{}: {outlives}", text(&inner["lifetime"]))
                }
                _ => predicate.to_string(),
            }
        });
        let parameters = if parameters.is_empty() { parameters } else { format!("<{parameters}>") };
        let wheres = if wheres.is_empty() { wheres } else { format!(" where {wheres}") };
        (parameters, wheres)
    }

    /// `(a: A) -> B`.
    pub(super) fn signature(&self, signature: &Value) -> String {
        let inputs = joined(list(&signature["inputs"]), ", ", |input| {
            let (name, kind) = (text(&input[0]), self.show(&input[1]));
            match (name, kind.as_str()) {
                ("self", "Self") => "self".to_owned(),
                ("self", "&Self") => "&self".to_owned(),
                ("self", "&mut Self") => "&mut self".to_owned(),
                ("", _) => kind,
                // A parameter's name is no part of the API, but tells what it is.
                _ => format!("{name}: {kind}"),
            }
        });
        format!("({inputs}){}", self.output(&signature["output"]))
    }

    fn output(&self, output: &Value) -> String {
        if output.is_null() { String::new() } else { format!(" -> {}", self.show(output)) }
    }
}
