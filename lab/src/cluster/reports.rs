//! What clients have reported to the balancers, from their status pages through the API server.
//!
//! Sums only grow, and the overlay's own client reports, too. So that one is sent away for as long
//! as sums are compared, and what was there before is subtracted.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    balancers::{Status, Totals},
    error::LabError,
};

use super::{
    kubectl::READ_LIMIT,
    objects::{List, Pod},
    stage::{BALANCER, GONE_LIMIT, Stage, WRITE_LIMIT},
};

const ADMIN_PORT: u16 = 9001;
/// How long a client's last report may be on its way.
const SETTLE: Duration = Duration::from_secs(3);
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

impl Stage {
    /// Ends the overlay's own client and returns what has been reported until then.
    ///
    /// # Errors
    ///
    /// When it does not end, or a balancer has no status.
    pub(super) async fn quiet(&self) -> Result<Totals, LabError> {
        self.clients(0).await?;
        let label = format!("--selector=app={}", self.overlay.client);
        let timeout = format!("--timeout={}s", GONE_LIMIT.as_secs());
        let args = ["wait", "pod", &label, "--for=delete", &timeout];
        self.kubectl(&args, GONE_LIMIT + READ_LIMIT).await?;
        sleep(SETTLE).await;
        self.totals().await
    }

    /// What has been reported since `before`: waits until `wanted` calls have started. Then the
    /// overlay's own client comes back.
    ///
    /// # Errors
    ///
    /// When a balancer has no status.
    pub(super) async fn reported(&self, before: &Totals, wanted: u64) -> Result<Totals, LabError> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let totals = loop {
            let totals = self.totals().await?.since(before);
            if totals.started >= wanted || Instant::now() >= deadline {
                break totals;
            }
            sleep(Duration::from_secs(1)).await;
        };
        self.clients(1).await?;
        Ok(totals)
    }

    async fn clients(&self, replicas: u8) -> Result<(), LabError> {
        let replicas = format!("--replicas={replicas}");
        self.kubectl(&["scale", "deployment", self.overlay.client, &replicas], WRITE_LIMIT).await?;
        Ok(())
    }

    /// Over all balancers that run.
    async fn totals(&self) -> Result<Totals, LabError> {
        let pods: List<Pod> = self.select("pods", BALANCER).await?;
        let mut sum = Totals::default();
        for pod in pods.items.iter().filter(|pod| pod.is_ready()) {
            let Pod { metadata, .. } = pod;
            let path = format!(
                "/api/v1/namespaces/{}/pods/{}:{ADMIN_PORT}/proxy/status",
                metadata.namespace, metadata.name
            );
            let text = self.kubectl(&["get", "--raw", &path], READ_LIMIT).await?;
            let status: Status = serde_json::from_str(&text).map_err(|error| {
                LabError::Cluster(format!("the status of {}: {error}", metadata.name))
            })?;
            for service in status.services {
                sum.add(&service.client_stats);
            }
        }
        Ok(sum)
    }
}
