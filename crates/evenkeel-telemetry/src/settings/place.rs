//! Where a signal goes: spans and metrics have variables of their own, before which those for both
//! stand back.

use std::{fmt, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};

use super::{Lookup, SettingsError, WAIT_MS_MAX, pairs, parse, wrong};

/// Headers that `OTEL_EXPORTER_OTLP_HEADERS` may have.
const HEADERS_MAX: usize = 64;

/// The variables of one signal, its own first, and its path below a base.
pub(super) struct Signal {
    endpoint: [&'static str; 2],
    protocol: [&'static str; 2],
    headers: [&'static str; 2],
    timeout: [&'static str; 2],
    roots: [&'static str; 2],
    chain: [&'static str; 2],
    key: [&'static str; 2],
    path: &'static str,
}

pub(super) const TRACES: Signal = Signal {
    endpoint: ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    protocol: ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
    headers: ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
    timeout: ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
    roots: ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"],
    chain: [
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    ],
    key: ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"],
    path: "/v1/traces",
};

pub(super) const METRICS: Signal = Signal {
    endpoint: ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    protocol: ["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
    headers: ["OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
    timeout: ["OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
    roots: ["OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"],
    chain: [
        "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    ],
    key: ["OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"],
    path: "/v1/metrics",
};

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// OTLP over gRPC; a collector's port 4317.
    Grpc,
    /// OTLP over HTTP/1.1, as protobuf; a collector's port 4318.
    HttpProtobuf,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        })
    }
}

/// A collector, and how it is spoken to.
#[derive(Clone)]
#[non_exhaustive]
pub struct Place {
    /// By what protocol.
    pub protocol: Protocol,
    /// Its host and port.
    pub authority: String,
    /// Under which path; HTTP only.
    pub path: PathAndQuery,
    /// Sent with each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// How the connection is secured; plain text without it.
    pub tls: Option<PlaceTls>,
}

/// What a collector with TLS is trusted by, and is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaceTls {
    /// A PEM file with the roots that its certificate may end in; the system's without one.
    pub roots: Option<PathBuf>,
    /// PEM files with the client's certificate and its key, where the collector asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls.is_some() { " with TLS" } else { "" };
        write!(f, "{} over {}{tls}", self.authority, self.protocol)
    }
}

impl fmt::Debug for Place {
    /// Without the headers, which are where passwords are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} over {}", self.authority, self.path, self.protocol)
    }
}

impl Place {
    /// What the variables say; `None` when they name no endpoint.
    pub(super) fn read(signal: &Signal, lookup: Lookup<'_>) -> Result<Option<Self>, SettingsError> {
        let Some((variable, endpoint)) = first(&signal.endpoint, lookup) else { return Ok(None) };
        let protocol = protocol(signal, lookup)?;
        let Target { authority, path, is_secure } = target(signal, variable, &endpoint, protocol)?;
        let timeout = first(&signal.timeout, lookup);
        let timeout_ms = timeout.map_or(Ok(10_000), |(name, text)| parse(name, &text, WAIT_MS_MAX));
        let headers = headers(signal, lookup)?;
        let timeout = Duration::from_millis(timeout_ms?);
        let tls = is_secure.then(|| tls(signal, lookup)).transpose()?;
        Ok(Some(Self { protocol, authority, path, headers, timeout, tls }))
    }
}

fn first(names: &[&'static str], lookup: Lookup<'_>) -> Option<(&'static str, String)> {
    names.iter().find_map(|name| Some((*name, lookup(name)?)))
}

fn protocol(signal: &Signal, lookup: Lookup<'_>) -> Result<Protocol, SettingsError> {
    let named = first(&signal.protocol, lookup);
    let Some((name, text)) = named else { return Ok(Protocol::HttpProtobuf) };
    match text.as_str() {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        other => wrong(name, "grpc or http/protobuf", other),
    }
}

/// What an endpoint says.
struct Target {
    authority: String,
    /// For HTTP.
    path: PathAndQuery,
    is_secure: bool,
}

fn target(
    signal: &Signal,
    variable: &'static str,
    endpoint: &str,
    protocol: Protocol,
) -> Result<Target, SettingsError> {
    const EXPECTED: &str = "a URL such as http://collector:4318 (http/protobuf) or \
                            http://collector:4317 (grpc), or https for TLS";
    if endpoint.contains('@') {
        // Not shown: before the sign there is a password.
        return wrong(variable, EXPECTED, "one with a user's name in it");
    }
    let Ok(uri) = endpoint.parse::<Uri>() else { return wrong(variable, EXPECTED, endpoint) };
    let bare = protocol == Protocol::Grpc && uri.scheme().is_none();
    let is_secure = uri.scheme_str() == Some("https");
    let is_good = bare || is_secure || uri.scheme_str() == Some("http");
    let Some(authority) = uri.authority().filter(|a| is_good && !a.host().is_empty()) else {
        return wrong(variable, EXPECTED, endpoint);
    };
    let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let authority = format!("{}:{port}", authority.host());
    let base = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    // The variable for all signals names a base, a signal's own the very place.
    let path = match variable == signal.endpoint[0] {
        true => base.to_owned(),
        false => format!("{}{}", base.trim_end_matches('/'), signal.path),
    };
    match PathAndQuery::try_from(path) {
        Ok(path) => Ok(Target { authority, path, is_secure }),
        Err(_) => wrong(variable, EXPECTED, endpoint),
    }
}

fn tls(signal: &Signal, lookup: Lookup<'_>) -> Result<PlaceTls, SettingsError> {
    let file = |names| first(names, lookup).map(|(_, file)| PathBuf::from(file));
    let identity = match (file(&signal.chain), file(&signal.key)) {
        (Some(chain), Some(key)) => Some((chain, key)),
        (None, None) => None,
        (Some(_), None) => return wrong(signal.key[1], "the certificate's key as well", ""),
        (None, Some(_)) => return wrong(signal.chain[1], "the key's certificate as well", ""),
    };
    Ok(PlaceTls { roots: file(&signal.roots), identity })
}

fn headers(
    signal: &Signal,
    lookup: Lookup<'_>,
) -> Result<Vec<(HeaderName, HeaderValue)>, SettingsError> {
    let Some((variable, list)) = first(&signal.headers, lookup) else { return Ok(Vec::new()) };
    let parse = |(name, value): (String, String)| {
        // The value is not shown: it may be a password.
        let Ok(header) = HeaderName::try_from(name.to_ascii_lowercase()) else {
            return wrong(variable, "names of headers", &name);
        };
        let Ok(mut value) = HeaderValue::try_from(value) else {
            return wrong(variable, "values without control characters", &name);
        };
        value.set_sensitive(true);
        Ok((header, value))
    };
    pairs(variable, &list, HEADERS_MAX)?.into_iter().map(parse).collect()
}
