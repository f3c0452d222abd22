//! What examples have in common in which an Envoy beside the client picks: the client calls one
//! address, so whatever happens to backends has to be seen in the answers and in Envoy's own
//! counters. Each example brings a [`Sidecar`] of its own and adds what only it can show.

use crate::{
    checks::{Check, none_rejected, nothing_deprecated},
    envoy::{Envoy, Stats},
    error::LabError,
    stage::Stage,
};

pub(super) mod kill;
pub(super) mod scale;
pub(super) mod steady;

pub(crate) const BACKENDS: [u8; 3] = [1, 2, 3];

/// A stage whose client calls an Envoy.
pub(crate) struct Sidecar {
    pub(crate) stage: Stage,
    pub(crate) envoy: Envoy,
    /// The cluster's prefix in Envoy's statistics.
    pub(super) cluster: String,
    /// Whether what Envoy is given is ours.
    pub(super) is_ours: bool,
}

/// The ids of what is checked of Envoy in every phase.
#[derive(Clone, Copy)]
pub(super) struct EnvoyIds {
    pub(super) nothing_deprecated: &'static str,
    /// Of examples in which a control plane sends something.
    pub(super) none_rejected: Option<&'static str>,
}

impl Sidecar {
    /// Fails when something that nobody ended has ended.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with its last log lines.
    pub(super) fn all_alive(&self) -> Result<(), LabError> {
        self.envoy.alive()?;
        self.stage.fleet.all_alive()
    }

    /// A value of the cluster in `stats`; 0 as long as it has none.
    pub(super) fn value(&self, stats: &Stats, name: &str) -> u64 {
        stats.get(&format!("{}.{name}", self.cluster)).unwrap_or_default()
    }

    /// What is checked of Envoy itself, at the end of a phase.
    ///
    /// # Errors
    ///
    /// When Envoy does not answer.
    pub(super) async fn envoy_checks(&self, ids: EnvoyIds) -> Result<Vec<Check>, LabError> {
        let strict = "`type: STRICT_DNS` instead of the extension envoy.clusters.dns";
        let mut checks = Vec::new();
        if self.is_ours {
            // Those before the backends get the same words.
            let fronts = self.stage.fleet.fronts();
            let old = [&self.envoy].into_iter().chain(fronts).find_map(Envoy::deprecation);
            checks.push(nothing_deprecated(ids.nothing_deprecated, old.as_deref(), strict));
        }
        if let Some(id) = ids.none_rejected {
            let (mut accepted, mut rejected) = (0, 0);
            for envoy in [&self.envoy].into_iter().chain(self.stage.fleet.fronts()) {
                let stats = envoy.stats().await?;
                accepted += stats.sum("update_success");
                rejected += stats.sum("update_rejected");
            }
            checks.push(none_rejected(
                id,
                accepted,
                rejected,
                "a resource that Envoy does not accept, such as a negative time",
            ));
        }
        Ok(checks)
    }
}
