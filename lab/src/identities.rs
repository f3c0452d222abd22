//! Who is who in the mesh: certificates as a mesh's authority gives them, with a SPIFFE ID as the
//! only name. Made anew for each phase, so that no key lies in the repository and none outlives the
//! run's folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use evenkeel::tls::{ClientTls, Identity, Roots, SpiffeRule, TlsError};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};

use crate::{error::LabError, run::Run};

/// The trust domain, which the names of all identities begin with.
const TRUST_DOMAIN: &str = "lab.local";
/// The accounts that get an identity. Nobody is to trust the last one, though the same authority
/// has signed it.
const ACCOUNTS: [&str; 3] = [CLIENT, GREETER, STRANGER];
/// The account of the client's pods.
pub(crate) const CLIENT: &str = "client";
/// The account of the greeters' pods.
pub(crate) const GREETER: &str = "greeter";
/// An account of somebody else in the same mesh.
pub(crate) const STRANGER: &str = "stranger";

/// PEM files in the run's folder.
#[derive(Clone, Debug)]
pub(crate) struct Identities {
    folder: PathBuf,
}

/// The SPIFFE ID of an account in the namespace `default`.
pub(crate) fn spiffe_id(account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/default/sa/{account}")
}

impl Identities {
    /// Makes an authority and an identity for each account.
    ///
    /// # Errors
    ///
    /// When a file can't be written.
    pub(crate) fn make(run: &Run, phase: &str) -> Result<Self, LabError> {
        let folder = run.path(&format!("{phase}-identities"));
        let this = Self { folder };
        this.write().map_err(LabError::io(format!("can't make {}", this.folder.display())))?;
        Ok(this)
    }

    fn write(&self) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let authority = Authority::new().map_err(std::io::Error::other)?;
        fs::write(self.roots(), &authority.pem)?;
        for account in ACCOUNTS {
            let (chain, key) = authority.sign(account).map_err(std::io::Error::other)?;
            fs::write(self.certificate(account), chain)?;
            fs::write(self.key(account), key)?;
        }
        Ok(())
    }

    /// The certificate that has signed all others.
    pub(crate) fn roots(&self) -> PathBuf {
        self.folder.join("roots.pem")
    }

    /// The certificate of `account`.
    pub(crate) fn certificate(&self, account: &str) -> PathBuf {
        self.folder.join(format!("{account}.pem"))
    }

    /// The key of `account`.
    pub(crate) fn key(&self, account: &str) -> PathBuf {
        self.folder.join(format!("{account}.key"))
    }

    /// TLS of a client that trusts greeters and shows the identity of `account`, or none.
    ///
    /// # Errors
    ///
    /// When a file can't be read.
    pub(crate) fn client(&self, account: Option<&str>) -> Result<ClientTls, LabError> {
        let made = || {
            let rule = SpiffeRule::id(&spiffe_id(GREETER))?;
            let tls = ClientTls::new(Roots::from_pem(read(&self.roots())?)?).spiffe([rule]);
            let tls = tls.provider(rustls::crypto::ring::default_provider().into());
            let Some(account) = account else { return Ok(tls) };
            let chain = read(&self.certificate(account))?;
            Ok(tls.identity(Identity::from_pem(chain, read(&self.key(account))?)?))
        };
        let what = format!("the identities in {}", self.folder.display());
        made().map_err(|error: Unusable| LabError::io(what)(std::io::Error::other(error)))
    }
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    Ok(fs::read(path)?)
}

/// Who signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, TRUST_DOMAIN);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// A certificate and its key, in PEM.
    fn sign(&self, account: &str) -> Result<(String, String), rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = vec![SanType::URI(spiffe_id(account).try_into()?)];
        // Each pod of a mesh is both.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_has_its_spiffe_id_and_a_key_of_its_own() {
        let folder = std::env::temp_dir().join(format!("lab-identities-{}", std::process::id()));
        let identities = Identities { folder: folder.clone() };
        identities.write().unwrap();
        let keys = ACCOUNTS.map(|account| fs::read(identities.key(account)).unwrap());
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
        for account in ACCOUNTS {
            let chain = fs::read(identities.certificate(account)).unwrap();
            assert!(chain.starts_with(b"-----BEGIN CERTIFICATE-----"), "{account}");
            identities.client(Some(account)).unwrap();
        }
        identities.client(None).unwrap();
        fs::remove_file(identities.roots()).unwrap();
        let missing = identities.client(None).expect_err("no roots").to_string();
        assert!(missing.contains("lab-identities"), "{missing}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_are_those_of_a_mesh() {
        assert_eq!(spiffe_id(GREETER), "spiffe://lab.local/ns/default/sa/greeter");
    }
}
