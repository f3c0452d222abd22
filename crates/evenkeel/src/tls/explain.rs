//! What failed handshakes mean to whoever set up client and server. rustls says what the protocol
//! saw; "corrupt message of type InvalidContentType" is a plaintext port most of the time.

use std::io;

use evenkeel_tls::Refused;
use rustls::{AlertDescription, CertificateError, Error};

/// Why a handshake failed.
pub(super) fn handshake(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let why = match tls {
        Some(error) => of_rustls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection; does it speak TLS on this port?".to_owned()
        }
        None => error.to_string(),
    };
    format!("TLS handshake: {why}")
}

fn of_rustls(error: &Error) -> String {
    let advice = match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            if let Some(refused) = other.0.downcast_ref::<Refused>() {
                return refused.to_string();
            }
            return error.to_string();
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "none of the channel's roots has signed it"
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "one of the channel's roots has its signer's name, but not its key"
        }
        Error::InvalidMessage(_) => "expected TLS from the server; is this a plaintext port?",
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the server refuses HTTP/2 (ALPN h2); is this a gRPC port?"
        }
        Error::AlertReceived(alert) => return alert_received(error.to_string(), *alert),
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

/// A server judges the client's certificate late: in TLS 1.3 the handshake is over for the client.
const OF_THE_CLIENT: [(AlertDescription, &str); 7] = [
    (AlertDescription::CertificateRequired, REQUIRED),
    (AlertDescription::BadCertificate, REFUSED),
    (AlertDescription::CertificateExpired, REFUSED),
    (AlertDescription::CertificateUnknown, REFUSED),
    (AlertDescription::UnknownCA, REFUSED),
    (AlertDescription::AccessDenied, REFUSED),
    // A signer of the right name and with another key.
    (AlertDescription::DecryptError, REFUSED),
];
const REQUIRED: &str = "the server wants a client certificate; give one with ClientTls::identity";
const REFUSED: &str = "the server refuses the client certificate (ClientTls::identity)";

fn alert_received(error: String, alert: AlertDescription) -> String {
    match OF_THE_CLIENT.iter().find(|(of, _)| *of == alert) {
        Some((_, advice)) => format!("{error}; {advice}"),
        None => error,
    }
}

/// Adds to an error of HTTP/2's beginning what an alert in it means.
pub(super) fn greeting(error: String) -> String {
    let said = |alert: &AlertDescription| error.contains(&Error::AlertReceived(*alert).to_string());
    match OF_THE_CLIENT.into_iter().find(|(alert, _)| said(alert)) {
        Some((alert, _)) => alert_received(error, alert),
        None => error,
    }
}

/// The handshake is done, and what follows is not HTTP/2.
pub(super) fn no_http2(chosen: Option<&[u8]>) -> String {
    let chosen = match chosen {
        Some(name) => format!("chose {:?}", String::from_utf8_lossy(name)),
        None => "chose nothing".to_owned(),
    };
    format!(
        "TLS handshake: expected the server to choose HTTP/2 (ALPN h2), but it {chosen}; is this a \
         gRPC port?"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_about_the_clients_certificate_are_explained_wherever_they_come() {
        let lost = "connection lost: received fatal alert: CertificateRequired before its SETTINGS";
        assert_eq!(greeting(lost.into()), format!("{lost}; {REQUIRED}"));
        assert_eq!(greeting("no alert".into()), "no alert");
        let unknown_ca = Error::AlertReceived(AlertDescription::UnknownCA);
        let text = handshake(&io::Error::new(io::ErrorKind::InvalidData, unknown_ca));
        assert_eq!(text, format!("TLS handshake: received fatal alert: UnknownCA; {REFUSED}"));
    }
}
