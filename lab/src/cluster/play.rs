//! `lab run … --on cluster`: one example after the other, each in a namespace that is made for it
//! and deleted after it, whatever happens in between.

use std::{
    collections::BTreeSet,
    io::IsTerminal as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    cli::ControlPlane,
    clock::unix_s,
    error::LabError,
    examples,
    report::{ExampleReport, NotRun, PhaseReport, RunReport, SCHEMA},
    run::{Run, cpus},
};

use super::{
    Where, consent, istio,
    kubectl::{Kubectl, KubectlError, READ_LIMIT},
    overlay::{self, Learns, Overlay, Phase},
    phases,
    stage::{self, Stage, WRITE_LIMIT},
};

type Chosen = Vec<(&'static Overlay, Vec<Phase>)>;

const REAL: &[&str] = &["everything: pods, kubelet, DNS, API server, and the client, a pod too"];

/// What is to be played, and where.
pub(crate) struct Plan {
    kubectl: Kubectl,
    kustomize: PathBuf,
    chosen: Chosen,
    yes: bool,
    /// Namespaces that were made and are not deleted yet.
    made: Mutex<Vec<String>>,
}

/// What the command line asks for.
///
/// # Errors
///
/// A message: an example or a phase that is not known, no kubectl, no folder.
pub(crate) fn plan(
    words: &[String],
    all: bool,
    wanted: &[String],
    (at, control_plane): (&Where, Option<ControlPlane>),
    yes: bool,
) -> Result<Plan, String> {
    let mut overlays: Vec<&'static Overlay> = Vec::new();
    if all {
        overlays.extend(overlay::ALL.iter().filter(|of| can_have(of, control_plane)));
    }
    for word in words {
        let found = find(word, control_plane)?;
        if overlays.iter().all(|other| other.folder != found.folder) {
            overlays.push(found);
        }
    }
    for name in wanted {
        let known: Vec<&str> =
            overlays.iter().flat_map(|of| of.phases).map(|phase| phase.name()).collect();
        if !known.contains(&name.as_str()) {
            let known = known.join(", ");
            return Err(format!("unknown phase \"{name}\" on a cluster; known are {known}"));
        }
    }
    let is_wanted = |phase: &Phase| wanted.is_empty() || wanted.iter().any(|w| w == phase.name());
    let of_overlay = |overlay: &'static Overlay| {
        (overlay, overlay.phases.iter().copied().filter(is_wanted).collect())
    };
    let context = at.context.as_deref().ok_or("--on cluster needs --context NAME")?;
    let kubectl =
        Kubectl::find(at.kubectl.as_deref(), context).map_err(|error| error.to_string())?;
    Ok(Plan {
        kubectl,
        kustomize: overlay::folder(at.kustomize.as_deref())?,
        chosen: overlays.into_iter().map(of_overlay).collect(),
        yes,
        made: Mutex::new(Vec::new()),
    })
}

fn find(word: &str, asked: Option<ControlPlane>) -> Result<&'static Overlay, String> {
    let example = examples::find(word)?;
    let mut of_example = overlay::ALL.iter().copied().filter(|of| of.name == example.name);
    if of_example.clone().next().is_none() {
        let known: BTreeSet<&str> = overlay::ALL.iter().map(|of| of.name).collect();
        let known: Vec<&str> = known.into_iter().collect();
        return Err(format!(
            "{} is not played on a cluster; {} are",
            example.name,
            known.join(", ")
        ));
    }
    of_example.find(|of| can_have(of, asked)).ok_or_else(|| {
        format!("{} is not played on a cluster under that control plane", example.name)
    })
}

/// Whether nobody tells Envoys there, or whoever was asked for, if somebody was.
fn can_have(overlay: &Overlay, asked: Option<ControlPlane>) -> bool {
    let has = overlay.learns.control_plane();
    asked.is_none() || has.is_none() || has == asked
}

impl Plan {
    /// Plays what was chosen and reports. When the future is dropped, or has failed,
    /// [`Plan::clean`] has to be called.
    ///
    /// # Errors
    ///
    /// The first thing that could not be done, or that the user does not want it done.
    pub(crate) async fn play(&self, run: &Arc<Run>) -> Result<RunReport, LabError> {
        let started_unix_s = unix_s();
        let (chosen, not_run) = self.equip(run).await?;
        if let (true, Some(first)) = (chosen.is_empty(), not_run.first()) {
            return Err(LabError::Cluster(first.why.clone()));
        }
        self.ask(run, &chosen).await?;
        let mut reports = Vec::new();
        for (overlay, phases) in &chosen {
            reports.push(self.example(run, overlay, phases).await?);
        }
        Ok(RunReport {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            started_unix_s,
            wall_s: run.progress().elapsed_s(),
            cpus: cpus(),
            holds: reports.iter().all(|report| report.holds),
            examples: reports,
            not_run,
        })
    }

    /// What can be played there: overlays that need Istio are left out where there is none.
    async fn equip(&self, run: &Run) -> Result<(Chosen, Vec<NotRun>), LabError> {
        let needs = |overlay: &Overlay| overlay.learns == Learns::EnvoyByIstiod;
        if !self.chosen.iter().any(|(overlay, _)| needs(overlay)) {
            return Ok((self.chosen.clone(), Vec::new()));
        }
        let why = match istio::find(&self.kubectl).await {
            Ok(Some(istiod)) => {
                run.progress().say("lab", &format!("istiod: {}", istio::shown(&istiod)));
                return Ok((self.chosen.clone(), Vec::new()));
            }
            Ok(None) => {
                "the overlay needs Istio, and there is no istiod on this cluster (a Deployment \
                 with the label app=istiod in any namespace)"
                    .to_owned()
            }
            Err(error) => format!("the overlay needs Istio, and istiod can't be seen: {error}"),
        };
        let (without, with): (Chosen, Chosen) =
            self.chosen.iter().cloned().partition(|(overlay, _)| needs(overlay));
        let mut not_run = Vec::new();
        for (overlay, _) in without {
            let example = examples::find(overlay.name).map_err(LabError::Cluster)?;
            not_run.push(NotRun::new(example, &why));
        }
        Ok((with, not_run))
    }

    /// Deletes the namespaces that are left.
    pub(crate) async fn clean(&self, run: &Run) {
        let left = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for namespace in left {
            run.progress().say("lab", &format!("deleting the namespace {namespace}"));
            if let Err(error) = stage::delete(&self.kubectl, &namespace).await {
                run.progress().say("lab", &format!("{error}; delete {namespace} yourself"));
            }
        }
    }

    /// Says which cluster it is and what will be done there, and asks whether it may.
    async fn ask(&self, run: &Run, chosen: &Chosen) -> Result<(), LabError> {
        let context = self.kubectl.context();
        let template = "{.clusters[0].cluster.server}";
        let output = format!("jsonpath={template}");
        let args = ["config", "view", "--minify", "-o", &output];
        let server = self.kubectl.text(&args, None, READ_LIMIT).await?;
        let names: Vec<&str> = chosen.iter().map(|(overlay, _)| overlay.folder).collect();
        let what = format!(
            "context {context}, {server}: for each of {} a namespace evenkeel-lab-… is made, \
             kustomize/overlays/… applied in it, pods scaled, restarted and deleted in it, and \
             the namespace deleted",
            names.join(", ")
        );
        run.progress().say("lab", &what);
        if self.yes {
            return Ok(());
        }
        consent::given(std::io::stdin().is_terminal(), || std::io::stdin().lock()).await
    }

    async fn example(
        &self,
        run: &Arc<Run>,
        overlay: &'static Overlay,
        phases: &[Phase],
    ) -> Result<ExampleReport, LabError> {
        let namespace = self.make(overlay).await?;
        let stage =
            Stage::open(Arc::clone(run), &self.kubectl, &namespace, overlay, &self.kustomize)
                .await?;
        let mut played = Vec::new();
        for phase in phases {
            if let Some(report) = phases::play(&stage, *phase).await? {
                say_result(&stage, &report);
                played.push(report);
            }
        }
        drop(stage);
        self.clean(run).await;
        let example = examples::find(overlay.name).map_err(LabError::Cluster)?;
        let mut report = ExampleReport::new(example, played);
        report.real = REAL;
        report.doubles = &[];
        if overlay.learns == Learns::EnvoyByIstiod {
            istio::tell(&mut report);
        }
        let names = overlay.phases.iter().map(|phase| phase.name());
        let ran = |name: &&str| report.phases.iter().any(|phase| phase.name == *name);
        report.phases_not_run = names.filter(|name| !ran(name)).collect();
        Ok(report)
    }

    async fn make(&self, overlay: &Overlay) -> Result<String, KubectlError> {
        let namespace =
            format!("evenkeel-lab-{}-{:06x}", overlay.name, fastrand::u32(..0x100_0000));
        // Noted first: the request may be carried out and its answer be lost.
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(namespace.clone());
        self.kubectl.text(&["create", "namespace", &namespace], None, WRITE_LIMIT).await?;
        let mut args = vec!["label", "namespace", &namespace];
        args.extend(pod_security(overlay));
        self.kubectl.text(&args, None, WRITE_LIMIT).await?;
        Ok(namespace)
    }
}

/// As strict as a cluster can be: what the overlays promise of their pods is tried there. What
/// Istio's injector adds is refused by that, unless its CNI plug-in is installed, so there the API
/// server only warns, and a check says of what.
fn pod_security(overlay: &Overlay) -> &'static [&'static str] {
    match overlay.learns {
        Learns::EnvoyByIstiod => &[
            "pod-security.kubernetes.io/enforce=privileged",
            "pod-security.kubernetes.io/warn=restricted",
        ],
        _ => &["pod-security.kubernetes.io/enforce=restricted"],
    }
}

fn say_result(stage: &Stage, report: &PhaseReport) {
    let failed = report.checks.iter().filter(|check| !check.holds).count();
    let all = report.checks.len();
    stage.say(&match failed {
        0 => format!("{}: √ all {all} checks hold", report.name),
        failed => format!("{}: × {failed} of {all} checks failed", report.name),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(words: &[&str], wanted: &[&str]) -> Result<Vec<&'static str>, String> {
        planned_under(None, words, wanted)
    }

    /// The folders of what is played.
    fn planned_under(
        control_plane: Option<ControlPlane>,
        words: &[&str],
        wanted: &[&str],
    ) -> Result<Vec<&'static str>, String> {
        let folder = std::env::temp_dir().join(format!("lab-plan-{:08x}", fastrand::u32(..)));
        std::fs::create_dir_all(folder.join("overlays")).expect("a new folder");
        let at = Where {
            context: Some("here".to_owned()),
            kubectl: Some("kubectl".into()),
            kustomize: Some(folder.clone()),
            ..Where::default()
        };
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let at = (&at, control_plane);
        let plan = plan(&owned(words), words.is_empty(), &owned(wanted), at, true);
        std::fs::remove_dir_all(&folder).ok();
        let name = |(overlay, phases): &(&'static Overlay, Vec<Phase>)| {
            assert!(!phases.is_empty());
            overlay.folder
        };
        Ok(plan?.chosen.iter().map(name).collect())
    }

    #[test]
    fn examples_are_chosen_as_on_one_machine() {
        let all = [
            "round-robin",
            "envoy-static",
            "envoy-dynamic-without-istio",
            "envoy-dynamic",
            "istio",
            "lookaside",
            "kubernetes",
        ];
        assert_eq!(planned(&[], &[]).unwrap(), all);
        let once = planned(&["1", "2", "3", "4", "5", "6", "kubernetes"], &["scale"]).unwrap();
        assert_eq!(once, [&all[..3], &all[4..]].concat());
    }

    #[test]
    fn who_tells_envoys_can_be_chosen_and_leaves_other_examples_alone() {
        let under = |who, words: &[&str]| planned_under(Some(who), words, &[]);
        use ControlPlane::{Balancer, Istiod};
        assert_eq!(under(Istiod, &["1", "3"]).unwrap(), ["round-robin", "envoy-dynamic"]);
        assert_eq!(under(Balancer, &["3"]).unwrap(), ["envoy-dynamic-without-istio"]);
        let without = under(Balancer, &[]).unwrap();
        assert!(without.len() == 5 && !without.contains(&"istio"), "{without:?}");
        let message = under(Balancer, &["istio"]).expect_err("only Istio has that overlay");
        assert!(message.contains("mesh is not played"), "{message}");
    }

    #[test]
    fn only_where_istio_injects_something_pod_security_only_warns() {
        for overlay in overlay::ALL {
            let injected = ["envoy-dynamic", "istio"].contains(&overlay.folder);
            let enforced = pod_security(overlay).concat().contains("enforce=restricted");
            assert_eq!(injected, !enforced, "{}", overlay.folder);
        }
    }

    #[test]
    fn what_has_no_overlay_and_unknown_phases_are_told_with_those_that_are_known() {
        let message = planned(&["baseline"], &[]).expect_err("it is a double of a cluster");
        assert!(
            message.contains("envoy-dynamic, envoy-static, kubernetes, lookaside, mesh,"),
            "{message}"
        );
        let message = planned(&["1"], &["hang"]).expect_err("pods are not stopped");
        assert!(message.contains("known are steady, scale, rolling, delete, zone"), "{message}");
    }
}
