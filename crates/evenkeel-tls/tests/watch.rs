//! Files that change under a running process, in every way in which they do: swapped by a symlink
//! as Kubernetes does, written in place, half written, gone, a key before its certificate. The last
//! good content stays in use, and the status says what is wrong.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_tls::{Identity, Material, Roots, Rotating, TlsError, provider};
use rcgen::{CertificateParams, KeyPair, SerialNumber};
use rustls::{crypto::CryptoProvider, pki_types::CertificateDer};

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("evenkeel-tls-watch-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A self-signed certificate and its key, in PEM; the serial number tells it from others.
fn made(serial: u64) -> (String, String) {
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn ring() -> Arc<CryptoProvider> {
    provider(Some(Arc::new(rustls::crypto::ring::default_provider()))).unwrap()
}

/// The leaf in use, or the subject of the first root.
fn of_identity(identity: &Identity) -> Rotating<CertificateDer<'static>> {
    let leaf = |m: Material| Ok(m.identity.expect("it was given").cert[0].clone());
    Rotating::new(ring(), Some(identity.clone()), None, leaf).unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A folder as a mounted Secret: `name` links into `..data`, which links to the folder in use.
fn mount(folder: &Folder, generation: u32, files: &[(&str, &str)]) -> io::Result<()> {
    let real = folder.path(&format!("..{generation}"));
    fs::create_dir(&real)?;
    for (name, text) in files {
        fs::write(real.join(name), text)?;
        let link = folder.path(name);
        if !link.exists() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), link)?;
        }
    }
    let next = folder.path("..data_tmp");
    std::os::unix::fs::symlink(format!("..{generation}"), &next)?;
    fs::rename(next, folder.path("..data"))
}

#[tokio::test]
async fn follows_the_symlinks_of_a_kubernetes_secret() {
    let folder = Folder::new();
    let (first, second) = (made(1), made(2));
    // The links can only be made once there is something to link to.
    std::os::unix::fs::symlink("..1", folder.path("..data")).unwrap();
    mount(&folder, 1, &[("tls.crt", &first.0), ("tls.key", &first.1)]).unwrap();
    let (chain, key) = (folder.path("tls.crt"), folder.path("tls.key"));
    let identity = Identity::watch_every(Duration::ZERO, chain, key).unwrap();
    let leaf = of_identity(&identity);
    assert_eq!(*leaf.current().await, der(&first.0));
    assert_eq!(identity.status().reloads, 0);

    mount(&folder, 2, &[("tls.crt", &second.0), ("tls.key", &second.1)]).unwrap();
    fs::remove_dir_all(folder.path("..1")).unwrap();
    assert_eq!(*leaf.current().await, der(&second.0));
    assert_eq!((identity.status().reloads, identity.status().failures), (1, 0));
}

#[tokio::test]
async fn what_can_not_be_used_leaves_the_last_good_content() {
    let folder = Folder::new();
    let (first, second) = (made(1), made(2));
    let chain = folder.write("tls.crt", &first.0);
    let key = folder.write("tls.key", &first.1);
    let identity = Identity::watch_every(Duration::ZERO, chain, key.clone()).unwrap();
    let leaf = of_identity(&identity);

    let half = &second.0[..second.0.len() / 2];
    let bad: [(&str, &str, &str); 4] = [
        ("tls.crt", half, "it is cut off, -----END is missing"),
        ("tls.crt", "", "expected -----BEGIN CERTIFICATE----- in 0 bytes, found none"),
        ("tls.crt", &second.0, "expected the key of the first certificate, got another one"),
        ("tls.key", "no key", "expected -----BEGIN PRIVATE KEY----- (or RSA, or EC) in 6 bytes"),
    ];
    for (index, (name, text, expected)) in bad.into_iter().enumerate() {
        folder.write(name, text);
        for _ in 0..3 {
            assert_eq!(*leaf.current().await, der(&first.0), "{expected}");
        }
        let status = identity.status();
        let error = status.last_error.expect("an error");
        assert!(error.contains(expected) && error.contains("tls.crt"), "{error}");
        assert_eq!(status.failures, index as u64 + 1, "each is counted once");
    }

    fs::remove_file(&key).unwrap();
    assert_eq!(*leaf.current().await, der(&first.0));
    let error = identity.status().last_error.expect("an error");
    assert!(error.contains("tls.key: No such file"), "{error}");

    folder.write("tls.key", &second.1);
    assert_eq!(*leaf.current().await, der(&second.0));
    assert_eq!(identity.status().last_error, None);
}

#[tokio::test]
async fn a_change_that_leaves_length_and_time_stamp_is_seen() {
    let folder = Folder::new();
    let (first, second) = (made(1), made(2));
    // Ed25519 and ECDSA signatures differ in length; padding makes the files equally long.
    let length = first.0.len().max(second.0.len());
    let padded = |text: &str| format!("{text}{}", "\n".repeat(length - text.len()));
    let path = folder.write("ca.crt", &padded(&first.0));
    let written_at = fs::metadata(&path).unwrap().modified().unwrap();
    let roots = Roots::watch_every(Duration::ZERO, &path).unwrap();
    let subjects = |m: Material| Ok(m.roots.expect("they were given").roots.len());
    let count = Rotating::new(ring(), None, Some(roots.clone()), subjects).unwrap();
    assert_eq!(*count.current().await, 1);
    assert_eq!(roots.status().reloads, 0);

    fs::write(&path, padded(&second.0)).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(written_at).unwrap();
    count.current().await;
    assert_eq!(roots.status().reloads, 1);
    fs::write(&path, [first.0, second.0].concat()).unwrap();
    assert_eq!(*count.current().await, 2);
}

#[tokio::test(start_paused = true)]
async fn files_are_looked_at_once_per_interval() {
    let folder = Folder::new();
    let (first, second) = (made(1), made(2));
    let pem = |one: &(String, String)| [&*one.0, &*one.1].concat();
    let path = folder.write("both.pem", &pem(&first));
    let interval = Duration::from_secs(5);
    let identity = Identity::watch_every(interval, &path, &path).unwrap();
    let leaf = of_identity(&identity);
    assert_eq!(*leaf.current().await, der(&first.0));

    folder.write("both.pem", &pem(&second));
    tokio::time::advance(interval - Duration::from_millis(2)).await;
    assert_eq!(*leaf.current().await, der(&first.0));
    tokio::time::advance(Duration::from_millis(3)).await;
    assert_eq!(*leaf.current().await, der(&second.0));
}

#[test]
fn what_can_not_be_used_at_the_start_is_refused_with_its_file() {
    let folder = Folder::new();
    let (first, second) = (made(1), made(2));
    let error = Roots::watch(folder.path("none.crt")).unwrap_err();
    assert!(matches!(&error, TlsError::File { .. }), "{error:?}");
    assert!(error.to_string().contains("none.crt: No such file"), "{error}");
    let error = Roots::from_pem(&first.1).unwrap_err();
    assert!(error.to_string().contains("roots: expected -----BEGIN CERTIFICATE"), "{error}");
    let error = Roots::from_der([CertificateDer::from(vec![0; 8])]).unwrap_err();
    assert!(error.to_string().contains("got 1 that can't be read"), "{error}");

    let identity = Identity::from_pem(&first.0, &second.1).unwrap();
    let error = Rotating::new(ring(), Some(identity), None, |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("expected the key of the first certificate"), "{error}");
}
