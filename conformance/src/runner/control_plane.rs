//! Strangers that take all their configuration from our control plane: grpc-go and C-core under the
//! scenario of `reference.py` for xDS, and Envoy under the one of `envoy_run.py`. Both scripts
//! start `peer xds`; here they find a folder in which `peer` is a script that starts ours for that
//! one word and the peer for all others, so that they run as they are.

use super::block::Block;
use super::error::Error;
use super::facility::Facility;
use super::lane;
use super::row::Row;
use super::scenario::CONTROL_PLANE;
use serde_json::{Map, Value};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tokio::process::Command;
use tokio::sync::mpsc::Sender;

/// The peers that this needs.
pub(crate) const TOOLS: &[&str] = &["peer", "peers-python", "envoy"];
/// The row in which Envoy's script says what became of the control plane.
const CONTROL_PLANE_CASE: &str = "control plane";

/// Runs all of them, one after the other; `program` is `conformance-xds`.
pub(crate) async fn run(
    facility: &Facility,
    python: &Path,
    program: &Path,
    rows: &Sender<Row>,
) -> Result<(), Error> {
    let block = Block::of_reference()?;
    let wrapped = Wrapped::new(facility, program)?;
    let words = |words: &[&Path]| -> String {
        words.iter().map(|word| lane::quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    };
    let grpc_go = words(&[&facility.tool("peer"), Path::new("client")]);
    let c_core = words(&[&facility.tool("peers-python"), &facility.client_py()]);
    for (who, client) in [("grpc-go", grpc_go), ("C-core", c_core)] {
        let mut command = Command::new(python);
        command.args(["reference.py", "--client", &client, "xds"]);
        one(facility, &block, &wrapped, command, who, rows).await?;
    }
    let mut command = Command::new(python);
    command.args(["envoy_run.py", "xds"]).env("ENVOY", facility.tool("envoy"));
    one(facility, &block, &wrapped, command, "Envoy", rows).await
}

async fn one(
    facility: &Facility,
    block: &Block,
    wrapped: &Wrapped,
    mut command: Command,
    who: &'static str,
    rows: &Sender<Row>,
) -> Result<(), Error> {
    let what = format!("{CONTROL_PLANE}, {who}");
    eprintln!("on {}: {what}", block.net());
    lane::prepare(&mut command, facility, block).env("PEERS_BIN", &wrapped.folder);
    lane::follow(&mut command, &what, rows, |row| named(row, who)).await
}

/// The row under our scenario, with the client's name.
fn named(mut row: Row, who: &str) -> Row {
    CONTROL_PLANE.clone_into(&mut row.scenario);
    row.case = format!("{who}: {}", row.case);
    if row.case.ends_with(CONTROL_PLANE_CASE) {
        row.result = counted(&row.result);
    }
    row
}

/// What the control plane says at its end, with sums that a check can name.
fn counted(result: &Value) -> Value {
    let sum = |what: &str| {
        let counts = result.pointer(&format!("/exit/{what}")).and_then(Value::as_object)?;
        Some(Value::from(counts.values().filter_map(Value::as_u64).sum::<u64>()))
    };
    let sums = ["sent", "acks", "nacks"].map(|what| (what.to_owned(), sum(what)));
    // A count that is missing stays so, and fails the row.
    Value::Object(
        sums.into_iter().filter_map(|(what, sum)| Some((what, sum?))).collect::<Map<_, _>>(),
    )
}

/// The peers' folder, with ours in the place of `peer xds`; it goes away with this.
struct Wrapped {
    folder: PathBuf,
}

impl Wrapped {
    fn new(facility: &Facility, program: &Path) -> Result<Self, Error> {
        let name = format!("evenkeel-control-plane-{}", std::process::id());
        let this = Self { folder: std::env::temp_dir().join(name) };
        let shown = this.folder.display().to_string();
        let failed = || Error::io(format!("make {shown}"));
        // One of an earlier process with our number.
        let _ = fs::remove_dir_all(&this.folder);
        fs::create_dir_all(&this.folder).map_err(failed())?;
        for entry in fs::read_dir(facility.bin()).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if entry.file_name() != "peer" {
                symlink(entry.path(), this.folder.join(entry.file_name())).map_err(failed())?;
            }
        }
        let peer = this.folder.join("peer");
        fs::write(&peer, script(&facility.tool("peer"), program)).map_err(failed())?;
        fs::set_permissions(&peer, fs::Permissions::from_mode(0o755)).map_err(failed())?;
        Ok(this)
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        // What is left lies in the temporary folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn script(peer: &Path, ours: &Path) -> String {
    let quoted = |path: &Path| lane::quoted(&path.to_string_lossy());
    format!(
        "#!/bin/sh\nif [ \"$1\" = xds ]; then\n    shift\n    exec {} \"$@\"\nfi\nexec {} \"$@\"\n",
        quoted(ours),
        quoted(peer)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_xds_is_ours() {
        let folder = std::env::temp_dir().join(format!("evenkeel-script-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("it's peer");
        fs::write(&path, script(Path::new("/bin/echo"), Path::new("/usr/bin/printf")))
            .expect("written");
        let says = |words: &[&str]| {
            let out = std::process::Command::new("sh").arg(&path).args(words).output();
            String::from_utf8(out.expect("it runs").stdout).expect("text")
        };
        assert_eq!(says(&["client", "a  b"]), "client a  b\n");
        assert_eq!(says(&["xds", "%s|", "a  b"]), "a  b|");
        fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn rows_are_called_after_their_client_and_counts_are_summed() {
        let row = named(Row::new("xds", "ring_hash", json!({"fail": 0})), "grpc-go");
        assert_eq!((&row.scenario[..], &row.case[..]), ("xds", "grpc-go: ring_hash"));
        let exit = json!({"exit": {"sent": {"Cluster": 3, "Listener": 1}, "nacks": {}}});
        let row = named(Row::new("envoy-xds", "control plane", exit), "Envoy");
        assert_eq!(row.result, json!({"sent": 4, "nacks": 0}), "acks were not said");
    }
}
