//! The measuring client as a pod: the overlay's own client (its image, target, policy, rights and
//! security context) with the lab's flags, so that what is measured is what was deployed.
//!
//! It is ended by a deadline and not by deletion: `activeDeadlineSeconds` can be set on a pod that
//! runs, makes the kubelet send SIGTERM, and leaves the pod and its log to be read.

use std::{path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    client::{Event, Finished, Report, What, all_ready, first},
    error::LabError,
};

use super::{
    kubectl::READ_LIMIT,
    objects::Pod,
    pods::Backend,
    stage::{Stage, WRITE_LIMIT, addresses},
};

/// The container of the overlays' clients.
pub(super) const CONTAINER: &str = "greeter-client";
const READY_LIMIT: Duration = Duration::from_secs(60);
/// SIGTERM, calls in flight (5 s), the report, and the kubelet's look at its pods.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Each look is a request, for a log of some hundred lines.
const LOOK: Duration = Duration::from_secs(1);
/// Lines of a client's log that an error repeats.
const TAIL_LINES: usize = 15;

/// A client that runs.
pub(super) struct Driver<'a> {
    stage: &'a Stage,
    pod: String,
}

impl<'a> Driver<'a> {
    /// Starts a client for `phase`.
    ///
    /// # Errors
    ///
    /// When the overlay's client can't be read or the pod not be made.
    pub(super) async fn start(
        stage: &'a Stage,
        phase: &str,
        flags: &[&str],
    ) -> Result<Self, LabError> {
        let always = ["--warmup", "60s"];
        Self::start_as(stage, phase, &[&always[..], flags].concat(), |_| {}).await
    }

    /// The same with other flags alone, and with `change` made to the pod: who it is, for one.
    ///
    /// # Errors
    ///
    /// As [`Driver::start`].
    pub(super) async fn start_as(
        stage: &'a Stage,
        phase: &str,
        flags: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Result<Self, LabError> {
        let deployment: Value = stage.get(&format!("deployment/{}", stage.overlay.client)).await?;
        let pod = format!("lab-client-{phase}");
        let mut manifest = manifest(&deployment, &pod, flags).ok_or_else(|| {
            let client = stage.overlay.client;
            LabError::Cluster(format!("{client}: expected a container {CONTAINER} in its pods"))
        })?;
        change(&mut manifest);
        stage.create(&manifest.to_string()).await?;
        Ok(Self { stage, pod })
    }

    /// The name of its pod.
    pub(super) fn pod(&self) -> &str {
        &self.pod
    }

    /// Waits until it has a READY subchannel to each of `backends`, or, through an Envoy, until
    /// each has answered.
    ///
    /// # Errors
    ///
    /// When that takes too long; the message has the end of its log.
    pub(super) async fn until_ready(&self, backends: &[Backend]) -> Result<(), LabError> {
        let addresses = addresses(backends);
        let proxied = self.stage.overlay.learns.by_proxy();
        let found = |events: &[Event]| match proxied {
            true => backends.iter().all(|of| has_answered(events, &of.ip)),
            false => all_ready(events, &addresses),
        };
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            // Its container may not run yet, and then there is no log.
            let log = self.log().await.unwrap_or_default();
            if found(&events(&log)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let (name, limit_s) = (self.pod.clone(), READY_LIMIT.as_secs());
                return Err(LabError::NotReady { name, limit_s, log: tail(&log) });
            }
            sleep(LOOK).await;
        }
    }

    /// Ends it and reads its report.
    ///
    /// # Errors
    ///
    /// When it does not end, or without a report.
    pub(super) async fn stop(self) -> Result<Finished, LabError> {
        let patch = r#"{"spec":{"activeDeadlineSeconds":1}}"#;
        let args = ["patch", "pod", &self.pod, "--type=merge", "-p", patch];
        self.stage.kubectl(&args, WRITE_LIMIT).await?;
        self.finish(STOP_LIMIT, "SIGTERM").await
    }

    /// Waits for its own end and reads its report.
    ///
    /// # Errors
    ///
    /// As [`Driver::stop`].
    pub(super) async fn wait(self, limit: Duration) -> Result<Finished, LabError> {
        self.finish(limit, "its last call").await
    }

    async fn finish(self, limit: Duration, signal: &'static str) -> Result<Finished, LabError> {
        let deadline = Instant::now() + limit;
        let code = loop {
            let pod: Pod = self.stage.get(&format!("pod/{}", self.pod)).await?;
            let mut containers = pod.status.container_statuses.into_iter();
            let client = containers.find(|of| of.name == CONTAINER);
            if let Some(ended) = client.and_then(|of| of.state.terminated) {
                break ended.exit_code;
            }
            if Instant::now() >= deadline {
                let (name, limit_s) = (self.pod.clone(), limit.as_secs());
                let log = tail(&self.log().await.unwrap_or_default());
                return Err(LabError::Lingers { name, limit_s, signal, log });
            }
            sleep(LOOK).await;
        };
        let log = self.log().await?;
        if code != 0 {
            let (name, status) = (self.pod, format!("exit status {code}"));
            return Err(LabError::Ended { name, status, log: tail(&log) });
        }
        read(&log, &self.pod)
    }

    async fn log(&self) -> Result<String, LabError> {
        Ok(self.stage.kubectl(&["logs", &self.pod, "-c", CONTAINER], READ_LIMIT).await?)
    }
}

/// A pod from the template of `deployment`, with the client's arguments replaced. Its labels are
/// its own, but for those that Istio's injector reads: with the Deployment's it would be adopted,
/// and ended as one too many.
fn manifest(deployment: &Value, name: &str, flags: &[&str]) -> Option<Value> {
    let mut spec = deployment.pointer("/spec/template/spec")?.clone();
    spec["restartPolicy"] = "Never".into();
    let containers = spec.get_mut("containers")?.as_array_mut()?;
    let client = containers.iter_mut().find(|of| of["name"] == CONTAINER)?;
    let always = ["--output", "json", "--quiet", "--events"];
    client["args"] = always.iter().chain(flags).copied().collect();
    let template = deployment.pointer("/spec/template/metadata")?;
    let mut labels = injection(&template["labels"]);
    labels.insert("app".to_owned(), "lab-client".into());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "evenkeel-lab".into());
    let annotations = injection(&template["annotations"]);
    Some(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": labels, "annotations": annotations },
        "spec": spec,
    }))
}

/// Those of `words`, labels or annotations, that say whether and how a pod gets a sidecar.
fn injection(words: &Value) -> Map<String, Value> {
    let words = words.as_object().into_iter().flatten();
    let of_istio = words.filter(|(key, _)| key.starts_with("sidecar.istio.io/"));
    of_istio.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A log is the client's stdout and stderr: events, a line each, and at the end the report.
fn read(log: &str, pod: &str) -> Result<Finished, LabError> {
    let report: Report = serde_json::from_str(&whole(log)).map_err(|source| LabError::Report {
        name: pod.to_owned(),
        path: PathBuf::from(format!("kubectl logs {pod}")),
        source,
        log: tail(log),
    })?;
    Ok(Finished { report, events: events(log) })
}

/// The report's text. The kubelet cuts a long line into pieces and puts what came to stderr
/// meanwhile between them: the end of a piece is then an event, and the next piece begins a line.
fn whole(log: &str) -> String {
    const BEGIN: &str = r#"{"target":"#;
    let is_event = |text: &str| {
        serde_json::from_str::<Value>(text).is_ok_and(|value| value.get("event").is_some())
    };
    let mut report = String::new();
    for line in log.lines().skip_while(|line| !line.starts_with(BEGIN)) {
        let tail = line.rfind(r#"{"unix_s":"#).filter(|at| is_event(&line[*at..]));
        report += tail.map_or(line, |at| &line[..at]);
        if tail.is_none() {
            break;
        }
    }
    report
}

fn has_answered(events: &[Event], ip: &str) -> bool {
    let is_first = |what: &What| matches!(what, What::FirstCall { backend } if backend == ip);
    first(events, 0.0, is_first).is_some()
}

fn events(log: &str) -> Vec<Event> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    let short = |line: &&str| format!("  {}", line.chars().take(300).collect::<String>());
    lines[from..].iter().map(short).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_the_overlays_client_with_other_arguments_and_other_labels() {
        let deployment = json!({
            "metadata": { "name": "greeter-client-round-robin" },
            "spec": { "template": {
                "metadata": { "labels": {
                    "app": "greeter-client-round-robin", "sidecar.istio.io/inject": "true"
                } },
                "spec": {
                    "serviceAccountName": "greeter-client-round-robin",
                    "containers": [
                        { "name": "greeter-client", "image": "i", "args": ["--rate=1"], "env": [1] }
                    ]
                }
            } }
        });
        let pod = manifest(&deployment, "lab-client-scale", &["--rate", "200"]).expect("a pod");
        assert_eq!(pod["metadata"]["labels"]["app"], "lab-client");
        // What was deployed has a sidecar, so what is measured has one.
        assert_eq!(pod["metadata"]["labels"]["sidecar.istio.io/inject"], "true");
        assert_eq!(pod["spec"]["serviceAccountName"], "greeter-client-round-robin");
        let client = &pod["spec"]["containers"][0];
        assert_eq!((&client["image"], &client["env"]), (&json!("i"), &json!([1])));
        let args = client["args"].as_array().expect("arguments");
        assert!(args.ends_with(&[json!("--rate"), json!("200")]), "{args:?}");
        assert!(!args.contains(&json!("--rate=1")));
        assert_eq!(manifest(&json!({ "spec": {} }), "x", &[]), None);
    }

    #[test]
    fn a_log_has_events_and_one_report_in_any_order() {
        let report = json!({
            "target": "t", "started_unix_s": 1.0, "wall_s": 2.0, "calls": 3, "ok": 3, "fail": 0,
            "shed": 0, "rate": 1.5, "by_backend": {}, "by_code": {}, "latency_ms": {},
            "streams_open_at_eof": {}, "transparent_retries": 0, "failures": [], "cpu_s": 0.1
        })
        .to_string();
        let event = r#"{"unix_s":1.5,"event":"first_call","backend":"10.0.0.1"}"#;
        let log = format!("a warning\n{event}\n{report}\n{event}\n");
        let finished = read(&log, "pod").expect("a report");
        assert_eq!((finished.report.calls, finished.events.len()), (3, 2));
        // A long line comes in pieces, with events between them.
        let (head, rest) = report.split_at(40);
        let finished = read(&format!("{head}{event}\n{event}\n{rest}\n"), "pod");
        assert_eq!(finished.expect("in pieces").report.calls, 3);
        let Err(error) = read(event, "pod") else { panic!("there is no report") };
        assert!(error.to_string().contains("kubectl logs pod"), "{error}");
    }
}
