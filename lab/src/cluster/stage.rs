//! Where an example plays on a cluster: a namespace of its own with the overlay in it, and two
//! watches that see what becomes of its backends.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{error::LabError, run::Run};

use super::{
    istio,
    kubectl::{Answer, Kubectl, KubectlError, READ_LIMIT},
    objects::{List, Node, Pod, Slice},
    overlay::{Learns, Overlay, Phase},
    pods::{Backend, fold},
    watch::Watch,
};

pub(super) const BALANCER: &str = "greeter-server-balancer";
/// The port of the pods, and of the headless Service.
const PORT: u16 = 8000;
/// For what the API server does while the request waits.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// For pods to become ready, images that have to be pulled among it.
pub(super) const ROLLOUT_LIMIT: Duration = Duration::from_secs(180);
/// From a deletion to the end of a pod: its grace is 35 s.
pub(super) const GONE_LIMIT: Duration = Duration::from_secs(60);
const DELETED_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at what the watches have heard; it costs no request.
const LOOK: Duration = Duration::from_millis(100);
/// The overlay's own client makes a call a second.
const LINES_LIMIT: Duration = Duration::from_secs(60);
const LINES_MIN: usize = 6;

/// One example's namespace.
pub(super) struct Stage {
    pub(super) run: Arc<Run>,
    pub(super) overlay: &'static Overlay,
    kubectl: Kubectl,
    namespace: String,
    pods: Watch<Pod>,
    slices: Watch<Slice>,
}

impl Stage {
    /// Applies the overlay in `namespace`, which is there and empty, and waits until everything in
    /// it is ready.
    ///
    /// # Errors
    ///
    /// When the overlay can't be applied or does not become ready.
    pub(super) async fn open(
        run: Arc<Run>,
        kubectl: &Kubectl,
        namespace: &str,
        overlay: &'static Overlay,
        kustomize: &Path,
    ) -> Result<Self, LabError> {
        let pods = ("/api/v1", "pods");
        let slices = ("/apis/discovery.k8s.io/v1", "endpointslices");
        let of_service = ("kubernetes.io/service-name", overlay.server);
        let nursery = run.nursery();
        let pods = Watch::start(nursery, kubectl, pods, namespace, ("app", overlay.server))?;
        let slices = Watch::start(nursery, kubectl, slices, namespace, of_service)?;
        let (kubectl, namespace) = (kubectl.clone(), namespace.to_owned());
        let stage = Self { run, overlay, kubectl, namespace, pods, slices };
        let folder = kustomize.join("overlays").join(overlay.folder).display().to_string();
        stage.say(&format!("kubectl apply -k {folder}"));
        stage.kubectl(&["apply", "-k", &folder], WRITE_LIMIT).await?;
        stage.rolled_out(overlay.server).await?;
        if overlay.phases.contains(&Phase::Balancers) {
            stage.rolled_out(BALANCER).await?;
        }
        stage.rolled_out(overlay.client).await?;
        if overlay.learns == Learns::EnvoyByIstiod {
            istio::injected(&stage).await?;
        }
        stage.until_serving(3).await?;
        Ok(stage)
    }

    /// Says on stderr what goes on.
    pub(super) fn say(&self, what: &str) {
        // An example may have several overlays.
        self.run.progress().say(self.overlay.folder, what);
    }

    /// Runs a command in the namespace.
    ///
    /// # Errors
    ///
    /// When it fails or does not end within `limit`.
    pub(super) async fn kubectl(
        &self,
        args: &[&str],
        limit: Duration,
    ) -> Result<String, KubectlError> {
        self.fed(args, None, limit).await
    }

    /// Creates what `manifest` says, which is JSON.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub(super) async fn create(&self, manifest: &str) -> Result<(), KubectlError> {
        self.fed(&["create", "-f", "-"], Some(manifest), WRITE_LIMIT).await.map(drop)
    }

    /// What the API server says to `manifest`, of which it makes nothing: success or not, and its
    /// warnings.
    ///
    /// # Errors
    ///
    /// When it can't be asked.
    pub(super) async fn would_create(&self, manifest: &str) -> Result<Answer, KubectlError> {
        let args = ["-n", &self.namespace, "create", "--dry-run=server", "-f", "-"];
        self.kubectl.answer(&args, Some(manifest), WRITE_LIMIT).await
    }

    /// The namespace's name.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    async fn fed(
        &self,
        args: &[&str],
        stdin: Option<&str>,
        limit: Duration,
    ) -> Result<String, KubectlError> {
        let args: Vec<&str> =
            ["-n", &self.namespace].into_iter().chain(args.iter().copied()).collect();
        self.kubectl.text(&args, stdin, limit).await
    }

    /// An object of the namespace.
    ///
    /// # Errors
    ///
    /// When it is not there or can't be read.
    pub(super) async fn get<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
    ) -> Result<T, LabError> {
        let object = self.kubectl.get(&[what, "-n", &self.namespace]).await?;
        object.ok_or_else(|| LabError::Cluster(format!("{what} is not in {}", self.namespace)))
    }

    /// The objects whose label `app` is that.
    ///
    /// # Errors
    ///
    /// When they can't be read.
    pub(super) async fn select<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        app: &str,
    ) -> Result<List<T>, LabError> {
        let label = format!("--selector=app={app}");
        let list = self.kubectl.get(&[what, "-n", &self.namespace, &label]).await?;
        Ok(list.unwrap_or(List { items: Vec::new() }))
    }

    /// Waits until every pod of a Deployment is of its newest kind and ready.
    ///
    /// # Errors
    ///
    /// When that takes too long; the message has what its pods wait for.
    pub(super) async fn rolled_out(&self, deployment: &str) -> Result<(), LabError> {
        let timeout = format!("--timeout={}s", ROLLOUT_LIMIT.as_secs());
        let args = ["rollout", "status", "deployment", deployment, &timeout];
        // kubectl's own limit comes first, and its message is the better one.
        let limit = ROLLOUT_LIMIT + READ_LIMIT;
        let Err(error) = self.kubectl(&args, limit).await else { return Ok(()) };
        let label = format!("app={deployment}");
        let pods = self.kubectl(&["get", "pods", "-l", &label], READ_LIMIT).await;
        let pods = pods.unwrap_or_default();
        Err(LabError::Cluster(format!("{deployment} does not become ready: {error}\n{pods}")))
    }

    /// Asks for so many pods of the server.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub(super) async fn scale(&self, replicas: u8) -> Result<(), LabError> {
        self.say(&format!("scaling to {replicas}"));
        let replicas = format!("--replicas={replicas}");
        let server = self.overlay.server;
        self.kubectl(&["scale", "deployment", server, &replicas], WRITE_LIMIT).await?;
        Ok(())
    }

    /// Replaces every pod of a Deployment and waits until that is done.
    ///
    /// # Errors
    ///
    /// When the API server refuses it or it takes too long.
    pub(super) async fn restart(&self, deployment: &str) -> Result<(), LabError> {
        self.say(&format!("kubectl rollout restart deployment {deployment}"));
        self.kubectl(&["rollout", "restart", "deployment", deployment], WRITE_LIMIT).await?;
        self.rolled_out(deployment).await
    }

    /// Every backend that was ever seen, by name.
    ///
    /// # Errors
    ///
    /// When a watch has ended.
    pub(super) fn backends(&self) -> Result<BTreeMap<String, Backend>, LabError> {
        Ok(fold(&self.pods.seen()?, &self.slices.seen()?))
    }

    /// Waits until so many backends serve and no other pod is left.
    ///
    /// # Errors
    ///
    /// When that takes too long or a watch has ended.
    pub(super) async fn until_serving(&self, count: usize) -> Result<Vec<Backend>, LabError> {
        let limit = ROLLOUT_LIMIT + GONE_LIMIT;
        let deadline = Instant::now() + limit;
        loop {
            let all = self.backends()?;
            let left: Vec<Backend> =
                all.into_values().filter(|of| of.gone_unix_s.is_none()).collect();
            if left.len() == count && left.iter().all(Backend::serves) {
                return Ok(left);
            }
            if Instant::now() >= deadline {
                let names: Vec<&str> = left.iter().map(|of| of.name.as_str()).collect();
                return Err(LabError::Cluster(format!(
                    "expected {count} serving pods and no others within {} s; there are: {}",
                    limit.as_secs(),
                    names.join(", ")
                )));
            }
            sleep(LOOK).await;
        }
    }

    /// The zone of each node that has one; nothing when nodes can't be read.
    pub(super) async fn zones(&self) -> BTreeMap<String, String> {
        let nodes = self.kubectl.get::<List<Node>>(&["nodes"]).await;
        let nodes = nodes.ok().flatten().map(|list| list.items).unwrap_or_default();
        let zone = |node: Node| {
            let zone = node.metadata.labels.get("topology.kubernetes.io/zone").cloned();
            Some((node.metadata.name, zone?))
        };
        nodes.into_iter().filter_map(zone).collect()
    }

    /// The lines that the overlay's own client prints, as its README shows them.
    ///
    /// # Errors
    ///
    /// When it prints none in time.
    pub(super) async fn original_lines(&self) -> Result<Vec<String>, LabError> {
        let deployment = format!("deployment/{}", self.overlay.client);
        let deadline = Instant::now() + LINES_LIMIT;
        loop {
            let args = ["logs", &deployment, "-c", super::driver::CONTAINER];
            let text = self.kubectl(&args, READ_LIMIT).await?;
            let greetings = text.lines().filter(|line| line.starts_with("Greeting: "));
            if greetings.count() >= LINES_MIN {
                // The log has what went to stderr, too.
                let heads = ["Will use ", "Creating channel ", "Greeting: "];
                let own = |line: &&str| heads.iter().any(|head| line.starts_with(head));
                return Ok(text.lines().filter(own).map(str::to_owned).collect());
            }
            if Instant::now() >= deadline {
                return Err(LabError::Cluster(format!(
                    "{deployment} printed no {LINES_MIN} greetings within {} s:\n{text}",
                    LINES_LIMIT.as_secs()
                )));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// The addresses of `backends` as the client's events name them.
pub(super) fn addresses(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(address).collect()
}

pub(super) fn address(backend: &Backend) -> String {
    if backend.ip.contains(':') {
        format!("[{}]:{PORT}", backend.ip)
    } else {
        format!("{}:{PORT}", backend.ip)
    }
}

/// Deletes a namespace of the lab and waits until it is gone.
///
/// # Errors
///
/// When the API server refuses it or it takes too long.
pub(super) async fn delete(kubectl: &Kubectl, namespace: &str) -> Result<(), KubectlError> {
    let timeout = format!("--timeout={}s", DELETED_LIMIT.as_secs());
    let args = ["delete", "namespace", namespace, "--ignore-not-found", &timeout];
    kubectl.text(&args, None, DELETED_LIMIT + READ_LIMIT).await.map(drop)
}
