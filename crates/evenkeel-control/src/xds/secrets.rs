//! The files of identities, followed when they change. The parts of one identity belong together,
//! so they are taken together and only when all of them can be read; until then, and when a file is
//! gone, the last good ones stay. By looking at them, as [`crate::sources::file`] does and for the
//! same reasons.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path, sync::Arc, time::Duration};

use evenkeel_server::tls::{FILE_BYTES_MAX, Identity as Checked, Roots};

use super::say::SecretFiles;
use crate::{config::Identity, control::Control};

/// How often files are looked at.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct SecretSource {
    known: BTreeMap<String, Arc<SecretFiles>>,
    /// Identities whose last look was reported, so that those that go are forgotten.
    reported: BTreeMap<String, Identity>,
}

impl SecretSource {
    /// The last good files of each identity.
    pub(super) fn known(&self) -> &BTreeMap<String, Arc<SecretFiles>> {
        &self.known
    }

    /// Looks at all files; true when something is new. It blocks for as long as the file system
    /// does.
    pub(super) fn look(
        &mut self,
        identities: &BTreeMap<String, Identity>,
        control: &Control,
    ) -> bool {
        let source = |name: &str| format!("identity/{name}");
        for name in self.reported.keys().filter(|name| !identities.contains_key(*name)) {
            control.forget_source(&source(name));
        }
        let count = self.known.len();
        self.known.retain(|name, _| identities.contains_key(name));
        let mut is_new = self.known.len() != count;
        for (name, identity) in identities {
            let outcome = read(identity).map(|files| {
                if self.known.get(name).is_none_or(|known| **known != files) {
                    self.known.insert(name.clone(), Arc::new(files));
                    is_new = true;
                }
            });
            control.source(&source(name), outcome);
        }
        self.reported.clone_from(identities);
        is_new
    }
}

fn read(identity: &Identity) -> Result<SecretFiles, String> {
    let files = SecretFiles {
        certificate: content(&identity.certificate)?,
        key: content(&identity.key)?,
        roots: content(&identity.roots)?,
    };
    let (certificate, roots) = (identity.certificate.display(), identity.roots.display());
    Checked::from_pem(&files.certificate, &files.key).map_err(|e| format!("{certificate}: {e}"))?;
    Roots::from_pem(&files.roots).map_err(|e| format!("{roots}: {e}"))?;
    Ok(files)
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let limit = FILE_BYTES_MAX + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut content));
    match read {
        Ok(bytes) if bytes as u64 == limit => {
            let path = path.display();
            Err(format!("{path}: expected at most {FILE_BYTES_MAX} bytes, there are more"))
        }
        Ok(_) => Ok(content),
        Err(error) => Err(format!("{}: {error}; expected a PEM file", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{config::Config, names::NameRules};

    /// A folder of its own for each test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("evenkeel-secrets-{}-{:x}", std::process::id(), fastrand::u64(..));
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).expect("a new folder");
            Self(folder)
        }

        /// Writes a new certificate with its key; it is its own root.
        fn renew(&self) {
            let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("made");
            let write = |name: &str, text: String| fs::write(self.0.join(name), text);
            write("tls.crt", made.cert.pem()).expect("written");
            write("ca.crt", made.cert.pem()).expect("written");
            write("tls.key", made.signing_key.serialize_pem()).expect("written");
        }

        fn identities(&self) -> BTreeMap<String, Identity> {
            let path = |name: &str| self.0.join(name);
            let (certificate, key, roots) = (path("tls.crt"), path("tls.key"), path("ca.crt"));
            let identity = Identity { certificate, key, roots, belongs_to: None };
            [("client".to_owned(), identity)].into()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("its own folder");
        }
    }

    fn control() -> Control {
        Control::new(NameRules::default(), Config::default())
    }

    #[test]
    fn new_certificates_are_taken_and_seen_as_news_once() {
        let (folder, control, mut source) = (Folder::new(), control(), SecretSource::default());
        folder.renew();
        assert!(source.look(&folder.identities(), &control));
        let first = source.known()["client"].clone();
        assert!(!source.look(&folder.identities(), &control), "nothing is new");
        folder.renew();
        assert!(source.look(&folder.identities(), &control));
        assert_ne!(source.known()["client"], first);
        assert_eq!(format!("{first:?}"), "SecretFiles { .. }", "no key is in a log");
    }

    #[test]
    fn what_can_not_be_used_is_reported_and_the_last_good_ones_stay() {
        let (folder, control, mut source) = (Folder::new(), control(), SecretSource::default());
        folder.renew();
        source.look(&folder.identities(), &control);
        let good = source.known()["client"].clone();
        for broken in ["tls.crt", "tls.key", "ca.crt"] {
            fs::write(folder.0.join(broken), "half of a fi").expect("written");
            assert!(!source.look(&folder.identities(), &control), "{broken}");
            assert_eq!(source.known()["client"], good);
            let error = control.sources()["identity/client"].error.clone();
            assert!(error.is_some_and(|error| error.contains(&folder.0.display().to_string())));
            folder.renew();
            assert!(source.look(&folder.identities(), &control));
            fs::write(folder.0.join("tls.crt"), &good.certificate).expect("written");
            fs::write(folder.0.join("tls.key"), &good.key).expect("written");
            fs::write(folder.0.join("ca.crt"), &good.roots).expect("written");
            assert!(source.look(&folder.identities(), &control), "the old ones are good too");
        }
        fs::remove_file(folder.0.join("tls.key")).expect("removed");
        assert!(!source.look(&folder.identities(), &control));
        assert!(!*control.good().borrow(), "a source is bad");
    }

    #[test]
    fn an_identity_that_goes_is_forgotten_with_its_key() {
        let (folder, control, mut source) = (Folder::new(), control(), SecretSource::default());
        folder.renew();
        source.look(&folder.identities(), &control);
        assert!(source.look(&BTreeMap::new(), &control));
        assert!(source.known().is_empty() && control.sources().is_empty());
    }
}
