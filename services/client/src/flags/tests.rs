//! Flags as a user types them, good and bad.

use clap::CommandFactory;

use super::*;

fn parse(args: &[&str]) -> Result<Flags, String> {
    let args = std::iter::once("client").chain(args.iter().copied());
    Flags::try_parse_from(args).map_err(|error| error.to_string())
}

fn plan(args: &[&str]) -> Result<Plan, String> {
    parse(args)?.plan().map_err(|error| error.to_string())
}

#[test]
fn the_command_is_consistent() {
    Flags::command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_example_of_2018() {
    let mode = Mode::Open { rate: 1.0, in_flight_max: 5_000 };
    assert_eq!(plan(&[]), Ok(Plan { mode, count: Some(10_000), duration: None }));
    let flags = parse(&[]).unwrap();
    assert_eq!(flags.call_timeout(), Some(Duration::from_secs(5)));
    assert_eq!(flags.policy().unwrap(), "round_robin");
}

#[test]
fn counts_durations_and_modes_combine() {
    let closed = |workers| Mode::Closed { workers, pause: Duration::ZERO };
    let open = |rate, in_flight_max| Mode::Open { rate, in_flight_max };
    let two = Some(Duration::from_secs(2));
    for (args, mode, count, duration) in [
        (&["--rate", "0"][..], closed(1), Some(10_000), None),
        (&["--rate", "-0", "--concurrency", "8"], closed(8), Some(10_000), None),
        (&["--rate", "2.5", "--concurrency", "8"], open(2.5, 8), Some(10_000), None),
        (&["--duration", "2s"], open(1.0, 5_000), None, two),
        (&["--duration=2s", "--count=7"], open(1.0, 5_000), Some(7), two),
        (&["--count", "0"], open(1.0, 5_000), None, None),
        (&["--duration", "0"], open(1.0, 5_000), Some(10_000), None),
    ] {
        assert_eq!(plan(args), Ok(Plan { mode, count, duration }), "{args:?}");
    }
    assert_eq!(parse(&["--timeout", "0s"]).unwrap().call_timeout(), None);
}

#[test]
fn bad_input_is_refused_with_what_was_expected() {
    for (args, says) in [
        (&["--rate", "NaN"][..], "from 0 to 1000000, got \"NaN\""),
        (&["--rate", "inf"], "got \"inf\""),
        (&["--rate", "-1"], "got \"-1\""),
        (&["--rate", "fast"], "got \"fast\""),
        (&["--rate", "1e7"], "got \"1e7\""),
        (&["--count", "-1"], "invalid digit"),
        (&["--count", "many"], "invalid digit"),
        (&["--concurrency", "0"], "0 is not in 1..=1000000"),
        (&["--concurrency", "2000000"], "not in 1..=1000000"),
        (&["--duration", "5"], "a unit is missing; expected numbers with units such as 5s"),
        (&["--timeout", "-5s"], "it is negative"),
        (&["--timeout", "--quiet"], "a number is missing"),
        (&["--timeout=-5s"], "it is negative"),
        (&["--timeout", ""], "it is empty"),
        (&["--warmup", "soon"], "a number is missing"),
        (&["--slots", "0s", "--output", "json"], "more than zero"),
        (&["--slots", "1s"], "add --output json"),
        (&["--slots", "1us", "--output", "json", "--duration", "1h"], "more than 100000 slots"),
        (&["--backoff-max", "0s"], "more than zero"),
        (&["--keepalive-timeout", "1s"], "--keepalive-time"),
        (&["--allow-aggressive-keepalive"], "--keepalive-time"),
        (&["--tls"], "--tls-ca <FILE>"),
        (&["--tls-ca", "ca.crt"], "--tls"),
        (&["--tls", "--tls-ca", "ca.crt", "--tls-cert", "tls.crt"], "--tls-key <FILE>"),
        (&["--output", "xml"], "[possible values: text, json]"),
        (&["--admin-listen", "9090"], "invalid socket address"),
        (&["--unknown"], "unexpected argument '--unknown'"),
        (&["extra"], "unexpected argument 'extra'"),
    ] {
        let error = plan(args).expect_err(&format!("{args:?}"));
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

#[test]
fn a_service_config_names_the_policy_that_is_announced() {
    let policy = |json| {
        let flags = parse(&["--lb-policy", "pick_first", "--service-config", json]).unwrap();
        flags.policy().map_err(|error| error.to_string())
    };
    let config = r#"{"loadBalancingConfig":[{"unheard_of":{}},{"round_robin":{}}]}"#;
    assert_eq!(policy(config).as_deref(), Ok("round_robin"));
    assert_eq!(policy("{}").as_deref(), Ok("pick_first"));
    for (json, says) in [
        ("", "--service-config: (whole text): expected JSON"),
        ("[]", "expected a JSON object, got []"),
        ("{\"a\":", "expected JSON"),
        ("round_robin", "got round_robin"),
        (r#"{"loadBalancingConfig":[{"unheard_of":{}}]}"#, "expected a policy among"),
    ] {
        let error = policy(json).unwrap_err();
        assert!(error.contains(says), "{json}: {error}");
    }
}

#[test]
fn a_shorter_backoff_shortens_the_first_wait_too() {
    assert_eq!(backoff_up_to(Duration::from_secs(5)).initial, Duration::from_secs(1));
    assert_eq!(backoff_up_to(Duration::from_millis(5)).initial, Duration::from_millis(5));
}

/// The README's table, from the flags themselves.
fn table() -> String {
    let mut table = String::from("| flag | environment | default | meaning |\n|---|---|---|---|\n");
    for arg in Flags::command().get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let value = match arg.get_value_names() {
            Some([name, ..]) if arg.get_action().takes_values() => format!(" {name}"),
            _ => String::new(),
        };
        let env = arg.get_env().map_or(String::new(), |env| format!("`{}`", env.display()));
        let default = match arg.get_default_values() {
            [default] if arg.get_action().takes_values() => format!("`{}`", default.display()),
            _ => String::new(),
        };
        let help = arg.get_help().map_or(String::new(), ToString::to_string);
        table += &format!("| `--{long}{value}` | {env} | {default} | {help} |\n");
    }
    table
}

#[test]
fn the_readme_has_the_flags_as_they_are() {
    let readme = include_str!("../../README.md");
    let table = table();
    assert!(readme.contains(&table), "README.md should have this table:\n{table}");
}
