//! Which examples and phases a command line chooses, and what it refuses.

use super::*;

fn parsed(arguments: &[&str]) -> RunArgs {
    let cli = Cli::try_parse_from(["lab", "run"].iter().chain(arguments));
    let Command::Run(arguments) = cli.expect("valid usage").command else {
        panic!("run was asked for")
    };
    arguments
}

fn chosen(arguments: &[&str]) -> Result<Vec<(&'static str, Vec<&'static str>)>, String> {
    let arguments = parsed(arguments);
    let names = |(example, phases): (&'static Example, Vec<&'static Phase>)| {
        (example.name, phases.iter().map(|phase| phase.name).collect())
    };
    Ok(choose(&arguments)?.into_iter().map(names).collect())
}

#[test]
fn the_command_line_is_consistent() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn numbers_are_aliases_and_an_example_runs_once() {
    let by_name: Vec<_> =
        chosen(&["baseline", "round-robin"]).unwrap().iter().map(|(name, _)| *name).collect();
    assert_eq!(by_name, ["baseline", "round-robin"]);
    let numbers = examples::ALL.iter().map(|example| example.number.to_string());
    let words: Vec<String> = numbers.chain(["baseline".to_owned()]).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(chosen(&words).unwrap(), chosen(&["--all"]).unwrap());
}

#[test]
fn what_lacks_a_program_is_not_run_with_the_reason_and_the_others_are() {
    let chosen = |words: &[&str]| choose(&parsed(words)).unwrap();
    let (envoy, istiod) = (None, None);
    let mut equipped =
        Equipped { chosen: chosen(&["1", "2", "4"]), envoy, istiod, not_run: Vec::new() };
    equipped.leave_out(is_mesh, "no istiod");
    equipped.leave_out(|example| example.needs_envoy, "no Envoy");
    let left: Vec<_> = equipped.chosen.iter().map(|(example, _)| example.name).collect();
    assert_eq!(left, ["round-robin"]);
    let why: Vec<_> = equipped.not_run.iter().map(|of| (of.name, of.why.as_str())).collect();
    assert_eq!(why, [("mesh", "no istiod"), ("envoy-static", "no Envoy")]);
}

#[test]
fn istiod_leaves_out_the_phase_that_needs_identities_and_only_in_the_mesh() {
    let phases = |arguments: &[&str]| chosen(arguments).unwrap()[0].1.clone();
    let (ours, istiod) = (phases(&["istio"]), phases(&["4", "--control-plane", "istiod"]));
    assert!(ours.contains(&"strangers") && !istiod.contains(&"strangers"), "{istiod:?}");
    assert_eq!(ours.len(), istiod.len() + 1);
    assert_eq!(phases(&["1"]), phases(&["1", "--control-plane", "istiod"]));
    let message = chosen(&["4", "--phase", "strangers", "--control-plane", "istiod"]);
    let message = message.expect_err("nobody has an identity");
    assert!(message.contains("\"strangers\" is not played under istiod"), "{message}");
}

#[test]
fn a_phase_can_be_chosen_and_an_unknown_one_is_told_with_the_known() {
    assert_eq!(chosen(&["1", "--phase", "kill"]).unwrap(), [("round-robin", vec!["kill"])]);
    let message = chosen(&["0", "--phase", "kill"]).expect_err("baseline kills nothing");
    assert!(message.contains("\"kill\"; known are round_robin, pick_first"), "{message}");
}

#[test]
fn a_failed_check_is_exit_1_and_an_example_that_was_asked_for_and_not_run_is_exit_2() {
    let report = |holds, not_run| RunReport {
        schema: "",
        version: "",
        started_unix_s: 0.0,
        wall_s: 0.0,
        cpus: 1,
        holds,
        examples: Vec::new(),
        not_run,
    };
    let none = || vec![NotRun { number: 2, name: "envoy-static", why: String::new() }];
    let (all, named) = (parsed(&["--all"]), parsed(&["0", "2"]));
    let envoy = parsed(&["--all", "--envoy", "/nowhere"]);
    let istiod = parsed(&["--all", "--control-plane", "istiod"]);
    for arguments in [&all, &named, &envoy, &istiod] {
        assert_eq!(verdict(&report(true, vec![]), arguments), 0);
        assert_eq!(verdict(&report(false, none()), arguments), 1);
    }
    let codes = [&all, &named, &envoy, &istiod].map(|asked| verdict(&report(true, none()), asked));
    assert_eq!(codes, [0, 2, 2, 2]);
}

#[test]
fn run_without_examples_or_without_restarts_is_a_usage_error() {
    let none = ["lab", "run", "1", "--restarts", "0"];
    for bad in [&["lab", "run"][..], &["lab", "run", "0", "--all"], &["lab", "fly"], &none] {
        assert_eq!(Cli::try_parse_from(bad).expect_err("bad usage").exit_code(), 2);
    }
}
