//! Certificates for the interop cases over TLS. gRPC's own test certificates lie in the source of
//! each implementation; these are made anew for each run, for a name of the same kind.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::error::Error;

/// The name to call the servers by; `--server_host_override` in gRPC's descriptions.
pub(crate) const SERVER_NAME: &str = "foo.test.google.fr";
const PATTERN: &str = "*.test.google.fr";

/// PEM files in a folder that goes away with this.
pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes a CA and a server's certificate.
    pub(crate) fn new() -> Result<Self, Error> {
        let folder = std::env::temp_dir().join(format!("evenkeel-interop-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(Error::io(format!("{}", folder.display())))?;
        let this = Self { folder };
        let (ca, chain, key) =
            made().map_err(|e| Error::Process(format!("could not make certificates: {e}")))?;
        for (path, text) in [(this.ca(), ca), (this.chain(), chain), (this.key(), key)] {
            std::fs::write(&path, text).map_err(Error::io(format!("{}", path.display())))?;
        }
        Ok(this)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.path("server1.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.path("server1.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // The system empties its folder for such files by itself in the end.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The CA's certificate, the server's and the server's key, in PEM.
fn made() -> Result<(String, String, String), rcgen::Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let server = CertificateParams::new(vec![PATTERN.to_owned()])?.signed_by(&key, &issuer)?;
    Ok((ca, server.pem(), key.serialize_pem()))
}
