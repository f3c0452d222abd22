//! Names of workloads: SPIFFE IDs (`spiffe://trust-domain/path`) in the URI names of a certificate
//! (<https://spiffe.io/docs/latest/spiffe-specs/x509-svid/>). A mesh gives each workload one of
//! them and no DNS name, so that the usual check of the server's name has nothing to look at.
//!
//! Checks here come after the chain has been verified; a name in a certificate that nobody vouches
//! for means nothing.

use std::{error::Error, fmt, sync::Arc};

use rustls::{CertificateError, pki_types::CertificateDer};
use webpki::EndEntityCert;

use crate::TlsError;

/// The longest SPIFFE ID, in bytes.
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";

/// Which SPIFFE IDs are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeRule {
    /// Without the scheme: a trust domain, or one with a path.
    text: String,
    exact: bool,
}

impl SpiffeRule {
    /// This ID and no other: `spiffe://cluster.local/ns/default/sa/greeter`.
    ///
    /// # Errors
    ///
    /// [`TlsError::Name`], when it is no SPIFFE ID.
    pub fn id(id: &str) -> Result<Self, TlsError> {
        let text = check_id(id).map_err(TlsError::Name)?;
        Ok(Self { text: text.to_owned(), exact: true })
    }

    /// All IDs of a trust domain: `cluster.local`, or `spiffe://cluster.local`.
    ///
    /// # Errors
    ///
    /// [`TlsError::Name`], when it is no trust domain.
    pub fn trust_domain(name: &str) -> Result<Self, TlsError> {
        let name = name.strip_prefix(SCHEME).unwrap_or(name);
        check_trust_domain(name).map_err(TlsError::Name)?;
        Ok(Self { text: name.to_owned(), exact: false })
    }

    fn accepts(&self, id: &str) -> bool {
        let Some(text) = id.strip_prefix(SCHEME) else { return false };
        match self.exact {
            true => text == self.text,
            false => text.split('/').next() == Some(&self.text),
        }
    }
}

impl fmt::Display for SpiffeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.text, if self.exact { "" } else { "/…" })
    }
}

/// Several rules, of which one has to accept.
#[derive(Clone, Debug, Default)]
pub struct SpiffeRules(Vec<SpiffeRule>);

impl SpiffeRules {
    /// Without a rule nothing is accepted.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = SpiffeRule>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// Checks the name in a certificate whose chain has been verified.
    ///
    /// # Errors
    ///
    /// rustls's error for a verifier to return; it has a [`Refused`] in it.
    pub fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        self.judge(certificate).map_err(|reason| {
            let reason: Arc<dyn Error + Send + Sync> = Arc::new(Refused(reason));
            CertificateError::Other(rustls::OtherError(reason)).into()
        })
    }

    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), String> {
        let names = PeerNames::of(certificate)?;
        let expected = || {
            let rules: Vec<_> = self.0.iter().map(SpiffeRule::to_string).collect();
            format!("expected the peer to be {}", rules.join(" or "))
        };
        match names.spiffe_id() {
            Some(id) if self.0.iter().any(|rule| rule.accepts(id)) => Ok(()),
            Some(id) => Err(format!("{}, it is {id}", expected())),
            None => Err(format!("{}, its certificate has {names} and no SPIFFE ID", expected())),
        }
    }
}

/// Why a verified certificate was refused all the same.
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As text: rustls shows errors of verifiers in this form.
impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refused {}

/// The names in a certificate (its subjectAltName).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames {
    dns: Vec<String>,
    uris: Vec<String>,
}

impl PeerNames {
    /// Reads them. The certificate's chain must have been verified by who uses them.
    ///
    /// # Errors
    ///
    /// When the certificate can't be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let certificate = EndEntityCert::try_from(certificate)
            .map_err(|e| format!("expected an X.509 certificate: {e}"))?;
        let owned = str::to_owned;
        Ok(Self {
            dns: certificate.valid_dns_names().map(owned).collect(),
            uris: certificate.valid_uri_names().map(owned).collect(),
        })
    }

    /// The DNS names; some may begin with `*.`.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.dns
    }

    /// The URI names.
    #[must_use]
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// The SPIFFE ID. A certificate with more than one URI name has none: the specification wants
    /// it refused, because nobody could say which one was meant.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&str> {
        match &self.uris[..] {
            [id] if check_id(id).is_ok() => Some(id),
            _ => None,
        }
    }
}

impl fmt::Display for PeerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.uris.iter().chain(&self.dns).map(String::as_str).collect();
        match names.is_empty() {
            true => f.write_str("no names"),
            false => write!(f, "the names {}", names.join(", ")),
        }
    }
}

/// The ID without its scheme.
fn check_id(id: &str) -> Result<&str, String> {
    let bad = |why: &str| {
        Err(format!("expected a SPIFFE ID such as spiffe://cluster.local/a/b, got {id:?}: {why}"))
    };
    if id.len() > SPIFFE_ID_BYTES_MAX {
        return bad(&format!("it has more than {SPIFFE_ID_BYTES_MAX} bytes"));
    }
    let Some(text) = id.strip_prefix(SCHEME) else { return bad("it begins otherwise") };
    let mut parts = text.split('/');
    if let Err(why) = check_trust_domain(parts.next().unwrap_or_default()) {
        return bad(&why);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    for part in parts {
        if part.is_empty() || part == "." || part == ".." || !part.chars().all(allowed) {
            return bad(&format!("{part:?} can't be a part of its path"));
        }
    }
    Ok(text)
}

fn check_trust_domain(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    if (1..=TRUST_DOMAIN_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(format!("expected a trust domain of lower-case letters, digits and .-_, got {name:?}"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str], dns: &[&str]) -> CertificateDer<'static> {
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(dns).unwrap();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn ids_are_read_as_the_specification_has_them() {
        for good in ["spiffe://cluster.local", "spiffe://a/ns/x/sa/Y_z-1.2"] {
            assert!(SpiffeRule::id(good).is_ok(), "{good}");
        }
        let long = format!("spiffe://a/{}", "x".repeat(SPIFFE_ID_BYTES_MAX));
        let bad = [
            "",
            "spiffe://",
            "https://a/b",
            "spiffe://A/b",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/../b",
            "spiffe://a/b?c",
            "spiffe://a:80/b",
            "SPIFFE://a/b",
            &long,
        ];
        for bad in bad {
            assert!(SpiffeRule::id(bad).is_err(), "{bad}");
        }
        for bad in ["", "a/b", "A", "spiffe://a/b"] {
            assert!(SpiffeRule::trust_domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rule_accepts_its_id_or_its_trust_domain_and_nothing_that_begins_alike() {
        let rules = |rule: SpiffeRule| SpiffeRules::new([rule]);
        let exact = rules(SpiffeRule::id("spiffe://a.b/one").unwrap());
        let domain = rules(SpiffeRule::trust_domain("a.b").unwrap());
        let cases = [
            ("spiffe://a.b/one", true, true),
            ("spiffe://a.b/one/more", false, true),
            ("spiffe://a.b/ones", false, true),
            ("spiffe://a.b", false, true),
            ("spiffe://a.b.c/one", false, false),
            ("spiffe://a.bc/one", false, false),
            ("https://a.b/one", false, false),
        ];
        for (uri, by_id, by_domain) in cases {
            let certificate = certificate(&[uri], &["a.b"]);
            assert_eq!(exact.check(&certificate).is_ok(), by_id, "{uri}");
            assert_eq!(domain.check(&certificate).is_ok(), by_domain, "{uri}");
        }
        assert!(SpiffeRules::default().check(&certificate(&["spiffe://a.b/one"], &[])).is_err());
    }

    #[test]
    fn two_uris_or_none_are_no_spiffe_id() {
        let rules = SpiffeRules::new([SpiffeRule::trust_domain("a").unwrap()]);
        let two = certificate(&["spiffe://a/1", "spiffe://a/2"], &[]);
        let error = rules.judge(&two).unwrap_err();
        assert_eq!(
            error,
            "expected the peer to be spiffe://a/…, its certificate has the names spiffe://a/1, \
             spiffe://a/2 and no SPIFFE ID"
        );
        let names = PeerNames::of(&certificate(&[], &["x.y", "*.z.test"])).unwrap();
        assert_eq!(
            (names.dns_names(), names.spiffe_id()),
            (&["x.y".into(), "*.z.test".into()][..], None)
        );
        assert!(rules.judge(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
