//! TLS between Envoys, and SDS: a listener or cluster names secrets, which come as resources of
//! their own, so that a new certificate rebuilds nothing and cuts no connection. gRPC clients have
//! their certificates from their own bootstrap (A29) and are told only whom to trust.

use std::sync::Arc;

use evenkeel_proto::envoy::{
    config::core::v3::{
        DataSource, TransportSocket, data_source::Specifier, transport_socket::ConfigType,
    },
    extensions::transport_sockets::tls::v3::{
        CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
        DownstreamTlsContext, SdsSecretConfig, Secret, SubjectAltNameMatcher, TlsCertificate,
        TlsParameters, UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        secret::Type,
        subject_alt_name_matcher::SanType,
        tls_parameters::TlsProtocol,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::encode::{ads, any, resource};
use crate::{
    access::{Allowed, Wanted},
    xds::resource::Resource,
};

const SOCKET: &str = "envoy.transport_sockets.tls";
const TYPES: &str = "envoy.extensions.transport_sockets.tls.v3";
/// The instance that gRPC's bootstrap has to define under `certificate_providers`.
const PROVIDER: &str = "default";

/// The contents of an identity's files.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretFiles {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) roots: Vec<u8>,
}

/// Names no key in a log.
impl std::fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretFiles").finish_non_exhaustive()
    }
}

/// The secret with an identity's certificate and key, and the one with its roots.
pub(crate) fn secrets(identity: &str, files: &SecretFiles) -> [Arc<Resource>; 2] {
    let inline =
        |bytes: &[u8]| Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())) });
    let certificate = Secret {
        name: identity.to_owned(),
        r#type: Some(Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(&files.certificate),
            private_key: inline(&files.key),
        })),
    };
    let name = roots_name(identity);
    let roots = CertificateValidationContext {
        trusted_ca: inline(&files.roots),
        ..CertificateValidationContext::default()
    };
    let roots = Secret { name: name.clone(), r#type: Some(Type::ValidationContext(roots)) };
    [resource(identity, &certificate), resource(&name, &roots)]
}

fn roots_name(identity: &str) -> String {
    format!("{identity}/roots")
}

/// A client's side.
pub(super) fn upstream(identity: &str, servers: &Allowed) -> TransportSocket {
    let context = UpstreamTlsContext {
        common_tls_context: Some(common(identity, Some(servers))),
        ..UpstreamTlsContext::default()
    };
    transport_socket("UpstreamTlsContext", &context)
}

/// A server's side; clients have to show a certificate.
pub(super) fn downstream(identity: &str, clients: Option<&Allowed>) -> TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(common(identity, clients)),
        require_client_certificate: Some(true),
    };
    transport_socket("DownstreamTlsContext", &context)
}

/// The side of a gRPC client, whose bootstrap says where its certificate and its roots are.
pub(super) fn upstream_by_bootstrap(servers: &Allowed) -> TransportSocket {
    let instance = || {
        let instance_name = PROVIDER.to_owned();
        Some(CertificateProviderPluginInstance { instance_name, ..Default::default() })
    };
    let validation = CertificateValidationContext {
        ca_certificate_provider_instance: instance(),
        // The newer, typed field is not read by gRPC.
        match_subject_alt_names: servers.wanted().map(|name| matcher(name).1).collect(),
        ..CertificateValidationContext::default()
    };
    let common = CommonTlsContext {
        tls_certificate_provider_instance: instance(),
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..CommonTlsContext::default()
    };
    let context =
        UpstreamTlsContext { common_tls_context: Some(common), ..UpstreamTlsContext::default() };
    transport_socket("UpstreamTlsContext", &context)
}

fn transport_socket(name: &str, context: &impl prost::Message) -> TransportSocket {
    let config = ConfigType::TypedConfig(any(&format!("{TYPES}.{name}"), context));
    TransportSocket { name: SOCKET.to_owned(), config_type: Some(config) }
}

fn common(identity: &str, others: Option<&Allowed>) -> CommonTlsContext {
    let secret = |name: String| SdsSecretConfig { name, sds_config: Some(ads()) };
    let typed = |name| {
        let (san_type, matcher) = matcher(name);
        SubjectAltNameMatcher { san_type: san_type.into(), matcher: Some(matcher) }
    };
    let names = others.map(|others| others.wanted().map(typed).collect());
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: names.unwrap_or_default(),
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(roots_name(identity))),
    };
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        }),
        alpn_protocols: vec!["h2".into()],
        tls_certificate_sds_secret_configs: vec![secret(identity.to_owned())],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..CommonTlsContext::default()
    }
}

fn matcher(name: Wanted<'_>) -> (SanType, StringMatcher) {
    let (san, pattern) = match name {
        Wanted::Uri(uri) => (SanType::Uri, MatchPattern::Exact(uri.to_owned())),
        Wanted::UriBelow(prefix) => (SanType::Uri, MatchPattern::Prefix(prefix.to_owned())),
        Wanted::Dns(dns) => (SanType::Dns, MatchPattern::Exact(dns.to_owned())),
    };
    (san, StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() })
}
