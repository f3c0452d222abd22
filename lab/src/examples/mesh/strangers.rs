//! Who has no right to call, and who has no right to be called: the identities are checked on both
//! sides, by each Envoy for itself.

use std::{sync::Arc, time::Duration};

use evenkeel::{Channel, tls::ClientTls};
use helloworld::{HelloRequest, greeter_client::GreeterClient};

use super::{phase, scene};
use crate::{
    blocks::BACKEND_PORT,
    checks::{Stranger, impostor_unused, strangers_refused},
    envoy::{Envoy, Stats},
    error::LabError,
    examples::proxied::EnvoyIds,
    faults::CallFault,
    fleet::Fleet,
    identities::{CLIENT, Identities, STRANGER},
    report::{Distribution, PhaseReport},
    run::Run,
};

/// The pod that is called, and one that pretends to be another.
const POD: u8 = 1;
const IMPOSTOR: u8 = 9;
const LIMIT: Duration = Duration::from_secs(5);
const FLAGS: [&str; 6] = ["--count", "300", "--rate", "200", "--warmup", "5s"];
/// Envoy's counters of refused certificates: none, of a wrong name; and of what is no TLS.
const NO_CERTIFICATE: &str = "ssl.fail_verify_no_cert";
const WRONG_NAME: &str = "ssl.fail_verify_san";
const NO_TLS: &str = "ssl.connection_error";

pub(super) async fn play(run: Arc<Run>, name: String) -> Result<PhaseReport, LabError> {
    let (mut told, identities) = scene::open(run, &name, &[], (&[POD], CallFault::None)).await?;
    let address = told.sidecar.stage.fleet.address(POD).to_string();
    let friend = greet(&address, Some(identities.client(Some(CLIENT))?)).await;
    let mut strangers = Vec::new();
    for (who, tls, counter) in [
        ("no certificate", Some(identities.client(None)?), NO_CERTIFICATE),
        ("another account's", Some(identities.client(Some(STRANGER))?), WRONG_NAME),
        ("plaintext", None, NO_TLS),
    ] {
        let front = || told.sidecar.stage.fleet.fronts().next().ok_or(LabError::Unlooked);
        let before = front()?.stats().await?.sum(counter);
        let outcome = greet(&address, tls).await;
        let counted = counted(front()?, counter, before).await?;
        strangers.push(Stranger { who, outcome, counted });
    }

    told.sidecar.stage.say("a pod with another account's identity is listed");
    let _impostor = impostor(&mut told.sidecar.stage, &identities).await?;
    let report = told.sidecar.stage.client(&FLAGS).await?.wait(Duration::from_secs(30)).await?;
    let report = report.report;
    told.all_alive()?;
    let refused = told.sidecar.envoy.stats().await?.sum(WRONG_NAME);
    let phase = phase("strangers");
    let mut found = PhaseReport::new(phase.name, phase.what, &report);
    found = found.set(&told.sidecar.stage.with_policy(&FLAGS), &[]);
    found.distributions.push(Distribution::whole("all calls", &report));
    let pretends = told.sidecar.stage.fleet.names(&[IMPOSTOR]).concat();
    let by_impostor = report.by_backend.get(&pretends).map_or(0, |of| of.calls);
    found.checks = vec![
        strangers_refused(
            "mesh.strangers.refused",
            &friend,
            &strangers,
            "no `allow:` in the balancer's `ingress:`: whoever the authority has signed may call",
        ),
        impostor_unused(
            "mesh.strangers.impostor_unused",
            report.ok,
            by_impostor,
            refused,
            "`servers: [spiffe://lab.local/*]` in the balancer's `mtls:`",
        ),
    ];
    let ids = EnvoyIds {
        nothing_deprecated: "mesh.strangers.nothing_deprecated",
        none_rejected: Some("mesh.strangers.none_rejected"),
    };
    found.checks.extend(told.sidecar.envoy_checks(ids).await?);
    Ok(found)
}

/// One greeting of the pod itself, past the client's Envoy.
async fn greet(address: &str, tls: Option<ClientTls>) -> Result<String, String> {
    let builder = Channel::builder(format!("ipv4:{address}"));
    let builder = match tls {
        Some(tls) => builder.tls(tls),
        None => builder,
    };
    let channel = builder.build().map_err(|error| error.to_string())?;
    let mut request = tonic::Request::new(HelloRequest { name: "you".to_owned() });
    request.set_timeout(LIMIT);
    let reply = GreeterClient::new(channel).say_hello(request).await;
    reply.map(|reply| reply.into_inner().message).map_err(|status| status.to_string())
}

/// How far `counter` goes beyond `before`, as soon as it does: a stranger may hear of its refusal
/// before the counter is read.
async fn counted(envoy: &Envoy, counter: &str, before: u64) -> Result<u64, LabError> {
    let beyond = |stats: &Stats| stats.sum(counter) > before;
    envoy.until("ssl", beyond, LIMIT).await?;
    Ok(envoy.stats().await?.sum(counter) - before)
}

/// A greeter at a pod's address without an Envoy, which ends TLS itself with the wrong identity.
async fn impostor(
    stage: &mut crate::stage::Stage,
    identities: &Identities,
) -> Result<Fleet, LabError> {
    let phase = format!("{}-impostor", stage.phase);
    let mut fleet = Fleet::new(Arc::clone(&stage.run), &phase, Arc::clone(&stage.block), &[]);
    for (setting, file) in [
        ("GREETER_TLS_CERT", identities.certificate(STRANGER)),
        ("GREETER_TLS_KEY", identities.key(STRANGER)),
        ("GREETER_TLS_CLIENT_CA", identities.roots()),
    ] {
        fleet.set(IMPOSTOR, setting, &file.display().to_string());
    }
    debug_assert_eq!(fleet.address(IMPOSTOR).port(), BACKEND_PORT);
    fleet.start(&[IMPOSTOR]).await?;
    stage.publish(&[IMPOSTOR]).await;
    // Once it is in the list its turn comes.
    Ok(fleet)
}
