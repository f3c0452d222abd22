//! The probes without any proxy: nothing is harmed, and a channel that says something else than was
//! expected is found out. With proxies the examples play them.

use evenkeel::Channel;

use super::*;
use crate::checks::Check;

const IDS: Ids = Ids {
    authority: "authority",
    trace_context: "trace_context",
    deadlines: "deadlines",
    statuses: "statuses",
    trailers_only: "trailers_only",
    metadata: "metadata",
    long_headers: "long_headers",
};

async fn probed(authority: &str, expected: &str) -> Vec<Check> {
    let mirror = Mirror::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let target = format!("ipv4:{}", mirror.address);
    let channel = Channel::builder(target).authority(authority).build().unwrap();
    probe(&channel, expected, &mirror, &IDS).await.unwrap()
}

#[tokio::test]
async fn nothing_is_harmed_where_nobody_stands_between() {
    let checks = probed("greeter.example:8000", "greeter.example:8000").await;
    assert_eq!(checks.len(), 7);
    for check in &checks {
        assert!(check.holds, "{check:?}");
    }
}

#[tokio::test]
async fn another_authority_than_the_callers_fails_its_check_and_no_other() {
    let checks = probed("rewritten:8000", "greeter.example:8000").await;
    let failed: Vec<&Check> = checks.iter().filter(|check| !check.holds).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].id, "authority");
    assert!(failed[0].seen.contains("rewritten:8000"), "{failed:?}");
}
