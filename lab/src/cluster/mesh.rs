//! What only examples with Istio can show: that nobody is served without an identity of the mesh,
//! and faults by configuration. Both change the mesh by its own objects, in the lab's namespace
//! alone, and take them away again.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    checks::{Check, Secured, aborted_share, all_refused, none_failed, none_rejected, secured},
    client::Report,
    error::LabError,
    report::{Distribution, PhaseReport},
};

use super::{
    driver::Driver,
    istio,
    overlay::{Ids, Phase},
    phases::{CALLS_MIN, LOAD, PAUSE, begin, settle},
    stage::{Stage, WRITE_LIMIT},
};

/// Calls of somebody who is not to be served: without a retry each fails at once.
const FEW: [&str; 8] = ["--warmup", "10s", "--count", "100", "--rate", "100", "--timeout", "3s"];
const FEW_MIN: u64 = 100;
/// What calls end with whose connection is closed again and again, or never gets ready.
const CLOSED: [&str; 2] = ["UNAVAILABLE", "DEADLINE_EXCEEDED"];
/// Of 3,000 calls half are aborted to within 0.91 percentage points in two of three runs; three
/// points are missed in one of a thousand.
const MANY: [&str; 4] = ["--count", "3000", "--rate", "500"];
const MANY_MIN: u64 = 3_000;
const SHARE: (f64, f64) = (0.5, 0.03);
const AFTER: [&str; 4] = ["--count", "600", "--rate", "200"];
const AFTER_MIN: u64 = 600;
const LIMIT: Duration = Duration::from_secs(120);
/// Istio's sidecars count little by default, and nothing of clusters.
const COUNT_MORE: (&str, &str) = ("sidecar.istio.io/statsInclusionRegexps", "cluster\\.outbound.*");
const NAME: &str = "evenkeel-lab";

/// Who has no right to call: no sidecar, and so no certificate; and a certificate of another
/// account.
///
/// # Errors
///
/// When something could not be done; a check that does not hold is a result.
pub(super) async fn strangers(stage: &Stage) -> Result<PhaseReport, LabError> {
    let backends = stage.until_serving(3).await?;
    let flags = [&["--warmup", "60s"][..], &LOAD].concat();
    let client = Driver::start_as(stage, "strangers", &flags, count_more).await?;
    client.until_ready(&backends).await?;
    sleep(PAUSE).await;
    let from = outbound(stage, client.pod()).await?;

    stage.say("a client without a sidecar");
    let plain = Driver::start_as(stage, "plain", &FEW, without_sidecar).await?;
    let plain = plain.wait(LIMIT).await?.report;

    stage.say("an AuthorizationPolicy: only the overlay's own client may call");
    stage.create(&policy(stage).to_string()).await?;
    sleep(settle(stage)).await;
    stage.say("a client with the account `default`");
    let other = Driver::start_as(stage, "other", &FEW, another_account).await?;
    let other = other.wait(LIMIT).await?.report;
    delete(stage, "authorizationpolicy").await?;

    let finished = client.stop().await?;
    let (ids, report) = (&stage.overlay.ids, &finished.report);
    let mut found = begin(Phase::Strangers, &finished, &LOAD);
    found.distributions.push(Distribution::whole("calls of the overlay's own client", report));
    found.figures.insert("mtls_connections", from.handshakes as f64);
    let lax = "PeerAuthentication PERMISSIVE: plain text is served too";
    let anybody = "no AuthorizationPolicy: whoever the mesh's authority has signed may call";
    found.checks = vec![
        secured(ids.strangers_mutual_tls, from, "tls: {mode: DISABLE} in the DestinationRule"),
        all_refused(
            ids.strangers_refused,
            &plain,
            ("a client without a sidecar", &CLOSED),
            FEW_MIN,
            lax,
        ),
        all_refused(
            ids.strangers_by_identity,
            &other,
            ("a client with another account", &["PERMISSION_DENIED"]),
            FEW_MIN,
            anybody,
        ),
        none_failed(
            ids.strangers_none_failed,
            report,
            CALLS_MIN,
            "another account in the AuthorizationPolicy",
        ),
    ];
    Ok(found)
}

/// A VirtualService makes half of the calls fail; then it is deleted.
///
/// # Errors
///
/// As [`strangers`].
pub(super) async fn fault(stage: &Stage) -> Result<PhaseReport, LabError> {
    stage.until_serving(3).await?;
    stage.say("a VirtualService: abort 50 % of the calls");
    stage.create(&rule(stage).to_string()).await?;
    sleep(settle(stage)).await;
    let aborted = Driver::start(stage, "aborted", &MANY).await?.wait(LIMIT).await?;

    stage.say("no VirtualService any more");
    delete(stage, "virtualservice").await?;
    sleep(settle(stage)).await;
    let healthy = Driver::start(stage, "healthy", &AFTER).await?.wait(LIMIT).await?.report;

    let client = format!("deployment/{}", stage.overlay.client);
    let stats = istio::stats(stage, &client).await?;
    let (ids, report) = (&stage.overlay.ids, &aborted.report);
    let mut found = begin(Phase::Fault, &aborted, &MANY);
    found.distributions = vec![
        Distribution::whole("50 % aborted", report),
        Distribution::whole("no fault any more", &healthy),
    ];
    found.checks = judge(report, &healthy, ids);
    found.checks.push(none_rejected(
        ids.fault_none_rejected,
        stats.sum("update_success"),
        stats.sum("update_rejected"),
        "PILOT_ENABLE_ALPN_FILTER with an Envoy that is not Istio's",
    ));
    Ok(found)
}

fn judge(aborted: &Report, healthy: &Report, ids: &Ids) -> Vec<Check> {
    vec![
        aborted_share(
            ids.fault_half_aborted,
            aborted,
            SHARE,
            "ABORTED",
            MANY_MIN,
            "`percentage: { value: 60 }` in the VirtualService",
        ),
        none_failed(
            ids.fault_none_failed_without,
            healthy,
            AFTER_MIN,
            "a VirtualService that is left behind",
        ),
    ]
}

/// What the sidecar of `pod` counts of its connections to the servers.
async fn outbound(stage: &Stage, pod: &str) -> Result<Secured, LabError> {
    let stats = istio::stats(stage, pod).await?;
    let service = format!("||{}.{}.", stage.overlay.service, stage.namespace());
    let mut from = Secured::default();
    // Without TLS there is no such counter, and nothing is secured.
    for cluster in stats.owners("upstream_cx_total").filter(|name| name.contains(&service)) {
        let value = |name| stats.get(&format!("{cluster}.{name}")).unwrap_or_default();
        from.connections += value("upstream_cx_total");
        from.handshakes += value("ssl.handshake");
        from.without_certificate += value("ssl.no_certificate");
    }
    Ok(from)
}

fn count_more(pod: &mut Value) {
    let (name, value) = COUNT_MORE;
    pod["metadata"]["annotations"][name] = value.into();
}

fn without_sidecar(pod: &mut Value) {
    pod["metadata"]["labels"]["sidecar.istio.io/inject"] = "false".into();
}

fn another_account(pod: &mut Value) {
    pod["spec"]["serviceAccountName"] = "default".into();
}

/// The servers serve whoever has the identity of the overlay's client. The trust domain is the
/// mesh's.
fn policy(stage: &Stage) -> Value {
    let account = stage.overlay.client;
    let principal = format!("*/ns/{}/sa/{account}", stage.namespace());
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": NAME },
        "spec": {
            "selector": { "matchLabels": { "app": stage.overlay.server } },
            "rules": [{ "from": [{ "source": { "principals": [principal] } }] }],
        },
    })
}

/// Not UNAVAILABLE, which real faults give too.
fn rule(stage: &Stage) -> Value {
    let host = stage.overlay.service;
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": { "name": NAME },
        "spec": {
            "hosts": [host],
            "http": [{
                "fault": { "abort": { "percentage": { "value": 50 }, "grpcStatus": "ABORTED" } },
                "route": [{ "destination": { "host": host } }],
            }],
        },
    })
}

async fn delete(stage: &Stage, kind: &str) -> Result<(), LabError> {
    stage.kubectl(&["delete", kind, NAME], WRITE_LIMIT).await?;
    Ok(())
}
