//! `file:/etc/greeter/endpoints`: the endpoints are the lines of a file, and a change of the file
//! is a change of the endpoints, without a restart. A resolver is one task that reports what it
//! found and knows nothing of policies, connections or calls.
//!
//! The file is read again every so often, and when the channel asks; it is not watched by inotify,
//! because a mounted ConfigMap changes by a swap of symbolic links that a watch on the file does
//! not see.

mod list;

use std::{
    future::poll_fn,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use evenkeel::core::{
    Endpoint, ResolverError, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate, Status,
    Target, TargetError,
};
use tokio::time::{MissedTickBehavior, interval};

/// Registers the resolver: `ChannelBuilder::register_resolver(Arc::new(FileResolver::default()))`.
pub struct FileResolver {
    /// The file is read again after this time (1 s).
    pub interval: Duration,
    /// The `:authority` of calls, as a path is none (`localhost`).
    pub authority: String,
}

impl Default for FileResolver {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), authority: "localhost".to_owned() }
    }
}

impl ResolverFactory for FileResolver {
    fn schemes(&self) -> &[&str] {
        &["file"]
    }

    fn default_authority(&self, target: &Target) -> Result<String, TargetError> {
        // A target that can't be read is refused by `build()` already, and not by the first call.
        path(target)?;
        Ok(self.authority.clone())
    }

    fn start(
        &self,
        target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        Ok(Box::pin(watch(path(target)?, self.interval, sink)))
    }
}

/// `file:/etc/x` and `file:///etc/x` are the same file.
fn path(target: &Target) -> Result<PathBuf, TargetError> {
    let text = target.to_string();
    let has_authority = text.starts_with("file://");
    if !target.authority().is_empty() {
        let wanted = "expected no host; write file:///path or file:/path";
        return Err(TargetError::new(&text, wanted));
    }
    // After `//` and an empty authority the path begins with the slash that ended it.
    let root = if has_authority { "/" } else { "" };
    let path = PathBuf::from(format!("{root}{}", target.path()));
    if path.is_relative() {
        let wanted = "expected an absolute path: which folder a service runs in is chance";
        return Err(TargetError::new(&text, wanted));
    }
    Ok(path)
}

/// Runs until the channel drops it: when the channel ends or goes IDLE.
async fn watch(path: PathBuf, every: Duration, sink: Arc<dyn ResolverSink>) {
    let mut ticks = interval(every);
    // After a pause of the machine one look is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // A connection was lost, say. Polled by one task only, as the sink wants it.
            () = poll_fn(|cx| sink.poll_requested(cx)) => {}
        }
        let found = look(&path).await;
        // An unchanged list is no news.
        if reported.as_ref() == Some(&found) {
            continue;
        }
        match &found {
            // An empty list is a valid answer: calls fail at once, which is what it says.
            Ok(endpoints) => sink.update(ResolverUpdate::new(endpoints.clone())),
            // The last good list stays in use.
            Err(text) => {
                let status = Status::unavailable(text.clone());
                sink.error(ResolverError { status, expired: false });
            }
        }
        reported = Some(found);
    }
}

async fn look(path: &Path) -> Result<Vec<Endpoint>, String> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
    list::read(&text).map_err(|e| format!("{}:{e}", path.display()))
}
