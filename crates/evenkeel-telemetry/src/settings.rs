//! What is sent where, from OpenTelemetry's standard variables. Where the specification asks to
//! warn and to go on with a default, this is an error: a sampler that is misspelled in a manifest
//! should be seen at start, and not when the spans are missed.

use std::{env, fmt, time::Duration};

use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};

use crate::{otlp::Resource, resource, sampler::Sampler};

/// Headers that `OTEL_EXPORTER_OTLP_HEADERS` may have.
const HEADERS_MAX: usize = 64;
/// Spans that may wait to be sent, at most: some 1 KiB each.
const QUEUE_MAX: u64 = 1_000_000;
/// Spans in one request, at most: collectors take 4 MiB.
const BATCH_MAX: u64 = 4_096;
/// The longest time-out and delay, in milliseconds.
const WAIT_MS_MAX: u64 = 600_000;
/// The longest variable that is read.
const VARIABLE_BYTES_MAX: usize = 64 * 1024;

const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];

/// What a variable says; `None` when it is not set or empty, which is the same.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable says something that can't be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(crate) String);

/// How spans are sent.
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

/// Everything that sending spans needs.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// By what protocol.
    pub protocol: Protocol,
    /// To which host and port.
    pub authority: String,
    /// Under which path; HTTP only.
    pub path: PathAndQuery,
    /// Sent with each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// What is recorded.
    pub sampler: Sampler,
    /// Spans that may wait; more are dropped and counted.
    pub queue_max: usize,
    /// Spans in one request.
    pub batch_max: usize,
    /// How long spans wait for others.
    pub delay: Duration,
    /// Who sends them.
    pub(crate) resource: Resource,
}

impl fmt::Debug for Settings {
    /// Without the headers, which are where passwords are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Settings");
        debug.field("protocol", &self.protocol).field("authority", &self.authority);
        debug.field("path", &self.path).field("sampler", &self.sampler).finish_non_exhaustive()
    }
}

impl Settings {
    /// Reads the process's variables; `None` when they ask for no spans, as they do when they name
    /// no endpoint. `service` is the name of the program.
    ///
    /// # Errors
    ///
    /// A variable that can't be meant: its name, what was expected, what came.
    pub fn from_env(service: &str) -> Result<Option<Self>, SettingsError> {
        Self::read(service, &|name| env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// As [`Settings::from_env`], with variables from elsewhere.
    ///
    /// # Errors
    ///
    /// Those of [`Settings::from_env`].
    pub fn read(
        service: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let lookup: Lookup<'_> = &lookup;
        if is_off(lookup)? {
            return Ok(None);
        }
        let Some((variable, endpoint)) = first(&ENDPOINT, lookup) else { return Ok(None) };
        let protocol = protocol(lookup)?;
        let (authority, path) = target(variable, &endpoint, protocol)?;
        let sampler = lookup("OTEL_TRACES_SAMPLER");
        let argument = lookup("OTEL_TRACES_SAMPLER_ARG");
        let sampler = sampler.map_or(Ok(Sampler::default()), |name| {
            Sampler::parse(&name, argument.as_deref()).map_err(SettingsError)
        })?;
        let queue_max = number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048, QUEUE_MAX, lookup)?;
        let batch_max = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, BATCH_MAX, lookup)?;
        let delay_ms = number("OTEL_BSP_SCHEDULE_DELAY", 5_000, WAIT_MS_MAX, lookup)?;
        let timeout = first(&TIMEOUT, lookup);
        let timeout_ms = timeout.map_or(Ok(10_000), |(name, text)| parse(name, &text, WAIT_MS_MAX));
        Ok(Some(Self {
            protocol,
            authority,
            path,
            headers: headers(lookup)?,
            timeout: Duration::from_millis(timeout_ms?),
            sampler,
            queue_max: queue_max as usize,
            batch_max: batch_max.min(queue_max) as usize,
            delay: Duration::from_millis(delay_ms),
            resource: resource::read(service, lookup)?,
        }))
    }
}

fn wrong<T>(name: &str, expected: &str, got: &str) -> Result<T, SettingsError> {
    let got: String = got.chars().take(100).collect();
    Err(SettingsError(format!("{name}: expected {expected}; got {got:?}")))
}

fn is_off(lookup: Lookup<'_>) -> Result<bool, SettingsError> {
    const DISABLED: &str = "OTEL_SDK_DISABLED";
    const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
    let disabled = match lookup(DISABLED) {
        None => false,
        Some(text) if text.eq_ignore_ascii_case("false") => false,
        Some(text) if text.eq_ignore_ascii_case("true") => true,
        Some(text) => return wrong(DISABLED, "true or false", &text),
    };
    match lookup(EXPORTER).as_deref() {
        None | Some("otlp") => Ok(disabled),
        Some("none") => Ok(true),
        Some(other) => wrong(EXPORTER, "otlp or none", other),
    }
}

fn first(names: &[&'static str], lookup: Lookup<'_>) -> Option<(&'static str, String)> {
    names.iter().find_map(|name| Some((*name, lookup(name)?)))
}

fn protocol(lookup: Lookup<'_>) -> Result<Protocol, SettingsError> {
    let Some((name, text)) = first(&PROTOCOL, lookup) else { return Ok(Protocol::HttpProtobuf) };
    match text.as_str() {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        other => wrong(name, "grpc or http/protobuf", other),
    }
}

/// Host and port, and the path for HTTP.
fn target(
    variable: &'static str,
    endpoint: &str,
    protocol: Protocol,
) -> Result<(String, PathAndQuery), SettingsError> {
    const EXPECTED: &str = "a URL such as http://collector:4318 (http/protobuf) or \
                            http://collector:4317 (grpc), without TLS";
    if endpoint.contains('@') {
        // Not shown: before the sign there is a password.
        return wrong(variable, EXPECTED, "one with a user's name in it");
    }
    let Ok(uri) = endpoint.parse::<Uri>() else { return wrong(variable, EXPECTED, endpoint) };
    let bare = protocol == Protocol::Grpc && uri.scheme().is_none();
    let is_good = bare || uri.scheme_str() == Some("http");
    let Some(authority) = uri.authority().filter(|a| is_good && !a.host().is_empty()) else {
        return wrong(variable, EXPECTED, endpoint);
    };
    let port = authority.port_u16().unwrap_or(80);
    let authority = format!("{}:{port}", authority.host());
    let base = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    // The variable for all signals names a base, the one for traces the very place.
    let path = match variable == ENDPOINT[0] {
        true => base.to_owned(),
        false => format!("{}/v1/traces", base.trim_end_matches('/')),
    };
    match PathAndQuery::try_from(path) {
        Ok(path) => Ok((authority, path)),
        Err(_) => wrong(variable, EXPECTED, endpoint),
    }
}

fn headers(lookup: Lookup<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, SettingsError> {
    let Some((variable, list)) = first(&HEADERS, lookup) else { return Ok(Vec::new()) };
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

fn number(name: &str, default: u64, max: u64, lookup: Lookup<'_>) -> Result<u64, SettingsError> {
    lookup(name).map_or(Ok(default), |text| parse(name, &text, max))
}

fn parse(name: &str, text: &str, max: u64) -> Result<u64, SettingsError> {
    match text.trim().parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => wrong(name, &format!("a number from 1 to {max}"), text),
    }
}

/// Reads `a=1,b=two%20words`, the form of W3C Baggage that OpenTelemetry's variables have.
pub(crate) fn pairs(
    variable: &str,
    list: &str,
    max: usize,
) -> Result<Vec<(String, String)>, SettingsError> {
    const EXPECTED: &str = "key=value pairs with commas between them, other characters as %XX";
    let mut found = Vec::new();
    // The text itself is not shown, where it could be a password.
    let bad = |what: &str| wrong(variable, EXPECTED, what);
    if list.len() > VARIABLE_BYTES_MAX {
        return bad("more than 64 KiB");
    }
    for (k, pair) in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()).enumerate() {
        if k == max {
            return bad(&format!("more than {max} pairs"));
        }
        let Some((key, value)) = pair.split_once('=') else {
            return bad(&format!("pair {} without an equals sign", k + 1));
        };
        match (decode(key.trim()), decode(value.trim())) {
            (Some(key), Some(value)) if !key.is_empty() => found.push((key, value)),
            _ => return bad(&format!("pair {}, which can't be read", k + 1)),
        }
    }
    Ok(found)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests;
