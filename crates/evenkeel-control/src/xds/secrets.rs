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
