//! Which istiod the lab runs: the one that `--istiod` or `$ISTIOD` names, else a `pilot-discovery`
//! on `$PATH` or in the folder where ../shared/cluster keeps its programs. It is not installed, as
//! Envoy is: nobody publishes the program by itself, only images and Go source.

use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// The name of the program.
const PROGRAM: &str = "pilot-discovery";
/// The environment variable that names it.
const VARIABLE: &str = "ISTIOD";
/// The environment variable of that folder, and where it is without.
const CACHE: (&str, &str) = ("CLUSTER_CACHE", ".cache/cluster");

/// An istiod that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// Who named it.
    pub(crate) by: &'static str,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    #[error("{by} names {path}, which is no program; expected Istio's {PROGRAM}")]
    Named { by: &'static str, path: PathBuf },
    #[error(
        "no {PROGRAM}, which is Istio's istiod, in --istiod, ${VARIABLE}, $PATH or {cache}; build \
         it from Istio's source and name it with --istiod FILE"
    )]
    Nowhere { cache: PathBuf },
}

/// The istiod to run. `named` is what `--istiod` says.
///
/// # Errors
///
/// When the one that was named is no program, or there is none.
pub(crate) fn find(named: Option<&Path>) -> Result<Found, Missing> {
    look(named, |name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

/// `variable` is the environment.
fn look(
    named: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Found, Missing> {
    let by_variable = variable(VARIABLE).map(|path| ("$ISTIOD", PathBuf::from(path)));
    let named = named.map(|path| ("--istiod", path.to_owned())).or(by_variable);
    if let Some((by, path)) = named {
        return match can_run(&path) {
            true => Ok(Found { path, by }),
            false => Err(Missing::Named { by, path }),
        };
    }
    let (name, below_home) = CACHE;
    let home = PathBuf::from(variable("HOME").unwrap_or_default());
    let cache = variable(name).map_or_else(|| home.join(below_home), PathBuf::from).join("bin");
    let path = variable("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| ("$PATH", folder));
    on_path
        .chain([("its folder", cache.clone())])
        .map(|(by, folder)| Found { path: folder.join(PROGRAM), by })
        .find(|found| can_run(&found.path))
        .ok_or(Missing::Nowhere { cache })
}

fn can_run(file: &Path) -> bool {
    file.metadata().is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a program in it that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn with_program(below: &str) -> Self {
            let name = format!("lab-istiod-{}-{:08x}", std::process::id(), fastrand::u32(..));
            let folder = std::env::temp_dir().join(name);
            let file = folder.join(below).join(PROGRAM);
            std::fs::create_dir_all(folder.join(below)).unwrap();
            std::fs::write(&file, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
            Self(folder)
        }

        fn program(&self, below: &str) -> PathBuf {
            self.0.join(below).join(PROGRAM)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    /// An environment with these variables and no others.
    fn of(pairs: Vec<(&'static str, PathBuf)>) -> impl Fn(&str) -> Option<OsString> {
        move |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone().into())
        }
    }

    #[test]
    fn one_that_was_named_comes_first_and_is_not_passed_over() {
        let folder = Folder::with_program("bin");
        let here = folder.program("bin");
        let environment = || of(vec![("PATH", folder.0.join("bin")), ("ISTIOD", here.clone())]);
        let found = look(Some(&here), environment()).unwrap();
        assert_eq!(found.by, "--istiod");
        assert_eq!(look(None, environment()).unwrap().by, "$ISTIOD");
        let nowhere = Path::new("/nonexistent/pilot");
        let message = look(Some(nowhere), environment()).expect_err("no file").to_string();
        assert!(message.contains("--istiod names /nonexistent/pilot"), "{message}");
        let environment = of(vec![("PATH", folder.0.join("bin")), ("ISTIOD", folder.0.clone())]);
        let message = look(None, environment).expect_err("a folder").to_string();
        assert!(message.starts_with("$ISTIOD names"), "{message}");
    }

    #[test]
    fn without_a_name_it_is_looked_for_on_path_and_then_in_the_facilitys_folder() {
        let folder = Folder::with_program(".cache/cluster/bin");
        let there = folder.program(".cache/cluster/bin");
        let found = look(None, of(vec![("HOME", folder.0.clone())])).unwrap();
        assert_eq!(found, Found { path: there.clone(), by: "its folder" });
        let cache = folder.0.join(".cache/cluster");
        let found = look(None, of(vec![("CLUSTER_CACHE", cache.clone())])).unwrap();
        assert_eq!(found.path, there);
        let found = look(None, of(vec![("PATH", cache.join("bin"))])).unwrap();
        assert_eq!(found, Found { path: there, by: "$PATH" });
    }

    #[test]
    fn where_there_is_none_the_message_says_where_it_was_looked_for() {
        let message = look(None, of(vec![("HOME", "/nobody".into())])).expect_err("none");
        let message = message.to_string();
        for place in ["--istiod", "$ISTIOD", "$PATH", "/nobody/.cache/cluster/bin"] {
            assert!(message.contains(place), "{message}");
        }
    }
}
