//! Flags as scenario runners give them, and those that must not pass.

use clap::CommandFactory;

use super::*;

fn read(args: &[&str]) -> Result<Flags, String> {
    let args = ["conformance-client", "--target", "static:///"].iter().chain(args);
    Flags::read(args.map(OsString::from)).map_err(|error| {
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    })
}

fn closed(workers: u32) -> Mode {
    Mode::Closed { workers, pause: Duration::ZERO }
}

#[test]
fn the_command_is_consistent() {
    Flags::command().debug_assert();
}

#[test]
fn plans_are_those_of_peer_client() {
    let two = Some(Duration::from_secs(2));
    let open = Mode::Open { rate: 500.0, in_flight_max: 5_000 };
    let paused = Mode::Closed { workers: 1, pause: Duration::from_millis(10) };
    for (args, mode, count, duration) in [
        (&[][..], closed(1), Some(3_000), None),
        (&["--count", "5"], closed(1), Some(5), None),
        (&["--count=5", "--concurrency=16"], closed(16), Some(5), None),
        (&["--rps", "500", "--duration", "2s"], open, None, two),
        (&["--rps", "500", "--duration", "2s", "--count", "9"], open, Some(9), two),
        (&["--print"], closed(1), None, None),
        (&["--print", "--rps", "5", "--interval", "10ms"], paused, None, None),
        (&["--count", "5", "--count", "6"], closed(1), Some(6), None),
    ] {
        assert_eq!(read(args).unwrap().plan(), Plan { mode, count, duration }, "{args:?}");
    }
}

#[test]
fn switches_take_a_value_only_behind_an_equals_sign() {
    assert!(read(&["--wait-for-ready"]).unwrap().wait_for_ready);
    assert!(read(&["--wait-for-ready=true"]).unwrap().wait_for_ready);
    assert!(!read(&["--wait-for-ready=false"]).unwrap().wait_for_ready);
    assert!(read(&["--states", "--no-stdin", "--count", "1"]).unwrap().states);
    assert!(read(&["--states", "true"]).is_err());
}

#[test]
fn unsupported_flags_are_refused_by_name() {
    for (flag, _) in UNSUPPORTED {
        for args in [vec![flag, "x"], vec![&format!("{flag}=x")]] {
            let error = read(&args).expect_err(flag);
            assert!(error.starts_with(&format!("{flag} is not supported: ")), "{error}");
        }
    }
}

#[test]
fn bad_values_are_refused_with_what_was_expected() {
    for (args, says) in [
        (&["--no-such-flag"][..], "unexpected argument '--no-such-flag'"),
        (&["--rps", "-5"], "got \"-5\""),
        (&["--rps", "NaN"], "got \"NaN\""),
        (&["--duration", "5"], "a unit is missing"),
        (&["--duration", "-1s"], "it is negative"),
        (&["--count", "-1"], "invalid digit"),
        (&["--concurrency", "0"], "0 is not in 1..=1000000"),
        (&["--max-inflight", "0"], "0 is not in 1..=1000000"),
        (&["--hash-keys", "0"], "--hash-keys"),
        (&["--policy-config", "[1]"], "expected a JSON object, got [1]"),
        (&["--policy-config", "{"], "expected a JSON object"),
        (&["--policy-config", "{}", "--policy", "none"], "needs the --policy"),
        (&["--policy-config", "{}", "--service-config", "{}"], "cannot be used with"),
        (&["--method-config", "{}"], "expected a JSON list, got {}"),
        (&["--method-config", "[]", "--service-config", "{}"], "cannot be used with"),
        (&["extra"], "unexpected argument 'extra'"),
    ] {
        let error = read(args).expect_err(&format!("{args:?}"));
        assert!(error.contains(says), "{args:?}: {error}");
    }
    let header = read(&["--hash-header", "no header"]).unwrap().hash_header().unwrap_err();
    assert!(header.contains("got \"no header\""), "{header}");
}

#[test]
fn the_service_config_names_the_policy() {
    let config = |args| read(args).unwrap().service_config();
    for (args, want) in [
        (&[][..], r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#),
        (&["--policy", "none"], "{}"),
        (
            &["--method-config", r#"[{"name":[{}]}]"#, "--policy", "pick_first"],
            r#"{"loadBalancingConfig":[{"pick_first":{}}],"methodConfig":[{"name":[{}]}]}"#,
        ),
        (
            &["--health-check", "helloworld.Greeter", "--policy", "none"],
            r#"{"healthCheckConfig":{"serviceName":"helloworld.Greeter"}}"#,
        ),
        (&["--service-config", "{}"], "{}"),
        (
            &["--policy", "pick_first", "--policy-config", r#"{"shuffleAddressList":true}"#],
            r#"{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":true}}]}"#,
        ),
    ] {
        assert_eq!(config(args), want, "{args:?}");
    }
    assert_eq!(read(&["--policy", "none"]).unwrap().policy_shown(), "");
}

#[test]
fn a_long_least_dns_interval_lifts_the_longest_one() {
    let dns = read(&["--min-dns-interval", "45s", "--dns-timeout", "2s"]).unwrap().dns();
    let (s45, s2) = (Duration::from_secs(45), Duration::from_secs(2));
    assert_eq!((dns.interval_min, dns.interval_max, dns.timeout), (s45, s45, s2));
    assert_eq!(read(&[]).unwrap().dns(), DnsOptions::default());
}

#[test]
fn help_goes_to_stdout_and_is_no_error() {
    let args = ["conformance-client", "--help"].map(OsString::from);
    assert_eq!(Flags::read(args).unwrap_err().exit_code(), 0);
}
