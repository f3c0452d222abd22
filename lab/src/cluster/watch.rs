//! Objects as they change, each with the moment at which this machine heard of it.
//!
//! The objects' own timestamps are whole seconds, which is too coarse for what the lab measures.
//! `kubectl get --raw` of a watch prints an event a line, while `kubectl get --watch` would leave
//! out what kind of event it was.

use std::{
    marker::PhantomData,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::ChildStdout,
};

use crate::{clock::unix_s, error::LabError, process::Nursery, process::Process};

use super::kubectl::Kubectl;

/// Later events are not kept; a phase has some hundreds.
const EVENTS_MAX: usize = 20_000;

/// A watch that runs; dropping it ends its kubectl.
pub(super) struct Watch<T> {
    path: String,
    seen: Arc<Mutex<Vec<Change<T>>>>,
    process: Process,
    kind: PhantomData<T>,
}

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Change<T> {
    /// When it was heard of.
    pub(super) at: f64,
    pub(super) deleted: bool,
    pub(super) object: T,
}

#[derive(Deserialize)]
struct Line<T> {
    #[serde(rename = "type")]
    kind: String,
    object: T,
}

impl<T: DeserializeOwned + Clone + Send + 'static> Watch<T> {
    /// Watches a resource, below its API's root, in `namespace`, as far as the label selects.
    /// What is there already comes first.
    ///
    /// # Errors
    ///
    /// When kubectl can't be started.
    pub(super) fn start(
        nursery: &Nursery,
        kubectl: &Kubectl,
        (root, resource): (&str, &str),
        namespace: &str,
        (key, value): (&str, &str),
    ) -> Result<Self, LabError> {
        let key = key.replace('/', "%2F");
        let path = format!(
            "{root}/namespaces/{namespace}/{resource}?watch=true&labelSelector={key}%3D{value}"
        );
        let mut command = kubectl.command(&["get", "--raw", &path]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let spawned = nursery
            .spawn("kubectl", &mut command)
            .map_err(LabError::io(format!("can't watch {path}")))?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdout) = spawned.stdout {
            tokio::spawn(follow(stdout, Arc::clone(&seen)));
        }
        Ok(Self { path, seen, process: spawned.process, kind: PhantomData })
    }

    /// Everything heard so far.
    ///
    /// # Errors
    ///
    /// When the watch has ended, since what came after is not known.
    pub(super) fn seen(&self) -> Result<Vec<Change<T>>, LabError> {
        if let Some(status) = self.process.status() {
            let name = format!("the watch of {}", self.path);
            let log = "  (the API server ended it, or refused it)".to_owned();
            return Err(LabError::Ended { name, status: status.to_string(), log });
        }
        Ok(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

async fn follow<T: DeserializeOwned>(stdout: ChildStdout, seen: Arc<Mutex<Vec<Change<T>>>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let at = unix_s();
        // Bookmarks and errors have objects of other kinds; an error is followed by the end.
        if let Ok(Line { kind, object }) = serde_json::from_str::<Line<T>>(&line)
            && ["ADDED", "MODIFIED", "DELETED"].contains(&kind.as_str())
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() < EVENTS_MAX {
                seen.push(Change { at, deleted: kind == "DELETED", object });
            }
        }
    }
}
