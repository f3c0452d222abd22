//! What the crate itself logs, which tests of a collector in trouble look at.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tokio::time::timeout;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use super::LIMIT;

/// Takes note of the crate's own warnings and news, on the test's thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl Log {
    /// From now on, until the guard is dropped.
    pub(crate) fn listen(&self) -> DefaultGuard {
        tracing::subscriber::set_default(self.clone())
    }

    /// What came so far.
    pub(crate) fn lines(&self) -> Vec<(Level, String)> {
        self.0.lock().unwrap().clone()
    }

    /// How many of them are warnings.
    pub(crate) fn warnings(&self) -> usize {
        self.lines().iter().filter(|(level, _)| *level == Level::WARN).count()
    }

    /// The first line, as soon as there is one.
    pub(crate) async fn warned(&self) -> String {
        let wait = async {
            loop {
                if let Some((_, line)) = self.lines().first() {
                    return line.clone();
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, wait).await.expect("a warning")
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("evenkeel_telemetry")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push((*event.metadata().level(), message.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
