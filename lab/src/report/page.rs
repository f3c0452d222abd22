//! A run as one file to look at: no network, no other file, the same figures as the JSON document,
//! which is inside. The page draws itself from it in the browser, so there is one description of a
//! run and nothing that only the page knows.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::SCHEMA;
use crate::{bench, error::LabError};

#[cfg(test)]
mod tests;

/// The two files that a run leaves.
const PAGE: &str = "report.html";
const DOCUMENT: &str = "report.json";
/// What `lab bench --output json` writes.
const BENCH_SCHEMA: &str = bench::SCHEMA;
/// The page and its parts, in the places that it names.
const TEMPLATE: &str = include_str!("../../page/report.html");
const PARTS: [(&str, &str); 3] = [
    ("{{page.css}}", include_str!("../../page/page.css")),
    ("{{chart.js}}", include_str!("../../page/chart.js")),
    ("{{report.js}}", include_str!("../../page/report.js")),
];

/// Makes the page of a run that is over, with a measurement if there is one.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// What `lab run --output json` printed, or the report.json of a run
    #[arg(value_name = "RUN.json")]
    run: PathBuf,
    /// What `lab bench --output json` printed: its figures join the scorecard
    #[arg(long, value_name = "BENCH.json")]
    bench: Option<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = PAGE)]
    to: PathBuf,
}

impl ReportArgs {
    /// Writes the page and returns where it is.
    ///
    /// # Errors
    ///
    /// A file that can't be read, is no JSON or of another kind, or a page that can't be written.
    pub(crate) fn write(&self) -> Result<&Path, LabError> {
        let run = read(&self.run, SCHEMA, "lab run --output json")?;
        let bench = self.bench.as_deref();
        let bench = bench.map(|file| read(file, BENCH_SCHEMA, "lab bench --output json"));
        put(&self.to, &page(&run, bench.transpose()?.as_ref()))?;
        Ok(&self.to)
    }
}

/// Writes `report.html` and `report.json` into `folder`, which is made if it is not there.
///
/// # Errors
///
/// When a file can't be written.
pub(crate) fn write(folder: &Path, report: &impl Serialize) -> Result<PathBuf, LabError> {
    let cannot = |error: io::Error| LabError::io(format!("can't make {}", folder.display()))(error);
    fs::create_dir_all(folder).map_err(cannot)?;
    let value = serde_json::to_value(report).map_err(|error| cannot(error.into()))?;
    put(&folder.join(DOCUMENT), &super::json::print(&value))?;
    let at = folder.join(PAGE);
    put(&at, &page(&value, None))?;
    Ok(at)
}

fn put(file: &Path, text: &str) -> Result<(), LabError> {
    fs::write(file, text).map_err(LabError::io(format!("can't write {}", file.display())))
}

/// Reads a document whose `schema` has to be `wanted`.
fn read(file: &Path, wanted: &str, by: &str) -> Result<Value, LabError> {
    let cannot = LabError::io(format!("can't use {}", file.display()));
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return Err(cannot(error)),
    };
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(error) => {
            let what = format!("expected the JSON of `{by}`: {error}");
            return Err(cannot(io::Error::other(what)));
        }
    };
    match value.get("schema").and_then(Value::as_str) {
        Some(schema) if schema == wanted => Ok(value),
        other => {
            let got = other.map_or("a document without a schema".to_owned(), str::to_owned);
            let what = format!("expected {wanted}, as `{by}` prints it, got {got}");
            Err(cannot(io::Error::other(what)))
        }
    }
}

/// The page as text.
fn page(run: &Value, bench: Option<&Value>) -> String {
    let mut text = TEMPLATE.to_owned();
    for (place, part) in PARTS {
        text = text.replace(place, part);
    }
    // Last: what is in a document may look like a place.
    let mut out = String::new();
    let mut rest = &*text;
    for (place, value) in [("{{run}}", Some(run)), ("{{bench}}", bench)] {
        let (before, after) = rest.split_once(place).expect("the page has a place for it");
        out += before;
        out += &embedded(value.unwrap_or(&Value::Null));
        rest = after;
    }
    out + rest
}

/// JSON within HTML: no string in it can end its element.
fn embedded(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}
