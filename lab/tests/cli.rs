//! The lab as a user calls it: usage, exit codes, and what goes to stdout.

use std::process::{Command, Output};

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lab")).args(arguments).output().expect("the lab starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[test]
fn an_unknown_example_is_exit_2_with_the_known_ones_and_an_empty_stdout() {
    for word in ["teapot", "7", "-1x"] {
        let output = lab(&["run", "--", word]);
        assert_eq!(output.status.code(), Some(2), "{word}");
        let error = text(&output.stderr);
        assert!(error.contains("0 baseline, 1 round-robin"), "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_unknown_phase_is_exit_2_with_the_known_ones() {
    let output = lab(&["run", "round-robin", "--phase", "earthquake"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("steady, scale, age, kill, rolling, storm, replaced, hang"), "{error}");
}

#[test]
fn an_istiod_that_was_named_and_is_none_is_exit_2_before_anything_starts() {
    let output = lab(&["run", "mesh", "--control-plane", "istiod", "--istiod", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("--istiod names /nonexistent, which is no program"), "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn bad_usage_is_exit_2_and_help_is_exit_0() {
    for bad in [
        &["run"][..],
        &["run", "baseline", "--all"],
        &["dance"],
        &["bench", "--rounds", "0"],
        &["run", "0", "--output", "xml"],
    ] {
        let output = lab(bad);
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(output.stdout.is_empty(), "{bad:?}");
        assert!(!output.stderr.is_empty(), "{bad:?}");
    }
    let help = lab(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = text(&help.stdout);
    for command in ["bench", "doctor", "explain", "list", "report", "run", "serve"] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn list_prints_the_examples_as_text_and_as_json() {
    let plain = lab(&["list"]);
    assert_eq!(plain.status.code(), Some(0));
    assert!(text(&plain.stdout).contains("1 round-robin"));
    let json = lab(&["list", "--output", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one document");
    let names: Vec<&str> =
        rows.as_array().expect("a list").iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "baseline",
            "round-robin",
            "envoy-static",
            "envoy-dynamic",
            "mesh",
            "lookaside",
            "kubernetes"
        ]
    );
}

#[test]
fn doctor_finds_this_machine_fit_and_prints_each_finding() {
    let output = lab(&["doctor", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
    let ids: Vec<&str> =
        findings.as_array().expect("a list").iter().filter_map(|of| of["id"].as_str()).collect();
    assert_eq!(
        ids,
        ["addresses", "ports", "files", "cpus", "clock", "children", "folder", "envoy", "istiod"]
    );
}

#[test]
fn explain_needs_a_context_and_says_when_it_can_not_ask() {
    let without = lab(&["explain", "default/greeter"]);
    assert_eq!(without.status.code(), Some(2));
    assert!(text(&without.stderr).contains("--context"));
    let one_word = lab(&["explain", "greeter", "--context", "c"]);
    assert!(text(&one_word.stderr).contains("expected NAMESPACE/SERVICE"));
    let gone =
        lab(&["explain", "default/greeter", "--context", "c", "--kubectl", "/nowhere/kubectl"]);
    assert_eq!(gone.status.code(), Some(2));
    assert!(text(&gone.stderr).contains("can't run /nowhere/kubectl"), "{}", text(&gone.stderr));
    assert!(gone.stdout.is_empty());
}

#[test]
fn an_envoy_that_was_named_and_is_not_there_is_exit_2_and_nothing_passes() {
    let named = ["--envoy", "/nowhere/envoy"];
    let run = lab(&[&["run", "envoy-static"][..], &named].concat());
    assert_eq!(run.status.code(), Some(2));
    assert!(run.stdout.is_empty(), "{}", text(&run.stdout));
    let error = text(&run.stderr);
    assert!(error.contains("--envoy names /nowhere/envoy"), "{error}");
    // It is not required: other examples run without it.
    let doctor = lab(&[&["doctor"][..], &named].concat());
    assert_eq!(doctor.status.code(), Some(0));
    let said = text(&doctor.stdout);
    assert!(said.contains("- envoy      --envoy names /nowhere/envoy"), "{said}");
}

#[test]
fn only_a_lab_starts_other_programs() {
    let output = lab(&["exec", "true"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("unrecognized subcommand"));
}

#[test]
fn the_lab_is_its_own_greeter_and_client() {
    for service in ["greeter", "client"] {
        let help = lab(&[service, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{service}");
        let bad = lab(&[service, "--no-such-flag"]);
        assert_eq!(bad.status.code(), Some(64), "{service}");
    }
}

#[test]
fn a_child_without_its_lab_refuses_to_start() {
    // Pid 1 is not the parent of the process that is started here.
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["greeter", "--listen", "127.0.0.1:0"])
        .env("EVENKEEL_LAB_PID", "1")
        .output()
        .expect("the lab starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is gone"));
}

#[test]
fn a_folder_without_a_program_is_exit_2_with_what_it_lacks() {
    let folder = folder_of_this_process();
    std::fs::write(folder.join("client"), "").expect("a file can be written");
    let shown = folder.to_str().expect("UTF-8");
    let output = lab(&["run", "baseline", "--programs", shown]);
    std::fs::remove_dir_all(&folder).expect("it is there");
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    let expected = format!("expected the programs client, greeter and grpclb in {shown}, found no");
    assert!(error.contains(&format!("{expected} greeter")), "{error}");
}

fn folder_of_this_process() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("lab-programs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}
