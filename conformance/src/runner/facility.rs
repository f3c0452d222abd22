//! Where the peers are. They belong to another repository, so that not finding them is a reason to
//! skip and not to fail; not finding our own binaries is a mistake of the build.

use super::error::Error;
use std::path::{Path, PathBuf};

/// The folder of the peers and the one of their binaries.
#[derive(Clone, Debug)]
pub(crate) struct Facility {
    peers: PathBuf,
    bin: PathBuf,
}

impl Facility {
    /// Looks in `shared`, `$EVENKEEL_SHARED` and `../shared` beside the workspace, in this order.
    pub(crate) fn find(shared: Option<&Path>) -> Result<Self, Error> {
        let shared = match (shared, std::env::var_os("EVENKEEL_SHARED")) {
            (Some(given), _) => given.to_owned(),
            (None, Some(set)) => PathBuf::from(set),
            (None, None) => workspace_root()?.join("../shared"),
        };
        let peers = shared.join("peers");
        let script = peers.join("reference/reference.py");
        if !script.is_file() {
            return Err(Error::Skip(format!(
                "expected {}, it is not there; give its folder by --shared or EVENKEEL_SHARED",
                script.display()
            )));
        }
        let peers = peers.canonicalize().map_err(Error::io(format!("{}", peers.display())))?;
        Ok(Self { peers, bin: bin_folder()? })
    }

    /// The folder of `reference.py` and of the figures.
    pub(crate) fn reference(&self) -> PathBuf {
        self.peers.join("reference")
    }

    /// The client on C-core.
    pub(crate) fn client_py(&self) -> PathBuf {
        self.peers.join("python/client.py")
    }

    /// The folder of built peers, as `PEERS_BIN` wants it.
    pub(crate) fn bin(&self) -> &Path {
        &self.bin
    }

    /// A built peer.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Says what of these is not built, and how to build it.
    pub(crate) fn require(&self, tools: &[&str]) -> Result<(), Error> {
        let missing: Vec<&str> =
            tools.iter().copied().filter(|name| !self.tool(name).exists()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::Skip(format!(
            "expected {} in {}, not there; build with {}/build (or give PEERS_BIN)",
            missing.join(", "),
            self.bin.display(),
            self.peers.display()
        )))
    }

    /// The line of REFERENCE.md that names the versions of the figures.
    pub(crate) fn versions(&self) -> Result<String, Error> {
        let path = self.peers.join("REFERENCE.md");
        let text = std::fs::read_to_string(&path)
            .map_err(Error::io(format!("read {}", path.display())))?;
        text.lines().find_map(|line| line.strip_prefix("Versions: ")).map(str::to_owned).ok_or_else(
            || Error::Expect(format!("{}: expected a line `Versions: …`", path.display())),
        )
    }
}

/// The same search as `peerlib.py`.
fn bin_folder() -> Result<PathBuf, Error> {
    if let Some(bin) = std::env::var_os("PEERS_BIN").filter(|bin| !bin.is_empty()) {
        return Ok(PathBuf::from(bin));
    }
    if let Some(cache) = std::env::var_os("CLUSTER_CACHE").filter(|cache| !cache.is_empty()) {
        return Ok(PathBuf::from(cache).join("bin"));
    }
    let home = std::env::var_os("HOME").ok_or_else(|| {
        Error::Skip("expected PEERS_BIN, CLUSTER_CACHE or HOME to be set".to_owned())
    })?;
    Ok(PathBuf::from(home).join(".cache/cluster/bin"))
}

/// A program on `PATH`.
pub(crate) fn on_path(name: &str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| Error::Skip(format!("expected {name} on PATH, not there; install it")))
}

/// The workspace around the current folder, else the one this was built in.
pub(crate) fn workspace_root() -> Result<PathBuf, Error> {
    let here = std::env::current_dir().map_err(Error::io("current folder"))?;
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .chain(built_in.ancestors())
        .find(|folder| folder.join("conformance/expect.toml").is_file())
        .map(Path::to_owned)
        .ok_or_else(|| {
            Error::Usage(format!(
                "expected to run inside the workspace (a folder with conformance/expect.toml), \
                 got {}",
                here.display()
            ))
        })
}

/// A binary of this workspace, built beside the running one.
pub(crate) fn built_beside(name: &str) -> Result<PathBuf, Error> {
    let me = std::env::current_exe().map_err(Error::io("path of this binary"))?;
    let file = me.with_file_name(name);
    if file.is_file() {
        return Ok(file);
    }
    Err(Error::Process(format!(
        "expected {}, not there; build it first: cargo build \
         -p conformance -p greeter -p client -p grpclb",
        file.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_facility_is_a_skip_that_says_what_to_do() {
        let error = Facility::find(Some(Path::new("/nowhere"))).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("--shared"));
    }

    #[test]
    fn a_missing_peer_is_a_skip_that_names_it() {
        let facility = Facility { peers: "/nowhere/peers".into(), bin: "/nowhere/bin".into() };
        let error = facility.require(&["peer", "ghz"]).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("peer, ghz in /nowhere/bin"));
    }

    #[test]
    fn a_missing_binary_of_ours_is_no_skip() {
        assert_eq!(built_beside("no-such-binary").unwrap_err().exit_code(), 2);
    }
}
