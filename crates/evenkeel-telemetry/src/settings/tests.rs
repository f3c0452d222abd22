//! The variables as users write them, and the table in README.md.

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
    Settings::read("test", &|name| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

fn good(variables: &[(&str, &str)]) -> Settings {
    read(variables).expect("good variables").expect("they ask for spans")
}

const TO: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

#[test]
fn without_an_endpoint_or_switched_off_nothing_is_sent() {
    for variables in [
        &[][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
        &[("OTEL_TRACES_SAMPLER", "always_on")],
        &[TO, ("OTEL_SDK_DISABLED", "true")],
        &[TO, ("OTEL_SDK_DISABLED", "TRUE")],
        &[TO, ("OTEL_TRACES_EXPORTER", "none")],
    ] {
        assert!(read(variables).expect("good").is_none(), "{variables:?}");
    }
    good(&[TO, ("OTEL_SDK_DISABLED", "false"), ("OTEL_TRACES_EXPORTER", "otlp")]);
}

#[test]
fn the_defaults_are_the_specifications() {
    let settings = good(&[TO]);
    assert_eq!(settings.protocol, Protocol::HttpProtobuf);
    assert_eq!(settings.authority, "collector:4318");
    assert_eq!(settings.path, "/v1/traces");
    assert_eq!(settings.timeout, Duration::from_secs(10));
    assert_eq!(settings.delay, Duration::from_secs(5));
    assert_eq!((settings.queue_max, settings.batch_max), (2_048, 512));
    assert_eq!(settings.sampler, Sampler::default());
    assert!(settings.headers.is_empty());
}

#[test]
fn the_variable_for_traces_goes_before_the_one_for_all() {
    let settings = good(&[
        TO,
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:9/exactly"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Authorization=Basic%20eA==, b=2"),
    ]);
    assert_eq!((settings.authority.as_str(), settings.path.as_str()), ("[::1]:9", "/exactly"));
    assert_eq!(settings.protocol, Protocol::HttpProtobuf);
    assert_eq!(settings.timeout, Duration::from_secs(2));
    let headers: Vec<_> =
        settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(headers, [("authorization", &b"Basic eA=="[..]), ("b", b"2")]);
}

#[test]
fn endpoints_are_urls_and_for_grpc_also_a_host_with_its_port() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    for (endpoint, authority) in [
        ("http://collector:4317", "collector:4317"),
        ("collector:4317", "collector:4317"),
        ("http://collector", "collector:80"),
        ("127.0.0.1:1", "127.0.0.1:1"),
    ] {
        let settings = good(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), grpc]);
        assert_eq!(settings.authority, authority);
    }
    let settings = good(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector/base/")]);
    assert_eq!(settings.path, "/base/v1/traces");
}

#[test]
fn a_bad_value_is_refused_with_its_variable_what_is_expected_and_what_came() {
    for (name, value, expected) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "a URL such as http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318", "without TLS"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "a URL"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "a number from 1 to 600000"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "a number from 1 to 600000"),
        ("OTEL_SDK_DISABLED", "yes", "true or false"),
        ("OTEL_TRACES_EXPORTER", "jaeger", "otlp or none"),
        ("OTEL_TRACES_SAMPLER", "on", "parentbased_always_on"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "a number from 1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000000", "a number from 1 to 4096"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon", "a number from 1"),
    ] {
        let variables = [(name, value), TO];
        let error = read(&variables).expect_err(value).to_string();
        assert!(error.starts_with(&format!("{name}: expected")), "{error}");
        assert!(error.contains(expected) && error.ends_with(&format!("{value:?}")), "{error}");
    }
}

#[test]
fn headers_and_attributes_that_cannot_be_read_are_refused_and_not_shown() {
    for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES"] {
        for list in ["secret", "=secret", "a=%zzsecret", "a=%f", "a=%ffsecret"] {
            let error = read(&[TO, (name, list)]).expect_err(list).to_string();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
        let many = "a=1,".repeat(200);
        assert!(read(&[TO, (name, &many)]).expect_err("many").to_string().contains("more than"));
    }
    for secret in [
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=line%0Asecret"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://me:secret@host:1"),
    ] {
        let error = read(&[TO, secret]).expect_err(secret.0).to_string();
        assert!(error.contains(secret.0) && !error.contains("secret"), "{error}");
    }
    let shown = format!("{:?}", good(&[TO, ("OTEL_EXPORTER_OTLP_HEADERS", "a=secret")]));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn the_readme_has_every_variable_that_is_read() {
    let asked = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let settings = Settings::read("test", &|name| {
        asked.borrow_mut().insert(name.to_owned());
        (name == TO.0).then(|| TO.1.to_owned())
    });
    settings.expect("good");
    let asked = asked.into_inner();
    let readme = include_str!("../../README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| Some(row.split_once(" |")?.0));
    let names = cells.flat_map(|cell| cell.split(", "));
    let named = names.map(|name| name.trim_matches('`').to_owned());
    let known: std::collections::BTreeSet<String> = named.collect();
    assert_eq!(asked.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(known.difference(&asked).all(|name| name == "LOG_FORMAT" || name == "RUST_LOG"));
}
