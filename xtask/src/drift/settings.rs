//! Flags and environment: what the programs' sources declare, against the tables of their READMEs
//! and what manifests set. Each service has a test that compares its table with clap's own command;
//! that test is the service's, and can't see a manifest. Here the sources are read, because a task
//! that linked every service would be built anew with each of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Project, yaml};
use crate::{Finding, source::Source, tree::Tree};

/// Variables that the programs' libraries read themselves: log filters, and what OpenTelemetry's
/// specification gives to every SDK.
const EVERYWHERE: [&str; 3] = ["OTEL_", "RUST_BACKTRACE", "RUST_LOG"];

/// A flag of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Setting {
    /// Its environment variable.
    pub(super) variable: Option<String>,
    /// Its default, as it is written.
    pub(super) default: Option<String>,
}

/// A service's program: its flags, without the dashes.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) flags: BTreeMap<String, Setting>,
}

impl Program {
    /// The variables that it reads.
    fn reads(&self, variable: &str) -> bool {
        EVERYWHERE.iter().any(|known| variable.starts_with(known))
            || self.flags.values().any(|flag| flag.variable.as_deref() == Some(variable))
    }

    /// The port that it listens on by default.
    pub(super) fn port(&self) -> Option<u64> {
        let listen = self.flags.get("listen")?.default.as_deref()?;
        listen.rsplit(':').next()?.parse().ok()
    }
}

/// The flags of each program, from services/PROGRAM/src.
///
/// # Errors
///
/// A program has no flags, so that there would be nothing to compare.
pub(super) fn programs<'a>(
    tree: &Tree,
    names: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, Program>, String> {
    let read = |name: &String| {
        let flags = flags_below(tree, &format!("services/{name}/src/"));
        if flags.is_empty() {
            return Err(format!("services/{name}/src: expected flags (#[arg(long, …)])"));
        }
        Ok((name.clone(), Program { flags }))
    };
    names.map(read).collect()
}

fn flags_below(tree: &Tree, folder: &str) -> BTreeMap<String, Setting> {
    let sources = tree.sources().filter(|(path, _)| path.starts_with(folder));
    sources.flat_map(|(_, source)| flags(source)).collect()
}

/// `#[arg(long, env = "X", default_value = "y")]` and the field below it.
fn flags(source: &Source) -> Vec<(String, Setting)> {
    let mut flags = Vec::new();
    let (mut attribute, mut depth) = (String::new(), 0_i32);
    for (_, line) in source.production() {
        let code = line.code.trim();
        let begins = code.starts_with("#[arg(");
        if begins || depth > 0 {
            attribute.push_str(&line.raw);
            depth += code.chars().map(|c| i32::from(c == '(') - i32::from(c == ')')).sum::<i32>();
        } else if !attribute.is_empty() && !code.is_empty() && !code.starts_with("#[") {
            let field = code.split(':').next().and_then(|left| left.split_whitespace().last());
            flags.extend(field.and_then(|field| setting(&attribute, field)));
            attribute.clear();
        }
    }
    flags
}

fn setting(attribute: &str, field: &str) -> Option<(String, Setting)> {
    let value = |key: &str| {
        let (_, after) = attribute.split_once(&format!("{key} = \""))?;
        after.split('"').next().map(str::to_owned)
    };
    let long = crate::source::has_word(attribute, "long").then(|| field.replace('_', "-"));
    let name = value("long").or(long)?;
    Some((name, Setting { variable: value("env"), default: value("default_value") }))
}

/// A row of a README's table: `--flag`, `VARIABLE` and the whole row.
fn rows(page: &str) -> impl Iterator<Item = (usize, &str, Option<&str>, &str)> {
    page.lines().enumerate().filter_map(|(n, line)| {
        let cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let (mut flag, mut variable) = (None, None);
        for text in cells.filter_map(|cell| cell.strip_prefix('`')) {
            let word = text.split(['`', ' ']).next().unwrap_or_default();
            if let Some(name) = word.strip_prefix("--") {
                flag = flag.or(Some(name));
            } else if word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                variable = variable.or(Some(word));
            }
        }
        Some((n + 1, flag?, variable, line))
    })
}

/// The tables of the READMEs.
pub(super) fn readme(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    // Flags that several programs take from one place.
    let mut shared = flags_below(project.tree, "crates/");
    shared.extend(flags_below(project.tree, "services/program/src/"));
    for (name, program) in &project.programs {
        let path = format!("services/{name}/README.md");
        let page = project.text(&path)?;
        let mut seen = BTreeSet::new();
        for (line, flag, variable, row) in rows(page) {
            let mut report =
                |message: String| out.push(Finding::new(&path, line, "readme", message));
            seen.insert(flag);
            let Some(setting) = program.flags.get(flag).or(shared.get(flag)) else {
                report(format!("--{flag} is no flag of {name}"));
                continue;
            };
            if setting.variable.as_deref() != variable {
                let (table, source) = (variable.unwrap_or("none"), &setting.variable);
                let source = source.as_deref().unwrap_or("none");
                report(format!("--{flag}: the variable is {table} here and {source} in src/"));
            }
            let default = setting.default.as_ref().map(|default| format!("`{default}`"));
            if let Some(default) = default.filter(|default| !row.contains(default)) {
                report(format!("--{flag}: src/ has the default {default}"));
            }
        }
        for flag in program.flags.keys().filter(|flag| !seen.contains(flag.as_str())) {
            let message = format!("has no row for --{flag}");
            out.push(Finding::new(&path, 0, "readme", message));
        }
    }
    Ok(())
}

/// The program of each container, by the name that patches use, from the bases.
pub(super) fn containers<'a>(project: &'a Project<'_>) -> BTreeMap<&'a str, &'a str> {
    let mut containers = BTreeMap::new();
    for document in project.manifests.values().flatten() {
        yaml::mappings(document, &mut |map| {
            let image = yaml::text(map, "image").and_then(|image| project.images.get(image));
            if let (Some(name), Some(program)) = (yaml::text(map, "name"), image) {
                containers.insert(name, program.as_str());
            }
        });
    }
    containers
}

/// What manifests set is read by the program that it is set for.
pub(super) fn environment(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let containers = containers(project);
    for (path, documents) in &project.manifests {
        let mut report = |message: String| out.push(Finding::new(path, 0, "environment", message));
        for document in documents {
            yaml::mappings(document, &mut |map| {
                let program = yaml::text(map, "name").and_then(|name| containers.get(name));
                match program {
                    Some(program) => of_container(project, program, map, &mut report),
                    None => of_patch(project, map, &mut report),
                }
            });
        }
    }
    Ok(())
}

fn of_container(
    project: &Project<'_>,
    name: &str,
    container: &Map<String, Value>,
    report: &mut impl FnMut(String),
) {
    let Some(program) = project.programs.get(name) else { return };
    let variables = yaml::list(container, "env").filter_map(|entry| yaml::text(entry, "name"));
    for variable in variables.filter(|variable| !program.reads(variable)) {
        report(format!("{variable} is no variable of {name}"));
    }
    let arguments = container.get("args").and_then(Value::as_array).into_iter().flatten();
    for argument in arguments.filter_map(|argument| argument.as_str()?.strip_prefix("--")) {
        let flag = argument.split('=').next().unwrap_or_default();
        if !program.flags.contains_key(flag) {
            report(format!("--{flag} is no flag of {name}"));
        }
    }
}

/// A JSON patch that adds a variable, to whatever Deployments its target selects.
fn of_patch(project: &Project<'_>, patch: &Map<String, Value>, report: &mut impl FnMut(String)) {
    let adds = yaml::text(patch, "path").is_some_and(|path| path.contains("/env/"));
    let value = patch.get("value").and_then(Value::as_object);
    let variable = value.and_then(|value| yaml::text(value, "name")).filter(|_| adds);
    let unread = |variable: &&str| !project.programs.values().any(|p| p.reads(variable));
    if let Some(variable) = variable.filter(unread) {
        report(format!("{variable} is a variable of no program"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_seen_over_lines_and_with_the_names_that_clap_gives_them() {
        let text = r#"
struct Args {
    /// Doc: with a colon.
    #[arg(
        long, env = "A_B",
        default_value = "5s", value_parser = f(1)
    )]
    #[expect(dead_code)]
    pub(crate) max_age: Option<u8>,
    #[arg(long = "in-flight")]
    n: u8,
    #[arg(value_name = "X")]
    words: Vec<String>,
}
#[cfg(test)]
mod tests {
    struct B {
        #[arg(long)]
        not: u8,
    }
}
"#;
        let some = |text: &str| Some(text.to_owned());
        let expected = [
            ("max-age".to_owned(), Setting { variable: some("A_B"), default: some("5s") }),
            ("in-flight".to_owned(), Setting::default()),
        ];
        assert_eq!(flags(&Source::parse(text, false)), expected);
    }

    #[test]
    fn rows_are_read_in_either_order_of_their_columns() {
        let page =
            "| `--a X` | `A_B` | | x |\n| `A_C` | `--c` | `--d` |\n| `E_F` | none |\n`--g`\n";
        let seen: Vec<_> = rows(page).map(|(n, flag, variable, _)| (n, flag, variable)).collect();
        assert_eq!(seen, [(1, "a", Some("A_B")), (2, "c", Some("A_C"))]);
    }
}
