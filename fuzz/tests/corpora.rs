//! Every committed input once: what was found stays mended. And the runner on targets whose faults
//! are known, since one that finds nothing looks just like one that can't.

use fuzz::{TARGETS, Target, corpus, runner};
use proptest as _; // clippy compiles the unit tests inside the files that `dns` borrows

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let inputs = corpus(target).unwrap();
    assert!(inputs.len() >= 8, "{} inputs", inputs.len());
    let mut results = std::collections::BTreeSet::new();
    for (path, input) in inputs {
        let result = runner::run_one(target, &input);
        println!("{}: {result:?}", path.file_name().unwrap().display());
        results.insert(result.unwrap_or_else(|why| panic!("{}: {why}", path.display())));
    }
    assert!(results.len() >= 4, "inputs that all do the same: {results:?}");
}

#[test]
fn dns_answers_are_survived() {
    replay("dns");
}

#[test]
fn service_configs_are_survived() {
    replay("service-config");
}

#[test]
fn servers_are_survived() {
    replay("http2-server");
}

#[test]
fn balancers_are_survived() {
    replay("grpclb-client");
}

#[test]
fn clients_are_survived() {
    replay("http2-client");
}

#[test]
fn grpclb_clients_are_survived() {
    replay("grpclb-server");
}

#[test]
fn xds_clients_are_survived() {
    replay("xds-server");
}

const INPUTS_MAX: u64 = 200_000;

fn planted(run: fn(&[u8]) -> String) -> Target {
    Target { name: "planted", run, words: &[b"magic"], frames_from: None }
}

fn find(target: &Target, seed: u64) -> Option<runner::Finding> {
    let corpus = vec![b"harmless".to_vec()];
    runner::search_while(target, corpus, seed, |inputs| inputs < INPUTS_MAX).finding
}

#[test]
fn finds_a_panic_behind_two_results() {
    let target = planted(|input| {
        let magic = input.windows(5).filter(|five| five == b"magic").count();
        assert!(magic < 3, "the third is too much");
        format!("{magic}")
    });
    let finding = find(&target, 1).expect("it is easy to find");
    assert!(finding.why.contains("the third is too much"), "{}", finding.why);
    assert!(runner::run_one(&target, &finding.input).is_err(), "it can be run again");
    assert_eq!(find(&target, 1), Some(finding), "the same seed finds the same");
}

#[test]
fn finds_a_panic_in_a_task() {
    let target = planted(|input| {
        let is_it = input.starts_with(b"magic");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let task = tokio::spawn(async move { assert!(!is_it, "where nobody looks") });
            drop(task.await);
        });
        "nothing to see".into()
    });
    let finding = find(&target, 1).expect("it is easy to find");
    assert!(finding.why.contains("where nobody looks"), "{}", finding.why);
}
