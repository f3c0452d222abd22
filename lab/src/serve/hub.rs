//! What stands between the show and those who look: the newest state, which everybody gets at
//! first, and what happened since, which everybody gets as it happens.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, watch};

use super::show::Wish;

/// Wishes that wait while the show grants one; more are refused.
const WISHES_MAX: usize = 16;
/// Events that a slow page may be behind; then it is told the state anew.
const NEWS_LEN_MAX: usize = 64;

/// One server-sent event: its name, and JSON.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub(super) name: &'static str,
    pub(super) json: Arc<str>,
}

/// The side of those who look.
#[derive(Clone, Debug)]
pub(super) struct Hub {
    pub(super) wishes: mpsc::Sender<Wish>,
    pub(super) state: watch::Receiver<Arc<str>>,
    /// Whose metrics there are, for Prometheus.
    pub(super) targets: watch::Receiver<Arc<str>>,
    news: broadcast::Sender<News>,
}

/// The show's side.
#[derive(Debug)]
pub(super) struct Backstage {
    pub(super) wishes: mpsc::Receiver<Wish>,
    state: watch::Sender<Arc<str>>,
    targets: watch::Sender<Arc<str>>,
    news: broadcast::Sender<News>,
}

/// Both sides.
pub(super) fn pair() -> (Hub, Backstage) {
    let (wish, wishes) = mpsc::channel(WISHES_MAX);
    let (state, newest) = watch::channel(Arc::from("null"));
    let (targets, listed) = watch::channel(Arc::from("[]"));
    let news = broadcast::Sender::new(NEWS_LEN_MAX);
    let hub = Hub { wishes: wish, state: newest, targets: listed, news: news.clone() };
    (hub, Backstage { wishes, state, targets, news })
}

impl Hub {
    /// What happens from now on.
    pub(super) fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }
}

impl Backstage {
    /// Replaces the state.
    pub(super) fn set(&self, state: &serde_json::Value) {
        self.state.send_replace(state.to_string().into());
    }

    /// Replaces the list of those whose metrics there are.
    pub(super) fn list(&self, targets: &serde_json::Value) {
        self.targets.send_replace(targets.to_string().into());
    }

    /// A handle that tells what happens.
    pub(super) fn teller(&self) -> Teller {
        Teller(self.news.clone())
    }
}

/// Tells those who look what happens.
#[derive(Clone, Debug)]
pub(super) struct Teller(broadcast::Sender<News>);

impl Teller {
    pub(super) fn tell(&self, name: &'static str, what: &serde_json::Value) {
        // Nobody may be looking.
        self.0.send(News { name, json: what.to_string().into() }).ok();
    }
}
