//! `--programs DIR`: greeter, client and grpclb that somebody else built (Bazel, Nix), in place of
//! the lab itself, which is all three. So the same checks tell of any build whether it behaves
//! alike.

use std::path::{Path, PathBuf};

use crate::error::LabError;

/// What has to be in the folder: each child that is a program of its own.
pub(crate) const NAMES: [&str; 3] = ["client", "greeter", "grpclb"];

/// The folder's full path, with all programs in it.
///
/// # Errors
///
/// When the folder or one of the programs is not there.
pub(crate) fn in_folder(folder: &Path) -> Result<PathBuf, LabError> {
    let missing = NAMES.iter().find(|name| !folder.join(name).is_file());
    if let Some(name) = missing {
        return Err(LabError::NoProgram { folder: folder.to_owned(), name });
    }
    let what = format!("--programs: {} can't be found", folder.display());
    folder.canonicalize().map_err(LabError::io(what))
}
