//! One run of `reference.py` on an address block of its own: rows out, in the order they come.

use super::block::Block;
use super::error::Error;
use super::facility::Facility;
use super::process::Started;
use super::row::Row;
use rustix::process::Signal;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc::Sender;

/// The longest lane takes 150 s on a quiet machine.
const LANE_LIMIT: Duration = Duration::from_secs(360);

/// Runs `scenarios` (may be none) with `client`, a command as a shell splits it.
pub(crate) async fn run(
    facility: &Facility,
    python: &Path,
    block: &Block,
    client: &str,
    scenarios: &[&str],
    rows: &Sender<Row>,
) -> Result<(), Error> {
    if scenarios.is_empty() {
        return Ok(());
    }
    let names = scenarios.join(" ");
    eprintln!("on {}: {names}", block.net());
    let mut command = Command::new(python);
    command.arg("reference.py").args(["--client", client]).args(scenarios);
    prepare(&mut command, facility, block);
    follow(&mut command, &names, rows, |row| row).await
}

/// Makes one of the facility's scripts run on a block.
pub(crate) fn prepare<'a>(
    command: &'a mut Command,
    facility: &Facility,
    block: &Block,
) -> &'a mut Command {
    command
        .current_dir(facility.reference())
        .env("PEERS_NET", block.net())
        .env("PEERS_BIN", facility.bin())
        // The facility may be read-only, and it is not ours to write into.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stderr(Stdio::piped())
}

/// Runs a script to its end and passes its rows on, each as `row` makes it.
pub(crate) async fn follow(
    command: &mut Command,
    what: &str,
    rows: &Sender<Row>,
    row: impl Fn(Row) -> Row,
) -> Result<(), Error> {
    // SIGINT, since Python turns that into an exception and then ends its children.
    let mut script = Started::spawn(command, Signal::INT)?;
    match tokio::time::timeout(LANE_LIMIT, read(&mut script, rows, row)).await {
        Ok(result) => result,
        Err(_) => Err(Error::Process(format!(
            "expected the script of {what} to end within {} s, it still runs",
            LANE_LIMIT.as_secs()
        ))),
    }
}

/// `text` as one word of a shell: `reference.py --client` splits its argument as one does.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

async fn read(
    reference: &mut Started,
    rows: &Sender<Row>,
    row: impl Fn(Row) -> Row,
) -> Result<(), Error> {
    // Kept, and not passed on: an end by Ctrl-C makes Python print where it was.
    let stderr = reference.stderr();
    let (done, complaint) = tokio::join!(pass_on(reference, rows, row), stderr);
    let status = done?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Process(format!(
        "expected reference.py to end well, it ended with {status}: {}",
        complaint.trim()
    )))
}

async fn pass_on(
    reference: &mut Started,
    rows: &Sender<Row>,
    row: impl Fn(Row) -> Row,
) -> Result<ExitStatus, Error> {
    let mut lines = reference.lines().expect("nobody took the lines of a child just started");
    while let Some(line) = lines.next_line().await.map_err(Error::io("read reference.py"))? {
        let came = serde_json::from_str(&line).map_err(|e| {
            Error::Process(format!("expected rows from reference.py, got {line}: {e}"))
        })?;
        if rows.send(row(came)).await.is_err() {
            break; // Nobody judges any more.
        }
    }
    reference.wait().await
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quotes_paths_for_the_shell() {
        assert_eq!(quoted("/it's here/client"), r"'/it'\''s here/client'");
    }
}
