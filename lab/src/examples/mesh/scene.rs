//! What each phase plays on: the same as example 3, with an Envoy before each backend and an
//! identity for everybody.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use crate::{
    blocks::{APPLICATION_PORT, BACKEND_PORT},
    envoy::{self, MESH_CLIENT, MESH_SERVER, Replacement},
    error::LabError,
    examples::told::{MakeFronts, Told, Words},
    faults::CallFault,
    fronts::Fronts,
    identities::{CLIENT, GREETER, Identities, spiffe_id},
    run::Run,
    stage::Stage,
};

/// What the server's file says of its node. In a cluster the pod's Envoy listens on all of the
/// pod's addresses, and the Service has another name.
const NODE: &str = "metadata: { role: ingress, service: greeter-server }";

/// A pod that was deleted serves on until whoever calls it has heard of that, as the drain of a
/// mesh's pods gives them time for; else the Envoy before it cuts what just arrives.
const DRAIN: (&str, &str) = ("GREETER_DRAIN_DELAY", "500ms");

/// The same under istiod, which hears of a file 0.25 s after it was written and tells it 0.1 s
/// later.
const LONG_DRAIN: (&str, &str) = ("GREETER_DRAIN_DELAY", "3s");

/// Starts the control plane, which says `fault`, pods `hosts` whose greeters have `settings`, and
/// the client's Envoy.
///
/// # Errors
///
/// When something can't be started.
pub(crate) async fn open(
    run: Arc<Run>,
    phase: &str,
    settings: &[(&'static str, &str)],
    (hosts, fault): (&[u8], CallFault),
) -> Result<(Told, Identities), LabError> {
    let identities = Identities::make(&run, phase)?;
    if let Some(istiod) = run.istiod().cloned() {
        let settings = &[&[LONG_DRAIN], settings].concat();
        let stage = Stage::open(run, phase, settings).await?;
        let told = Told::open_with_istiod(stage, &istiod.path, fault, hosts).await?;
        return Ok((told, identities));
    }
    let settings = &[&[DRAIN], settings].concat();
    let stage = Stage::open_with_api(run, phase, settings).await?;
    let fronts: MakeFronts = Box::new(|stage, replacements| {
        let bootstrap = Box::new(move |ip| bootstrap(ip, &replacements));
        Fronts::new(Arc::clone(&stage.run), &stage.phase, bootstrap)
    });
    let words = words(&identities);
    let told = Told::open(stage, &MESH_CLIENT, words, fault, (hosts, Some(fronts))).await?;
    Ok((told, identities))
}

fn bootstrap(ip: Ipv4Addr, replacements: &[Replacement]) -> Result<String, LabError> {
    let node = format!("metadata: {{ role: ingress, service: greeter, address: {ip} }}");
    let own = [(NODE, node)];
    envoy::substitute(&MESH_SERVER, &[replacements, &own].concat())
}

/// What the balancer says beside example 3's words: who is who, and who may call whom.
fn words(identities: &Identities) -> Words {
    let (client, server) = (spiffe_id(CLIENT), spiffe_id(GREETER));
    let xds = format!(
        "    mtls: {{ identity: {CLIENT}, servers: [\"{server}\"] }}
    ingress:
      listen: 0.0.0.0:{BACKEND_PORT}
      application: 0.0.0.0:{APPLICATION_PORT}
      identity: {GREETER}
      allow: [\"{client}\"]
"
    );
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    let identity = |account: &str| {
        format!(
            "  {account}:\n    certificate: {}\n    key: {}\n    roots: {}\n",
            quoted(&identities.certificate(account)),
            quoted(&identities.key(account)),
            quoted(&identities.roots())
        )
    };
    // Whoever is on this machine may have the keys: there is no authority that could tell pods
    // apart before they have any.
    let file = format!(
        "identities:\n{}{}secrets: {{ local_peers: true }}\n",
        identity(CLIENT),
        identity(GREETER)
    );
    Words { xds, file, ..Words::default() }
}
