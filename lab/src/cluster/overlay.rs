//! The examples that run on a cluster, as data: each is an overlay of `kustomize/`, with what its
//! checks are called and what they may wait for. Title, picture and words are those of the same
//! example on one machine, but for those that Istio feeds (`istio`).

use std::path::{Path, PathBuf};

use crate::cli::ControlPlane;

/// What a client can know of a new pod, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learns {
    /// It asks DNS when the TTL is over.
    Dns,
    /// A balancer's list.
    List,
    /// It watches EndpointSlices.
    Slices,
    /// It knows nothing: an Envoy beside it asks DNS when the TTL is over.
    EnvoyByDns,
    /// It knows nothing: an Envoy beside it is told over xDS.
    EnvoyByXds,
    /// It knows nothing: Istio's injector has put an Envoy beside it, which istiod tells.
    EnvoyByIstiod,
}

impl Learns {
    /// Whether an Envoy picks, so that the client's one connection is to that.
    pub(super) fn by_proxy(self) -> bool {
        matches!(self, Self::EnvoyByDns | Self::EnvoyByXds | Self::EnvoyByIstiod)
    }

    /// Who tells an Envoy everything, if somebody does.
    pub(super) fn control_plane(self) -> Option<ControlPlane> {
        match self {
            Self::EnvoyByXds => Some(ControlPlane::Balancer),
            Self::EnvoyByIstiod => Some(ControlPlane::Istiod),
            _ => None,
        }
    }

    /// Whether the endpoints come from DNS, in the end.
    pub(super) fn by_dns(self) -> bool {
        matches!(self, Self::Dns | Self::EnvoyByDns)
    }
}

/// One example.
#[derive(Debug)]
pub(super) struct Overlay {
    /// Of the example.
    pub(super) name: &'static str,
    /// In `kustomize/overlays`.
    pub(super) folder: &'static str,
    /// The Deployment of its client.
    pub(super) client: &'static str,
    /// The Deployment of its backends, and the Service whose slices list them.
    pub(super) server: &'static str,
    /// The Service that the client calls.
    pub(super) service: &'static str,
    pub(super) learns: Learns,
    /// Within this time of its EndpointSlice a new pod serves, and one that goes is left.
    pub(super) limit_s: f64,
    pub(super) phases: &'static [Phase],
    pub(super) ids: Ids,
}

/// What is done to the backends while the client calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Steady,
    Scale,
    Rolling,
    Delete,
    Zone,
    Balancers,
    Strangers,
    Fault,
}

/// What the checks are called: as on one machine, where there is the same one.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) even_shares: &'static str,
    pub(super) steady_none_failed: &'static str,
    pub(super) reports_add_up: &'static str,
    pub(super) scale_none_failed: &'static str,
    pub(super) on_the_left: &'static str,
    pub(super) to_4: &'static str,
    pub(super) rolling_none_failed: &'static str,
    pub(super) rolling_drained: &'static str,
    pub(super) rolling_replaced: &'static str,
    pub(super) rolling_each_served: &'static str,
    pub(super) delete_none_failed: &'static str,
    pub(super) delete_drained: &'static str,
    pub(super) delete_replaced: &'static str,
    pub(super) zone_none_failed: &'static str,
    pub(super) zone_drained: &'static str,
    pub(super) zone_replaced: &'static str,
    pub(super) balancers_none_failed: &'static str,
    pub(super) restricted: &'static str,
    pub(super) strangers_none_failed: &'static str,
    pub(super) strangers_mutual_tls: &'static str,
    pub(super) strangers_refused: &'static str,
    pub(super) strangers_by_identity: &'static str,
    pub(super) fault_half_aborted: &'static str,
    pub(super) fault_none_failed_without: &'static str,
    pub(super) fault_none_rejected: &'static str,
}

macro_rules! ids {
    ($name:literal, $shares:literal, $to_4:literal) => {
        Ids {
            even_shares: concat!($name, ".steady.", $shares),
            steady_none_failed: concat!($name, ".steady.none_failed"),
            reports_add_up: concat!($name, ".steady.reports_add_up"),
            scale_none_failed: concat!($name, ".scale.none_failed"),
            on_the_left: concat!($name, ".scale.to_1_all_on_the_left"),
            to_4: concat!($name, ".scale.", $to_4),
            rolling_none_failed: concat!($name, ".rolling.none_failed"),
            rolling_drained: concat!($name, ".rolling.drained"),
            rolling_replaced: concat!($name, ".rolling.replaced"),
            rolling_each_served: concat!($name, ".rolling.each_served"),
            delete_none_failed: concat!($name, ".delete.none_failed"),
            delete_drained: concat!($name, ".delete.drained"),
            delete_replaced: concat!($name, ".delete.replaced"),
            zone_none_failed: concat!($name, ".zone.none_failed"),
            zone_drained: concat!($name, ".zone.drained"),
            zone_replaced: concat!($name, ".zone.replaced"),
            balancers_none_failed: concat!($name, ".balancers.none_failed"),
            restricted: concat!($name, ".steady.restricted_but_init"),
            strangers_none_failed: concat!($name, ".strangers.none_failed"),
            strangers_mutual_tls: concat!($name, ".strangers.mutual_tls"),
            strangers_refused: concat!($name, ".strangers.refused"),
            strangers_by_identity: concat!($name, ".strangers.by_identity"),
            fault_half_aborted: concat!($name, ".fault.half_aborted"),
            fault_none_failed_without: concat!($name, ".fault.none_failed_without"),
            fault_none_rejected: concat!($name, ".fault.none_rejected"),
        }
    };
}

/// A DNS answer's TTL and the second that a machine needs for the rest, as on one machine.
const DNS_LIMIT_S: f64 = crate::dns::TTL_S as f64 + 1.0;
/// No TTL lies between.
const PUSH_LIMIT_S: f64 = 1.0;
/// While changes keep coming istiod holds them, for 10 s at most (`PILOT_DEBOUNCE_MAX`).
const ISTIOD_LIMIT_S: f64 = 12.0;
/// Of the examples without Istio.
const SERVER: &str = "greeter-server";
const EVERY: &[Phase] = &[Phase::Steady, Phase::Scale, Phase::Rolling, Phase::Delete, Phase::Zone];

const WITH_BALANCERS: &[Phase] =
    &[Phase::Steady, Phase::Scale, Phase::Rolling, Phase::Delete, Phase::Zone, Phase::Balancers];

const WITH_FAULTS: &[Phase] =
    &[Phase::Steady, Phase::Scale, Phase::Rolling, Phase::Delete, Phase::Zone, Phase::Fault];

const WITH_IDENTITIES: &[Phase] = &[
    Phase::Steady,
    Phase::Scale,
    Phase::Rolling,
    Phase::Delete,
    Phase::Zone,
    Phase::Strangers,
    Phase::Fault,
];

/// Every overlay. Of an example with several the first is played when nobody says which.
pub(super) static ALL: &[&Overlay] = &[
    &Overlay {
        name: "round-robin",
        folder: "round-robin",
        client: "greeter-client-round-robin",
        server: SERVER,
        service: SERVER,
        learns: Learns::Dns,
        limit_s: DNS_LIMIT_S,
        phases: EVERY,
        ids: ids!("round-robin", "even_shares", "to_4_within_ttl"),
    },
    &Overlay {
        name: "envoy-static",
        folder: "envoy-static",
        client: "greeter-client-with-envoy-static",
        server: SERVER,
        service: SERVER,
        learns: Learns::EnvoyByDns,
        limit_s: DNS_LIMIT_S,
        phases: EVERY,
        ids: ids!("envoy-static", "exact_turns", "to_4_within_ttl"),
    },
    &Overlay {
        name: "envoy-dynamic",
        folder: "envoy-dynamic-without-istio",
        client: "greeter-client-with-envoy-dynamic",
        server: SERVER,
        service: SERVER,
        learns: Learns::EnvoyByXds,
        limit_s: PUSH_LIMIT_S,
        phases: WITH_BALANCERS,
        ids: ids!("envoy-dynamic", "exact_turns", "to_4_within_1s"),
    },
    &Overlay {
        name: "envoy-dynamic",
        folder: "envoy-dynamic",
        client: "greeter-client-with-envoy-dynamic",
        server: SERVER,
        service: "greeter-server-cluster-ip",
        learns: Learns::EnvoyByIstiod,
        limit_s: ISTIOD_LIMIT_S,
        phases: WITH_FAULTS,
        ids: ids!("envoy-dynamic", "exact_turns", "to_4_within_12s"),
    },
    &Overlay {
        name: "mesh",
        folder: "istio",
        client: "greeter-client-istio",
        server: "greeter-server-istio",
        service: "greeter-server-istio",
        learns: Learns::EnvoyByIstiod,
        limit_s: ISTIOD_LIMIT_S,
        phases: WITH_IDENTITIES,
        ids: ids!("mesh", "exact_turns", "to_4_within_12s"),
    },
    &Overlay {
        name: "lookaside",
        folder: "lookaside",
        client: "greeter-client-lookaside-lb",
        server: SERVER,
        service: SERVER,
        learns: Learns::List,
        limit_s: PUSH_LIMIT_S,
        phases: WITH_BALANCERS,
        ids: ids!("lookaside", "even_shares", "to_4_within_1s"),
    },
    &Overlay {
        name: "kubernetes",
        folder: "kubernetes",
        client: "greeter-client-kubernetes",
        server: SERVER,
        service: SERVER,
        learns: Learns::Slices,
        limit_s: PUSH_LIMIT_S,
        phases: EVERY,
        ids: ids!("kubernetes", "even_shares", "to_4_within_1_s"),
    },
];

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Scale => "scale",
            Self::Rolling => "rolling",
            Self::Delete => "delete",
            Self::Zone => "zone",
            Self::Balancers => "balancers",
            Self::Strangers => "strangers",
            Self::Fault => "fault",
        }
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Steady => "3 pods, nothing happens",
            Self::Scale => "the Deployment is scaled from 3 to 1, then to 4",
            Self::Rolling => "the Deployment is restarted: every pod is replaced, with drain",
            Self::Delete => "one pod of 3 is deleted, and the Deployment makes another",
            Self::Zone => "6 pods, and all of one zone are deleted at once",
            Self::Balancers => "the balancers are restarted: both are replaced, with drain",
            Self::Strangers => "callers without a sidecar, and with another account's identity",
            Self::Fault => "a VirtualService aborts 50 % of the calls, and is deleted again",
        }
    }
}

/// The folder `kustomize`: the one that was named, or that of the repository around this folder.
///
/// # Errors
///
/// A message that says where it was looked for.
pub(super) fn folder(named: Option<&Path>) -> Result<PathBuf, String> {
    let has = |folder: &Path| folder.join("overlays").is_dir();
    if let Some(named) = named {
        let found = has(named).then(|| named.to_owned());
        return found.ok_or_else(|| {
            format!("--kustomize {}: expected a folder with overlays/ in it", named.display())
        });
    }
    let here = std::env::current_dir().map_err(|error| format!("no current folder: {error}"))?;
    let found = here.ancestors().map(|at| at.join("kustomize")).find(|at| has(at));
    found.ok_or_else(|| {
        format!(
            "no kustomize/overlays in {} or a folder above it; start the lab in the repository, \
             or name the folder with --kustomize DIR",
            here.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn every_overlay_is_an_example_of_the_lab_and_has_its_folder() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kustomize");
        for overlay in ALL {
            assert_eq!(examples::find(overlay.name).expect(overlay.name).name, overlay.name);
            // Bazel's sandbox has no kustomize folder, and tests nothing of it.
            if repository.is_dir() {
                assert!(repository.join("overlays").join(overlay.folder).is_dir(), "{overlay:?}");
            }
        }
    }

    #[test]
    fn a_folder_that_was_named_must_be_the_right_one() {
        let message = folder(Some(Path::new("/nowhere"))).expect_err("there is none");
        assert!(message.contains("/nowhere: expected a folder with overlays/"), "{message}");
    }
}
