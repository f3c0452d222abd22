//! Image names and tags: nix/images.toml builds them, kustomize/ uses them, the workflows push
//! them. `.ci/manifests` compares what kustomize makes of its files; here the files are compared,
//! without kustomize.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Project, yaml};
use crate::{Finding, tree::Tree};

const LIST: &str = "nix/images.toml";
/// The one file with tags.
const TAGS: &str = "kustomize/components/images/kustomization.yaml";
/// What nix/deploy.sh puts a registry's name before.
const PREFIX: &str = "evenkeel-";

/// The images that are built here, with the program of each.
///
/// # Errors
///
/// The list is missing, or an image has no program.
pub(super) fn listed(tree: &Tree) -> Result<BTreeMap<String, String>, String> {
    let text = tree.text(LIST).ok_or(format!("{LIST} does not exist"))?;
    let table: toml::Table = text.parse().map_err(|error| format!("{LIST}: {error}"))?;
    let images = table.get("images").and_then(toml::Value::as_table);
    let images = images.ok_or(format!("{LIST}: expected tables [images.NAME]"))?;
    let program = |(name, image): (&String, &toml::Value)| {
        let program = image.get("program").and_then(toml::Value::as_str);
        let program = program.ok_or(format!("{LIST}: {name} has no program"))?;
        Ok((name.clone(), program.to_owned()))
    };
    images.iter().map(program).collect()
}

/// The names that kustomize/components/images gives tags to, with the tags.
pub(super) fn tags(project: &Project<'_>) -> BTreeMap<String, String> {
    let documents = project.manifests.get(TAGS).into_iter().flatten();
    let images = documents.filter_map(Value::as_object).flat_map(|map| yaml::list(map, "images"));
    let tag = |image: &serde_json::Map<String, Value>| {
        let tag = yaml::text(image, "newTag").unwrap_or_default();
        Some((yaml::text(image, "name")?.to_owned(), tag.to_owned()))
    };
    images.filter_map(tag).collect()
}

/// The rule.
pub(super) fn images(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let mut report = |path: &str, message: String| {
        out.push(Finding::new(path, 0, "images", message));
    };
    for (name, program) in &project.images {
        if *name != format!("{PREFIX}{program}") {
            report(LIST, format!("{name}: expected the name {PREFIX}{program}, its program's"));
        }
        if project.cargo.in_folder(&format!("services/{program}")).is_none() {
            report(LIST, format!("{name}: services/{program} is no package of the workspace"));
        }
    }
    let tags = tags(project);
    for name in project.images.keys().filter(|name| !tags.contains_key(*name)) {
        report(TAGS, format!("{name} of {LIST} has no tag here"));
    }
    for name in tags.keys().filter(|n| n.starts_with(PREFIX) && !project.images.contains_key(*n)) {
        report(TAGS, format!("{name} is not in {LIST}, so nobody builds it"));
    }
    for (path, documents) in &project.manifests {
        for document in documents {
            yaml::mappings(document, &mut |map| {
                let image = yaml::text(map, "image").filter(|image| !image.is_empty());
                if let Some(image) = image.filter(|image| !tags.contains_key(*image)) {
                    let message = format!("the image {image} has no tag in {TAGS}");
                    report(path, message);
                }
            });
        }
    }
    workflows(project, &mut report)
}

/// The workflows name programs, and push `evenkeel-` and the program.
fn workflows(project: &Project<'_>, report: &mut impl FnMut(&str, String)) -> Result<(), String> {
    let built: BTreeSet<&str> = project.images.values().map(String::as_str).collect();
    let path = ".github/workflows/release.yml";
    let (_, list) = (project.text(path)?.split_once("{image: ["))
        .ok_or(format!("{path}: expected matrix: {{image: […]}}"))?;
    let pushed: BTreeSet<&str> =
        list.split(']').next().unwrap_or_default().split(',').map(str::trim).collect();
    if pushed != built {
        report(path, format!("pushes {pushed:?}; {LIST} has {built:?}"));
    }
    let path = ".github/workflows/hermetic.yml";
    let words =
        project.text(path)?.split(".#").skip(1).filter_map(|rest| rest.split_whitespace().next());
    let packed: BTreeSet<&str> = words.filter_map(|word| word.strip_suffix("-image")).collect();
    if packed != built {
        report(path, format!("builds the images of {packed:?}; {LIST} has {built:?}"));
    }
    let path = "docs/images.md";
    let page = project.text(path)?;
    for name in project.images.keys().filter(|name| !page.contains(&format!("`{name}`"))) {
        report(path, format!("does not name {name} of {LIST}"));
    }
    Ok(())
}
