//! What is sent where, from OpenTelemetry's standard variables. Where the specification asks to
//! warn and to go on with a default, this is an error: a sampler that is misspelled in a manifest
//! should be seen at start, and not when the spans are missed.

mod metrics;
mod place;

use std::{env, fmt, time::Duration};

pub use metrics::MetricsSettings;
pub use place::{Place, PlaceTls, Protocol};

use crate::{otlp::Resource, resource, sampler::Sampler};

/// Spans that may wait to be sent, at most: some 1 KiB each.
const QUEUE_MAX: u64 = 1_000_000;
/// Spans in one request, at most: collectors take 4 MiB.
const BATCH_MAX: u64 = 4_096;
/// The longest time-out and delay, in milliseconds.
const WAIT_MS_MAX: u64 = 600_000;
/// The longest variable that is read.
const VARIABLE_BYTES_MAX: usize = 64 * 1024;

/// What a variable says; `None` when it is not set or empty, which is the same.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable says something that can't be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(crate) String);

/// Everything that sending spans needs.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Where they go.
    pub place: Place,
    /// What is recorded.
    pub sampler: Sampler,
    /// Contexts go along with calls, to the server and from the client.
    pub propagates: bool,
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Settings");
        debug.field("place", &self.place).field("sampler", &self.sampler).finish_non_exhaustive()
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
        Self::read(service, &of_process)
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
        let lookup = |name: &str| set(lookup, name);
        let lookup: Lookup<'_> = &lookup;
        if is_off(lookup)? {
            return Ok(None);
        }
        let Some(place) = Place::read(&place::TRACES, lookup)? else { return Ok(None) };
        let sampler = lookup("OTEL_TRACES_SAMPLER");
        let argument = lookup("OTEL_TRACES_SAMPLER_ARG");
        let sampler = sampler.map_or(Ok(Sampler::default()), |name| {
            Sampler::parse(&name, argument.as_deref()).map_err(SettingsError)
        })?;
        let queue_max = number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048, QUEUE_MAX, lookup)?;
        let batch_max = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, BATCH_MAX, lookup)?;
        let delay_ms = number("OTEL_BSP_SCHEDULE_DELAY", 5_000, WAIT_MS_MAX, lookup)?;
        Ok(Some(Self {
            place,
            sampler,
            propagates: propagates(lookup)?,
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
    const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
    let disabled = is_disabled(lookup)?;
    match lookup(EXPORTER).as_deref() {
        None | Some("otlp") => Ok(disabled),
        Some("none") => Ok(true),
        Some(other) => wrong(EXPORTER, "otlp or none", other),
    }
}

/// Whether W3C Trace Context is among the propagators. Of the others of the specification baggage
/// is none of ours, and goes along as the application's own header does.
fn propagates(lookup: Lookup<'_>) -> Result<bool, SettingsError> {
    const PROPAGATORS: &str = "OTEL_PROPAGATORS";
    let Some(list) = lookup(PROPAGATORS) else { return Ok(true) };
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    match names[..] {
        ["none"] => Ok(false),
        _ if names.iter().all(|name| ["tracecontext", "baggage"].contains(name)) => {
            Ok(names.contains(&"tracecontext"))
        }
        _ => wrong(PROPAGATORS, "tracecontext, baggage, both with a comma, or none", &list),
    }
}

/// Whether there is to be no telemetry at all.
fn is_disabled(lookup: Lookup<'_>) -> Result<bool, SettingsError> {
    const DISABLED: &str = "OTEL_SDK_DISABLED";
    match lookup(DISABLED) {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) => wrong(DISABLED, "true or false", &text),
    }
}

/// What a variable says, unless that is nothing.
fn set(lookup: Lookup<'_>, name: &str) -> Option<String> {
    lookup(name).filter(|value| !value.trim().is_empty())
}

/// The process's own variables.
fn of_process(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
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
