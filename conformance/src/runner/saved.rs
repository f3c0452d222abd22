//! The saved runs (`conformance/figures/evenkeel.jsonl`) and the page made of them.
//!
//! They are kept in the tree as the other clients' figures are, so that the page can be made again
//! after an expectation changed, without running for minutes.

use super::date;
use super::error::Error;
use super::expect::Expectations;
use super::facility::{Facility, workspace_root};
use super::page::{self, Column};
use super::row::{Made, Row};
use std::path::PathBuf;

const COLUMNS: &[(&str, &str)] =
    &[("grpc-go", "grpc-go"), ("C-core (grpcio)", "grpcio"), ("tonic", "tonic")];

/// Puts `rows` in the place of the saved ones of the same cases.
pub(crate) fn save(rows: Vec<Row>, command: &str) -> Result<(), Error> {
    let path = figures()?;
    let mut saved = if path.exists() { Row::read_file(&path)? } else { Vec::new() };
    let made = Made {
        date: date::today(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: command.to_owned(),
    };
    merge(&mut saved, rows, &made);
    let mut text = String::new();
    for row in &saved {
        let line = serde_json::to_string(row).expect("a row has text keys only");
        text.push_str(&line);
        text.push('\n');
    }
    write(&path, &text)
}

/// Makes docs/conformance.md again.
pub(crate) fn write_page(expectations: &Expectations, facility: &Facility) -> Result<(), Error> {
    let path = figures()?;
    if !path.exists() {
        return Err(Error::Usage(format!(
            "expected saved runs in {}, not there; make some: conformance peers --write-docs",
            path.display()
        )));
    }
    let ours = Row::read_file(&path)?;
    let mut others = Vec::new();
    for (name, file) in COLUMNS {
        let path = facility.reference().join(format!("figures/{file}.jsonl"));
        others.push(Column { name, rows: Row::read_file(&path)? });
    }
    let text = page::render(expectations, &ours, &others, &facility.versions()?);
    let page = workspace_root()?.join("docs/conformance.md");
    write(&page, &text)?;
    eprintln!("wrote {}", page.display());
    Ok(())
}

fn figures() -> Result<PathBuf, Error> {
    Ok(workspace_root()?.join("conformance/figures/evenkeel.jsonl"))
}

fn write(path: &PathBuf, text: &str) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(format!("{}", folder.display())))?;
    }
    std::fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}

fn merge(saved: &mut Vec<Row>, rows: Vec<Row>, made: &Made) {
    for mut row in rows {
        row.made = Some(made.clone());
        match saved.iter_mut().find(|old| old.is_of(&row.scenario, &row.case)) {
            Some(old) => *old = row,
            None => saved.push(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn new_rows_take_the_place_of_old_ones_and_keep_the_others() {
        let made =
            |date: &str| Made { date: date.into(), version: "1".into(), command: "c".into() };
        let row = |case: &str, fail: u32| Row::new("dead", case, json!({"fail": fail}));
        let mut saved = Vec::new();
        merge(&mut saved, vec![row("a", 0), row("b", 0)], &made("2026-11-23"));
        merge(&mut saved, vec![row("b", 1), row("c", 0)], &made("2026-11-24"));
        let told: Vec<(&str, &Value, &str)> = saved
            .iter()
            .map(|row| {
                let made = row.made.as_ref().unwrap();
                (row.case.as_str(), &row.result["fail"], made.date.as_str())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("a", &json!(0), "2026-11-23"),
                ("b", &json!(1), "2026-11-24"),
                ("c", &json!(0), "2026-11-24")
            ]
        );
    }

    use serde_json::Value;
}
