//! The body of a watch: events as they happen, bookmarks, and the end when its time is over.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    answer::{Body, Refused},
    selector::Selector,
    server::Shared,
    store::Event,
};

/// As kube-apiserver: one bookmark a minute, …
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// … and one this long before the end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// What a watch is about.
pub(crate) struct Watch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) namespace: String,
    pub(crate) selector: Selector,
    /// The events after this one.
    pub(crate) version: u64,
    /// The objects that there are, before that.
    pub(crate) initial: Vec<Event>,
    /// Whether a bookmark ends them.
    pub(crate) marks_initial: bool,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
}

struct Running {
    watch: Watch,
    bookmark_at: Instant,
    end_at: Instant,
    /// Nothing follows any more.
    over: bool,
}

impl Watch {
    pub(crate) fn body(self) -> Body {
        let now = Instant::now();
        let end_at = now + self.timeout;
        let before_end = now + self.timeout.saturating_sub(BOOKMARK_BEFORE_END);
        let bookmark_at = before_end.min(now + BOOKMARK_INTERVAL);
        let running = Running { watch: self, bookmark_at, end_at, over: false };
        let frames = stream::unfold(running, |mut running| async {
            let lines = running.next().await?;
            Some((Ok::<_, io::Error>(Frame::data(Bytes::from(lines))), running))
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

impl Running {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        loop {
            let shared = self.watch.shared.clone();
            // Before the look at the store, so that no change after it is missed.
            let changed: &Notify = &shared.changed;
            let changed = changed.notified();
            match self.due() {
                Ok(lines) if !lines.is_empty() => return Some(lines),
                Ok(_) => {}
                Err(refused) => {
                    self.over = true;
                    let event = Event { kind: "ERROR", object: refused.status() };
                    return Some(event.line());
                }
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(self.end_at) => return None,
                () = sleep_until(self.bookmark_at), if self.watch.bookmarks => {
                    self.bookmark_at += BOOKMARK_INTERVAL;
                    return Some(Event::bookmark(self.watch.version, false).line());
                }
            }
        }
    }

    /// What there is to send now.
    fn due(&mut self) -> Result<String, Refused> {
        let watch = &mut self.watch;
        let mut lines: String = watch.initial.drain(..).map(|event| event.line()).collect();
        if std::mem::take(&mut watch.marks_initial) {
            lines += &Event::bookmark(watch.version, true).line();
        }
        if !lines.is_empty() {
            return Ok(lines);
        }
        let store = watch.shared.store();
        let since = store.since(watch.version, &watch.namespace, &watch.selector)?;
        drop(store);
        watch.version = since.version;
        Ok(since.events.iter().map(Event::line).collect())
    }
}
