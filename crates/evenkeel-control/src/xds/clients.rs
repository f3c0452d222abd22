//! The clients that there are, with what each has been sent and what it said to that, for the
//! status page and the metrics. A client's machine is looked at where it is: a copy of it for each
//! answer would cost more than the answer.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use evenkeel_proto::envoy::config::core::v3::{Node, node::UserAgentVersionType as AgentVersion};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Kind,
    machine::{KindView, Machine, Variant},
};
use crate::{control::lock, peer::Peer};

/// What is kept of a text that a client says of itself.
const TEXT_BYTES_MAX: usize = 250;

/// A client with a stream, while it has one.
#[derive(Debug)]
pub(super) struct Client {
    id: u64,
    address: Option<SocketAddr>,
    identity: Option<String>,
    node: String,
    cluster: String,
    user_agent: String,
    view: Arc<str>,
    since: Instant,
    /// Its stream's; others only look.
    pub(super) machine: Mutex<Machine>,
}

/// A client at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ClientView {
    /// Counts streams from 1.
    pub id: u64,
    /// Where it comes from.
    pub address: Option<SocketAddr>,
    /// The names in its certificate.
    pub identity: Option<String>,
    /// `node.id`.
    pub node: String,
    /// `node.cluster`.
    pub cluster: String,
    /// What it is, with its version.
    pub user_agent: String,
    /// Which resources it gets.
    pub view: String,
    /// How it gets them.
    pub variant: Variant,
    /// How long its stream is open, in seconds.
    pub connected_s: f64,
    /// What it has asked for, by type.
    pub kinds: Vec<KindView>,
}

impl Client {
    pub(super) fn new(id: u64, peer: &Peer, node: &Node, view: Arc<str>, variant: Variant) -> Self {
        Self {
            id,
            address: peer.address,
            identity: peer.names.as_ref().map(ToString::to_string),
            node: shortened(&node.id),
            cluster: shortened(&node.cluster),
            user_agent: user_agent(node),
            view,
            since: Instant::now(),
            machine: Mutex::new(Machine::new(variant)),
        }
    }

    /// `node.id`, for logs.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    fn view(&self) -> ClientView {
        let machine = lock(&self.machine);
        ClientView {
            id: self.id,
            address: self.address,
            identity: self.identity.clone(),
            node: self.node.clone(),
            cluster: self.cluster.clone(),
            user_agent: self.user_agent.clone(),
            view: self.view.to_string(),
            variant: machine.variant(),
            connected_s: self.since.elapsed().as_secs_f64(),
            kinds: machine.views(),
        }
    }
}

fn user_agent(node: &Node) -> String {
    let version = match &node.user_agent_version_type {
        Some(AgentVersion::UserAgentVersion(version)) => version.clone(),
        Some(AgentVersion::UserAgentBuildVersion(build)) => {
            let version = build.version.unwrap_or_default();
            format!("{}.{}.{}", version.major_number, version.minor_number, version.patch)
        }
        None => String::new(),
    };
    shortened(format!("{} {version}", node.user_agent_name).trim())
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX.min(text.len()))].to_owned()
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Clients {
    all: Mutex<BTreeMap<u64, Arc<Client>>>,
    ids: AtomicU64,
}

impl Clients {
    pub(super) fn new_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, client: Client) -> Entry {
        let client = Arc::new(client);
        lock(&self.all).insert(client.id, client.clone());
        Entry { clients: self.clone(), client }
    }

    /// Up to `max`, those first who came first; and how many there are.
    pub(super) fn views(&self, max: usize) -> (Vec<ClientView>, usize) {
        let all = lock(&self.all);
        let (shown, total) = (all.values().take(max).cloned().collect::<Vec<_>>(), all.len());
        drop(all);
        (shown.iter().map(|client| client.view()).collect(), total)
    }

    /// Of each kind, how many clients run on an older version because they refused the newest.
    pub(super) fn refusing(&self) -> [usize; Kind::ALL.len()] {
        let all: Vec<_> = lock(&self.all).values().cloned().collect();
        let mut counts = [0; Kind::ALL.len()];
        for client in all {
            let machine = lock(&client.machine);
            for kind in Kind::ALL {
                counts[kind as usize] += usize::from(machine.is_refusing(kind));
            }
        }
        counts
    }
}

/// A client among the others.
#[derive(Debug)]
pub(super) struct Entry {
    clients: Arc<Clients>,
    pub(super) client: Arc<Client>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.clients.all).remove(&self.client.id);
    }
}
