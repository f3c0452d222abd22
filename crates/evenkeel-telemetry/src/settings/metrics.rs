//! What becomes of metrics, from OpenTelemetry's variables and from who starts them: a service may
//! want a page for Prometheus, or numbers for a page of its own, where no variable asks for any.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    Lookup, SettingsError, WAIT_MS_MAX, is_disabled, number, of_process, place, set, wrong,
};
use crate::{otlp::Resource, resource, settings::Place};

const EXPORTER: &str = "OTEL_METRICS_EXPORTER";
const TEMPORALITY: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
const PAGE_HOST: &str = "OTEL_EXPORTER_PROMETHEUS_HOST";
const PAGE_PORT: &str = "OTEL_EXPORTER_PROMETHEUS_PORT";

/// What becomes of metrics.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MetricsSettings {
    /// Where they are sent by OTLP, if they are.
    pub place: Option<Place>,
    /// Where the page for Prometheus is, if there is one.
    pub page: Option<SocketAddr>,
    /// The time between two requests.
    pub interval: Duration,
    /// How long one request may take at most.
    pub timeout: Duration,
    /// Whose they are.
    pub(crate) resource: Resource,
}

impl MetricsSettings {
    /// Reads the process's variables; `None` when they ask for no metrics, as they do when they
    /// name neither an endpoint nor Prometheus. `service` is the name of the program.
    ///
    /// # Errors
    ///
    /// A variable that can't be meant: its name, what was expected, what came.
    pub fn from_env(service: &str) -> Result<Option<Self>, SettingsError> {
        Self::read(service, &of_process)
    }

    /// As [`MetricsSettings::from_env`], with variables from elsewhere.
    ///
    /// # Errors
    ///
    /// Those of [`MetricsSettings::from_env`].
    pub fn read(
        service: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        let read = Self::read_kept(service, lookup)?;
        Ok(Some(read).filter(|read| read.place.is_some() || read.page.is_some()))
    }

    /// What the process's variables ask for, and metrics also when they ask for none: for a page.
    ///
    /// # Errors
    ///
    /// Those of [`MetricsSettings::from_env`].
    pub fn kept(service: &str) -> Result<Self, SettingsError> {
        Self::read_kept(service, &of_process)
    }

    /// With the page for Prometheus there; port 0 takes a free port.
    #[must_use]
    pub fn page(self, address: SocketAddr) -> Self {
        Self { page: Some(address), ..self }
    }

    fn read_kept(service: &str, lookup: Lookup<'_>) -> Result<Self, SettingsError> {
        let lookup = |name: &str| set(lookup, name);
        let lookup: Lookup<'_> = &lookup;
        let exporters =
            if is_disabled(lookup)? { Exporters::default() } else { exporters(lookup)? };
        let place = if exporters.otlp { Place::read(&place::METRICS, lookup)? } else { None };
        if let Some(other) = lookup(TEMPORALITY).filter(|it| !it.eq_ignore_ascii_case("cumulative"))
        {
            return wrong(TEMPORALITY, "cumulative", &other);
        }
        let interval_ms = number("OTEL_METRIC_EXPORT_INTERVAL", 60_000, WAIT_MS_MAX, lookup)?;
        let timeout_ms = number("OTEL_METRIC_EXPORT_TIMEOUT", 30_000, WAIT_MS_MAX, lookup)?;
        Ok(Self {
            place,
            page: exporters.prometheus.then(|| page(lookup)).transpose()?,
            interval: Duration::from_millis(interval_ms),
            timeout: Duration::from_millis(timeout_ms),
            resource: resource::read(service, lookup)?,
        })
    }
}

#[derive(Default)]
struct Exporters {
    otlp: bool,
    prometheus: bool,
}

fn exporters(lookup: Lookup<'_>) -> Result<Exporters, SettingsError> {
    let list = lookup(EXPORTER).unwrap_or_else(|| "otlp".to_owned());
    let mut found = Exporters::default();
    for name in list.split(',').map(str::trim) {
        match name {
            "otlp" => found.otlp = true,
            "prometheus" => found.prometheus = true,
            "none" => {}
            other => {
                return wrong(EXPORTER, "otlp, prometheus or none, commas between them", other);
            }
        }
    }
    Ok(found)
}

fn page(lookup: Lookup<'_>) -> Result<SocketAddr, SettingsError> {
    let host = match lookup(PAGE_HOST).as_deref() {
        None | Some("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => match text.parse() {
            Ok(address) => address,
            Err(_) => return wrong(PAGE_HOST, "an IP address such as 0.0.0.0, or localhost", text),
        },
    };
    let port = number(PAGE_PORT, 9_464, u16::MAX.into(), lookup)?;
    Ok(SocketAddr::new(host, port as u16))
}
