//! Examples: the overlays, the flake's apps that deploy them, the lab's numbers and the READMEs'
//! tables. An overlay without an app, or an app that follows the log of a Deployment which the
//! overlay calls otherwise, is an error that only a cluster shows.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Project, nix, yaml};
use crate::Finding;

const APPS: &str = "nix/scripts.nix";
/// The lab's name of an example, where an overlay's is another.
const ALIASES: [(&str, &str); 1] = [("mesh", "istio")];

/// The rule.
pub(super) fn examples(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let apps = nix::examples(project.text(APPS)?);
    let overlays = overlays(project)?;
    let mut report = |path: &str, message: String| {
        out.push(Finding::new(path, 0, "examples", message));
    };
    for (overlay, number) in &overlays {
        let app = apps.get(overlay);
        // `envoy-dynamic-without-istio` is another way to deploy example 3; it has no number.
        let is_variant = overlays
            .iter()
            .any(|(other, same)| same == number && overlay.starts_with(&format!("{other}-")));
        let numbered = app.and_then(|app| app.get("example"));
        if numbered != Some(number) && !(app.is_none() && is_variant) {
            let numbered = numbered.map_or("none", String::as_str);
            report(APPS, format!("{overlay} is example {number}, and the app's is {numbered}"));
        }
        let row = format!("| `overlays/{overlay}` | {number} |");
        if !project.text("kustomize/README.md")?.contains(&row) {
            report("kustomize/README.md", format!("expected a row that begins {row}"));
        }
    }
    for (overlay, app) in &apps {
        if !overlays.contains_key(overlay) {
            report(APPS, format!("{overlay}: there is no kustomize/overlays/{overlay}"));
            continue;
        }
        let parts = [("client", "greeter-client"), ("server", "greeter-server")];
        for (part, base) in parts {
            let named = deployment(project, overlay, part, base);
            let default = if part == "client" { format!("{base}-{overlay}") } else { base.into() };
            let told = app.get(part).unwrap_or(&default);
            if *told != named {
                report(
                    APPS,
                    format!("{overlay}: the {part} is {told}, and {named} in the overlay"),
                );
            }
        }
    }
    numbers(project, &overlays, &mut report)
}

/// Each overlay's number, from the first words of its kustomization.
fn overlays(project: &Project<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut overlays = BTreeMap::new();
    for (path, text) in project.tree.texts() {
        let overlay = path.strip_prefix("kustomize/overlays/");
        let overlay = overlay.and_then(|rest| rest.strip_suffix("/kustomization.yaml"));
        let Some(overlay) = overlay.filter(|overlay| !overlay.contains('/')) else { continue };
        let number = text.strip_prefix("# Example ");
        let number = number.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let number = number.flatten().filter(|number| !number.is_empty());
        let number =
            number.ok_or(format!("{path}: expected `# Example NUMBER` on its first line"))?;
        overlays.insert(overlay.to_owned(), number.to_owned());
    }
    Ok(overlays)
}

/// A Deployment's name in an overlay: the base's, with the suffix of the overlay's folder for it.
fn deployment(project: &Project<'_>, overlay: &str, part: &str, base: &str) -> String {
    let file = format!("kustomize/overlays/{overlay}/{part}/kustomization.yaml");
    let documents = project.manifests.get(&file).into_iter().flatten();
    let suffix =
        documents.filter_map(Value::as_object).find_map(|map| yaml::text(map, "nameSuffix"));
    format!("{base}{}", suffix.unwrap_or_default())
}

/// The lab's own numbers, against the overlays' and README.md's.
fn numbers(
    project: &Project<'_>,
    overlays: &BTreeMap<String, String>,
    report: &mut impl FnMut(&str, String),
) -> Result<(), String> {
    let page = project.text("README.md")?;
    let sources = project.tree.sources().filter(|(path, _)| path.starts_with("lab/src/examples/"));
    for (path, source) in sources {
        let lines: Vec<&str> = source.production().map(|(_, line)| line.raw.trim()).collect();
        for pair in lines.windows(2) {
            let number = pair[0].strip_prefix("number: ").and_then(|n| n.strip_suffix(','));
            let name = pair[1].strip_prefix("name: \"").and_then(|name| name.strip_suffix("\","));
            let (Some(number), Some(name)) = (number, name) else { continue };
            let overlay = ALIASES.iter().find(|(lab, _)| *lab == name).map_or(name, |(_, o)| o);
            // `baseline` is the problem, and nobody deploys it.
            let other = overlays.get(overlay).filter(|other| *other != number);
            if let Some(other) = other {
                report(path, format!("{name} is {number}, and example {other} as an overlay"));
            }
            if !page.contains(&format!("| {number} `{name}` |")) {
                report("README.md", format!("expected a row for example {number} `{name}`"));
            }
        }
    }
    Ok(())
}
