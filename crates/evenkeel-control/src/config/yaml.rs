//! The configuration as YAML. Values are checked where they are read, so that the reader knows the
//! place; what needs two of them to be wrong (a name that is there twice) is checked afterwards.
//! Unknown fields are errors: a misspelt `drops` that drops nothing is found out by its victims.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_saphyr::{Location, Spanned};

use super::{
    ALIASES_MAX, CATEGORY_BYTES_MAX, CONFIG_BYTES_MAX, Config, ConfigError, DROPS_MAX, Limits,
    SERVICES_MAX, Selected, ServiceConfig,
    xds::{self, Identity, Secrets, Xds},
};
use crate::{
    access::Allowed,
    key::{Port, ServiceKey, check_label},
    names,
    snapshot::{Drop, ENDPOINTS_MAX, Endpoint, EndpointState, Policy, WEIGHT_DEFAULT, WEIGHT_MAX},
    sources::flags,
    weights::LoadAware,
    zones::CLIENT_SERVICES_MAX,
};

/// The most values that a file may have: as many as fit into the largest file.
const NODES_MAX: usize = CONFIG_BYTES_MAX / 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    services: Vec<Spanned<Service>>,
    #[serde(default)]
    limits: FileLimits,
    #[serde(default)]
    identities: BTreeMap<String, Spanned<Identity>>,
    #[serde(default)]
    secrets: Secrets,
    #[serde(default)]
    clients: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    streams_max: Option<Count>,
    streams_per_peer_max: Option<Count>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: Label,
    namespace: Option<Label>,
    port: Option<Port>,
    #[serde(default)]
    aliases: Vec<Spanned<String>>,
    endpoints: Option<Vec<Spanned<Place>>>,
    #[serde(default)]
    weights: BTreeMap<String, Weight>,
    #[serde(default)]
    drops: Vec<Spanned<DropRule>>,
    subset: Option<Subset>,
    allow: Option<Names>,
    load_aware: Option<LoadAware>,
    #[serde(default, deserialize_with = "xds::shared")]
    xds: Arc<Xds>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    address: Address,
    #[serde(default)]
    weight: Weight,
    region: Option<String>,
    zone: Option<String>,
    #[serde(default)]
    state: EndpointState,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DropRule {
    category: Category,
    percent: Percent,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subset {
    size: Count,
}

struct Label(String);
struct Address(SocketAddr);
struct Category(String);
struct Percent(f64);
struct Count(usize);
struct Weight(u32);
struct Names(Allowed);

impl Default for Weight {
    fn default() -> Self {
        Self(WEIGHT_DEFAULT)
    }
}

/// Reads a `T` and makes of it what `check` returns; its error gets the value's place.
fn checked<'de, D: Deserializer<'de>, T: DeserializeOwned, U>(
    deserializer: D,
    check: impl FnOnce(T) -> Result<U, String>,
) -> Result<U, D::Error> {
    check(T::deserialize(deserializer)?).map_err(D::Error::custom)
}

macro_rules! checked {
    ($($name:ident: $raw:ty => $check:expr;)*) => {
        $(impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                checked::<D, $raw, _>(deserializer, $check).map(Self)
            }
        })*
    };
}

checked! {
    Label: String => |text| check_label(&text).map(|()| text);
    Address: String => |text| address(&text);
    Category: String => category;
    Percent: f64 => percent;
    Count: i64 => count;
    Weight: i64 => weight;
    Names: Vec<String> => |names| Allowed::parse(names.iter().map(String::as_str));
}

/// Reads `IP:PORT`, also for flags.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected an IP address and a port from 1 to 65535, such as 10.0.0.1:8000 or \
                    [fd00::1]:8000";
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(format!("{expected}, got {text:?}")),
    }
}

fn category(text: String) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if (1..=CATEGORY_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text);
    }
    Err(format!(
        "category: expected 1 to {CATEGORY_BYTES_MAX} letters, digits, dashes, dots or \
         underscores, got {text:?}"
    ))
}

pub(super) fn percent(value: f64) -> Result<f64, String> {
    if value > 0.0 && value <= 100.0 {
        return Ok(value);
    }
    Err(format!("percent: expected more than 0 and at most 100, got {value}"))
}

fn count(value: i64) -> Result<usize, String> {
    match usize::try_from(value) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("expected a number of at least 1, got {value}")),
    }
}

fn weight(value: i64) -> Result<u32, String> {
    match u32::try_from(value) {
        Ok(weight) if (1..=WEIGHT_MAX).contains(&weight) => Ok(weight),
        _ => Err(format!(
            "weight: expected 1 to {WEIGHT_MAX}, got {value}; `state: draining` takes an endpoint \
             out"
        )),
    }
}

/// Where errors are found.
struct Reading<'a> {
    file: &'a str,
    default_namespace: &'a str,
}

impl Reading<'_> {
    fn at(&self, place: Location, message: impl Into<String>) -> ConfigError {
        ConfigError::At {
            file: self.file.to_owned(),
            line: place.line(),
            column: place.column(),
            message: message.into(),
        }
    }
}

pub(super) fn read(text: &str, file: &str, default_namespace: &str) -> Result<Config, ConfigError> {
    if text.len() > CONFIG_BYTES_MAX {
        let length = text.len();
        let message = format!("{file}: expected at most {CONFIG_BYTES_MAX} bytes, got {length}");
        return Err(ConfigError::Other(message));
    }
    let reading = Reading { file, default_namespace };
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: NODES_MAX, max_events: 2 * NODES_MAX },
    };
    let read: Option<File> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let message = error.to_string();
            match error.location() {
                Some(place) => reading.at(place, message),
                None => ConfigError::Other(format!("{file}: {message}")),
            }
        })?;
    // More likely a writer that has not begun than somebody who wants to serve nothing.
    let empty = || {
        let text = "expected services, got nothing; write `services: []` to serve none";
        ConfigError::Other(format!("{file}: {text}"))
    };
    config(read.ok_or_else(empty)?, &reading)
}

fn config(file: File, reading: &Reading<'_>) -> Result<Config, ConfigError> {
    let mut services = BTreeMap::new();
    let mut aliases = BTreeSet::new();
    let mut places = Vec::new();
    for Spanned { value, referenced, .. } in file.services {
        if services.len() == SERVICES_MAX {
            return Err(reading.at(referenced, format!("expected at most {SERVICES_MAX} services")));
        }
        let (key, service) = service(value, referenced, &mut aliases, reading)?;
        let text = key.to_string();
        places.push((key.clone(), referenced));
        if services.insert(key, service).is_some() {
            return Err(reading.at(referenced, format!("the service {text} is there twice")));
        }
    }
    let identities = identities(file.identities, reading)?;
    for (key, place) in places {
        references(&key, &services, &identities).map_err(|text| reading.at(place, text))?;
    }
    let FileLimits { streams_max, streams_per_peer_max } = file.limits;
    let limits = Limits {
        streams_max: streams_max.map(|count| count.0),
        streams_per_peer_max: streams_per_peer_max.map(|count| count.0),
    };
    if file.clients.len() > CLIENT_SERVICES_MAX {
        let message = format!("expected at most {CLIENT_SERVICES_MAX} `clients`");
        return Err(reading.at(file.clients[CLIENT_SERVICES_MAX].referenced, message));
    }
    let named = file.clients.into_iter().map(|Spanned { value, referenced, .. }| {
        let key = flags::client_service(&value, reading.default_namespace);
        key.map_err(|text| reading.at(referenced, text))
    });
    let clients = named.collect::<Result<_, _>>()?;
    let secrets = file.secrets;
    Ok(Config { services, limits, identities, secrets, load_aware: None, clients })
}

fn identities(
    read: BTreeMap<String, Spanned<Identity>>,
    reading: &Reading<'_>,
) -> Result<BTreeMap<String, Identity>, ConfigError> {
    let mut identities = BTreeMap::new();
    for (name, Spanned { value, referenced, .. }) in read {
        check_label(&name).map_err(|error| reading.at(referenced, error))?;
        if identities.len() == xds::IDENTITIES_MAX {
            let message = format!("expected at most {} identities", xds::IDENTITIES_MAX);
            return Err(reading.at(referenced, message));
        }
        identities.insert(name, value);
    }
    Ok(identities)
}

/// What a service refers to has to be there.
fn references(
    key: &ServiceKey,
    services: &BTreeMap<ServiceKey, ServiceConfig>,
    identities: &BTreeMap<String, Identity>,
) -> Result<(), String> {
    let Some(Xds { split, mtls, ingress, .. }) = services.get(key).map(|one| &*one.xds) else {
        return Ok(());
    };
    if let Some(part) = split.iter().map(|part| part.key(key)).find(|to| !services.contains_key(to))
    {
        return Err(format!("{key}: expected a split between services of this file, got {part}"));
    }
    let mtls = mtls.as_ref().map(|mtls| &mtls.identity);
    let ingress = ingress.as_ref().and_then(|ingress| ingress.identity.as_ref());
    match mtls.into_iter().chain(ingress).find(|name| !identities.contains_key(*name)) {
        Some(name) => Err(format!("{key}: expected one of `identities`, got {name:?}")),
        None => Ok(()),
    }
}

fn service(
    read: Service,
    place: Location,
    aliases: &mut BTreeSet<String>,
    reading: &Reading<'_>,
) -> Result<(ServiceKey, ServiceConfig), ConfigError> {
    let namespace = read.namespace.map_or(reading.default_namespace.to_owned(), |label| label.0);
    let key = ServiceKey { namespace, name: read.name.0, port: read.port };
    let limited = |what: &str, count: usize, max: usize| match count > max {
        true => {
            Err(reading.at(place, format!("{key}: expected at most {max} {what}, got {count}")))
        }
        false => Ok(()),
    };
    limited("aliases", read.aliases.len(), ALIASES_MAX)?;
    limited("weights", read.weights.len(), ENDPOINTS_MAX)?;
    limited("drops", read.drops.len(), DROPS_MAX)?;
    limited("endpoints", read.endpoints.as_ref().map_or(0, Vec::len), ENDPOINTS_MAX)?;
    let mut own = BTreeSet::new();
    for Spanned { value, referenced, .. } in read.aliases {
        let alias = names::normal(&value).map_err(|e| reading.at(referenced, e))?;
        if !aliases.insert(alias.clone()) {
            let message = format!("the alias {alias} is there twice");
            return Err(reading.at(referenced, message));
        }
        own.insert(alias);
    }
    let endpoints = read.endpoints.map(|places| endpoints(places, reading)).transpose()?;
    let weights = read.weights.into_iter().map(|(text, weight)| (selected(text), weight.0));
    let policy = Policy {
        drops: drops(read.drops, reading)?,
        subset: read.subset.map(|subset| subset.size.0),
        allow: read.allow.map(|names| names.0),
        load_aware: read.load_aware,
    };
    let (weights, policy, xds) = (weights.collect(), Arc::new(policy), read.xds);
    Ok((key, ServiceConfig { aliases: own, endpoints, weights, policy, xds }))
}

fn endpoints(
    places: Vec<Spanned<Place>>,
    reading: &Reading<'_>,
) -> Result<Vec<Endpoint>, ConfigError> {
    let mut seen = BTreeSet::new();
    let mut endpoints = Vec::with_capacity(places.len());
    for Spanned { value, referenced, .. } in places {
        let Place { address: Address(address), weight: Weight(weight), region, zone, state } =
            value;
        if !seen.insert(address) {
            let message = format!("the address {address} is there twice; weight gives it more");
            return Err(reading.at(referenced, message));
        }
        let (region, zone) = (region.map(Arc::from), zone.map(Arc::from));
        endpoints.push(Endpoint { weight, state, region, zone, ..Endpoint::new(address) });
    }
    Ok(endpoints)
}

fn drops(rules: Vec<Spanned<DropRule>>, reading: &Reading<'_>) -> Result<Vec<Drop>, ConfigError> {
    let mut drops: Vec<Drop> = Vec::with_capacity(rules.len());
    for Spanned { value, referenced, .. } in rules {
        let DropRule { category: Category(category), percent: Percent(percent) } = value;
        if drops.iter().any(|drop| drop.category == category) {
            let message = format!("the category {category} is there twice");
            return Err(reading.at(referenced, message));
        }
        drops.push(Drop { category, percent });
        let total: f64 = drops.iter().map(|drop| drop.percent).sum();
        if total > 100.0 {
            let message = format!("expected drops of at most 100 per cent together, got {total}");
            return Err(reading.at(referenced, message));
        }
    }
    Ok(drops)
}

fn selected(text: String) -> Selected {
    let address = || text.parse::<SocketAddr>().map(Selected::Address);
    let ip = || text.parse::<IpAddr>().map(Selected::Ip);
    address().or_else(|_| ip()).unwrap_or(Selected::Pod(text))
}
