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
    assert_eq!(settings.place.protocol, Protocol::HttpProtobuf);
    assert_eq!(settings.place.authority, "collector:4318");
    assert_eq!(settings.place.path, "/v1/traces");
    assert_eq!(settings.place.timeout, Duration::from_secs(10));
    assert_eq!(settings.delay, Duration::from_secs(5));
    assert_eq!((settings.queue_max, settings.batch_max), (2_048, 512));
    assert_eq!(settings.sampler, Sampler::default());
    assert!(settings.propagates);
    assert!(settings.place.headers.is_empty());
}

#[test]
fn contexts_go_along_if_the_propagators_say_so() {
    for (list, goes) in [
        ("tracecontext", true),
        ("tracecontext,baggage", true),
        (" baggage , tracecontext ", true),
        ("baggage", false),
        ("none", false),
    ] {
        assert_eq!(good(&[TO, ("OTEL_PROPAGATORS", list)]).propagates, goes, "{list:?}");
    }
    for list in ["b3", "tracecontext,jaeger", "none,tracecontext", "W3C"] {
        let error = read(&[TO, ("OTEL_PROPAGATORS", list)]).expect_err(list).to_string();
        assert!(error.starts_with("OTEL_PROPAGATORS: expected tracecontext"), "{error}");
        assert!(error.contains(list), "{error}");
    }
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
    assert_eq!(
        (settings.place.authority.as_str(), settings.place.path.as_str()),
        ("[::1]:9", "/exactly")
    );
    assert_eq!(settings.place.protocol, Protocol::HttpProtobuf);
    assert_eq!(settings.place.timeout, Duration::from_secs(2));
    let headers: Vec<_> = settings
        .place
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
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
        assert_eq!(settings.place.authority, authority);
    }
    let settings = good(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector/base/")]);
    assert_eq!(settings.place.path, "/base/v1/traces");
}

#[test]
fn https_is_tls_with_the_files_that_are_named() {
    let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector");
    let place = good(&[to]).place;
    assert_eq!((place.authority.as_str(), place.tls), ("collector:443", Some(PlaceTls::default())));
    assert_eq!(good(&[TO, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca")]).place.tls, None);
    let own = [
        to,
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/own-ca"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/chain"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key"),
    ];
    let place = good(&own).place;
    assert_eq!(place.to_string(), "collector:443 over http/protobuf with TLS");
    let tls = place.tls.expect("secure");
    assert_eq!(tls.roots, Some("/own-ca".into()));
    assert_eq!(tls.identity, Some(("/chain".into(), "/key".into())));
    let place = good_metrics(&own).place.expect("an endpoint");
    assert_eq!(place.tls.expect("secure").roots, Some("/ca".into()));
    for (half, other) in [(own[3], "CLIENT_KEY"), (own[4], "CLIENT_CERTIFICATE")] {
        let error = read(&[to, half]).expect_err("half").to_string();
        assert!(error.starts_with(&format!("OTEL_EXPORTER_OTLP_{other}: expected")), "{error}");
    }
}

#[test]
fn a_bad_value_is_refused_with_its_variable_what_is_expected_and_what_came() {
    for (name, value, expected) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "a URL such as http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector:4318", "https for TLS"),
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
    let lookup = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        match name {
            "OTEL_METRICS_EXPORTER" => Some("otlp,prometheus".to_owned()),
            name => (name == TO.0).then(|| "https://collector:4318".to_owned()),
        }
    };
    Settings::read("test", &lookup).expect("good");
    MetricsSettings::read("test", &lookup).expect("good");
    let asked = asked.into_inner();
    let readme = include_str!("../../README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter(|row| row.starts_with(|c: char| c.is_ascii_uppercase()));
    let cells = rows.filter_map(|row| Some(row.split_once(" |")?.0));
    let names = cells.flat_map(|cell| cell.split(", "));
    let named = names.map(|name| name.trim_matches('`').to_owned());
    let known: std::collections::BTreeSet<String> = named.collect();
    assert_eq!(asked.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(known.difference(&asked).all(|name| name == "LOG_FORMAT" || name == "RUST_LOG"));
}

fn metrics(variables: &[(&str, &str)]) -> Result<Option<MetricsSettings>, SettingsError> {
    MetricsSettings::read("test", &|name| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

fn good_metrics(variables: &[(&str, &str)]) -> MetricsSettings {
    metrics(variables).expect("good variables").expect("they ask for metrics")
}

#[test]
fn metrics_go_to_the_same_collector_unless_a_variable_says_otherwise() {
    let settings = good_metrics(&[TO]);
    let place = settings.place.expect("an endpoint");
    assert_eq!((place.authority.as_str(), place.path.as_str()), ("collector:4318", "/v1/metrics"));
    assert_eq!(settings.page, None);
    assert_eq!(settings.interval, Duration::from_secs(60));
    assert_eq!(settings.timeout, Duration::from_secs(30));
    let own = [TO, ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://other:1/exactly")];
    let place = good_metrics(&own).place.expect("an endpoint");
    assert_eq!((place.authority.as_str(), place.path.as_str()), ("other:1", "/exactly"));
    let spans = read(&own).expect("good").expect("they ask for spans");
    assert_eq!(spans.place.authority, "collector:4318");
}

#[test]
fn metrics_that_nobody_asks_for_are_not_kept() {
    for variables in [
        &[][..],
        &[TO, ("OTEL_METRICS_EXPORTER", "none")],
        &[TO, ("OTEL_SDK_DISABLED", "true")],
        &[("OTEL_METRICS_EXPORTER", "otlp")],
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318")],
        &[("OTEL_METRICS_EXPORTER", "prometheus"), ("OTEL_SDK_DISABLED", "true")],
    ] {
        assert!(metrics(variables).expect("good").is_none(), "{variables:?}");
    }
}

#[test]
fn a_page_is_where_the_specification_has_it_or_where_it_is_asked_for() {
    let page = ("OTEL_METRICS_EXPORTER", "prometheus");
    let settings = good_metrics(&[TO, page]);
    assert!(settings.place.is_none());
    assert_eq!(settings.page.expect("a page").to_string(), "127.0.0.1:9464");
    let there =
        [("OTEL_EXPORTER_PROMETHEUS_HOST", "::"), ("OTEL_EXPORTER_PROMETHEUS_PORT", "8001")];
    let settings = good_metrics(&[page, there[0], there[1]]);
    assert_eq!(settings.page.expect("a page").to_string(), "[::]:8001");
    let both = good_metrics(&[TO, ("OTEL_METRICS_EXPORTER", "otlp, prometheus")]);
    assert!(both.place.is_some() && both.page.is_some());
}

#[test]
fn a_bad_value_for_metrics_is_refused_with_its_variable() {
    for (name, value, expected) in [
        ("OTEL_METRICS_EXPORTER", "console", "otlp, prometheus or none"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1m", "a number from 1 to 600000"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "0", "a number from 1 to 600000"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "cumulative"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "collector", "a URL such as"),
    ] {
        let error = metrics(&[(name, value), TO]).expect_err(value).to_string();
        assert!(error.starts_with(&format!("{name}: expected")), "{error}");
        assert!(error.contains(expected) && error.ends_with(&format!("{value:?}")), "{error}");
    }
    for (name, value) in
        [("OTEL_EXPORTER_PROMETHEUS_HOST", "here"), ("OTEL_EXPORTER_PROMETHEUS_PORT", "0")]
    {
        let error = metrics(&[("OTEL_METRICS_EXPORTER", "prometheus"), (name, value)]);
        assert!(error.expect_err(value).to_string().starts_with(name));
    }
}
