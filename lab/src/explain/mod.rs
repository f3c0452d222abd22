//! `lab explain`: why is my gRPC service not balanced?
//!
//! It reads a Service, its pods, slices and clients, and goes through the list of what people find
//! wrong with such a service one day. Each entry of the list is a rule (`rules`), a function from
//! what was read (`View`) to a verdict; reading (`collect`) knows no rules, and nothing here
//! changes anything in the cluster.

use std::path::PathBuf;

use serde::Serialize;

use crate::{cluster::kubectl::Kubectl, error::LabError};

mod clients;
mod collect;
mod probe;
mod rules;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod view;

use view::{Unread, View};

const SCHEMA: &str = "evenkeel-explain/1";

/// What is to be explained, and how to get there.
#[derive(clap::Args, Debug)]
pub(crate) struct Question {
    /// The Service, as namespace/name
    #[arg(value_name = "NAMESPACE/SERVICE", value_parser = split)]
    service: (String, String),
    /// The context of your kubeconfig; there is no default, so that no other cluster answers
    #[arg(long, value_name = "NAME")]
    context: String,
    /// kubectl, when it is not on PATH
    #[arg(long, value_name = "FILE")]
    kubectl: Option<PathBuf>,
}

/// How one rule came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    /// It is as it should be.
    Holds,
    /// It may be what is wrong.
    Warns,
    /// It is wrong.
    Broken,
    /// It could not be judged, or does not apply.
    NotJudged,
}

/// One rule, applied.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// Stable: scripts may look for it.
    pub(crate) rule: &'static str,
    pub(crate) mark: Mark,
    pub(crate) seen: String,
    /// Why it matters.
    pub(crate) why: &'static str,
    /// A command or a line of YAML; only where something is wrong.
    pub(crate) cure: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    schema: &'static str,
    context: String,
    namespace: String,
    service: String,
    /// Whether no rule is broken.
    pub(crate) holds: bool,
    findings: Vec<Finding>,
    unread: Vec<Unread>,
}

impl Explanation {
    fn new(context: &str, view: View) -> Self {
        let findings = rules::judge(&view, context);
        Self {
            schema: SCHEMA,
            context: context.to_owned(),
            holds: findings.iter().all(|finding| finding.mark != Mark::Broken),
            namespace: view.namespace,
            service: view.name,
            findings,
            unread: view.unread,
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        text::print(self)
    }
}

fn split(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("expected NAMESPACE/SERVICE, such as default/greeter".to_owned()),
    }
}

/// Reads what is there and judges it.
///
/// # Errors
///
/// When kubectl is missing or can't read the Service itself.
pub(crate) async fn explain(question: &Question) -> Result<Explanation, LabError> {
    let kubectl = Kubectl::find(question.kubectl.as_deref(), &question.context)?;
    let (namespace, name) = &question.service;
    let mut view = collect::read(&kubectl, namespace, name).await?;
    view.reach = probe::reach(&view).await;
    Ok(Explanation::new(kubectl.context(), view))
}
