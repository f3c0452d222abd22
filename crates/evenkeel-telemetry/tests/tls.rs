//! A collector with TLS, which asks for the client's certificate: over both protocols, with the
//! files that OpenTelemetry's variables name; and one whose certificate nobody here has signed.

mod receiver;

use std::{fs, path::PathBuf, process, sync::Arc};

use evenkeel_server::tls::{ClientAuth, Identity, Roots, ServerTls};
use evenkeel_telemetry::{Settings, Telemetry};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use receiver::{
    LIMIT, Receiver, Secure,
    greeters::{calls, greeter},
    log::Log,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

const CALLS: usize = 20;

/// A folder with the PEM files of a collector and its clients, until it is dropped.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Files {
    fn make(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("telemetry-tls-{}-{name}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = Self(folder);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        files.write("roots", &params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        for who in ["server", "client"] {
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            let key = KeyPair::generate().unwrap();
            files.write(who, &params.signed_by(&key, &issuer).unwrap().pem());
            files.write(&format!("{who}-key"), &key.serialize_pem());
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The same for the receiver's two protocols.
    fn secure(&self) -> Secure {
        let identity = Identity::watch(self.path("server"), self.path("server-key")).unwrap();
        let clients = ClientAuth::Required(Roots::watch(self.path("roots")).unwrap());
        let pem = |name: &str| fs::read(self.path(name)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem("roots")).unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(&pem("server")).unwrap()],
                PrivateKeyDer::from_pem_slice(&pem("server-key")).unwrap(),
            )
            .unwrap();
        Secure {
            grpc: ServerTls::new(identity).client_auth(clients),
            http: TlsAcceptor::from(Arc::new(config)),
        }
    }
}

fn settings(receiver: &Receiver, protocol: &str, roots: &Files, own: &Files) -> Settings {
    let at = if protocol == "grpc" { receiver.grpc } else { receiver.http };
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{at}")),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", text(roots.path("roots"))),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", text(own.path("client"))),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", text(own.path("client-key"))),
    ];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    receiver.settings(protocol, &variables)
}

#[tokio::test]
async fn spans_reach_a_collector_with_tls_that_knows_the_client_by_its_certificate() {
    let files = Files::make("both");
    for protocol in ["grpc", "http/protobuf"] {
        let receiver = Receiver::start_with(Some(files.secure())).await;
        let telemetry = Telemetry::start(&settings(&receiver, protocol, &files, &files)).unwrap();
        let backend = greeter(&Telemetry::off()).await;
        calls(&telemetry, backend.at, CALLS).await;
        let counts = telemetry.shutdown(LIMIT).await;
        assert_eq!((counts.sent, counts.dropped), (2 * CALLS as u64, 0), "{protocol}");
        assert_eq!(receiver.spans().len(), 2 * CALLS, "{protocol}");
    }
}

#[tokio::test]
async fn a_stranger_with_the_collectors_address_gets_nothing() {
    let (ours, strangers) = (Files::make("ours"), Files::make("strangers"));
    for protocol in ["grpc", "http/protobuf"] {
        let log = Log::default();
        let _listening = log.listen();
        let receiver = Receiver::start_with(Some(strangers.secure())).await;
        let telemetry =
            Telemetry::start(&settings(&receiver, protocol, &ours, &strangers)).unwrap();
        let backend = greeter(&Telemetry::off()).await;
        calls(&telemetry, backend.at, CALLS).await;
        telemetry.flush(LIMIT).await;
        let warning = log.warned().await;
        assert!(warning.contains("certificate"), "{warning}");
        calls(&telemetry, backend.at, CALLS).await;
        assert_eq!((receiver.spans().len(), telemetry.counts().sent), (0, 0), "{protocol}");
        assert_eq!(log.warnings(), 1, "{:?}", log.lines());
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_the_start() {
    let files = Files::make("missing");
    let receiver = Receiver::start().await;
    for protocol in ["grpc", "http/protobuf"] {
        fs::remove_file(files.path("roots")).ok();
        let error = Telemetry::start(&settings(&receiver, protocol, &files, &files));
        let error = error.err().expect("no roots").to_string();
        assert!(error.contains(files.path("roots").to_str().unwrap()), "{error}");
    }
}
