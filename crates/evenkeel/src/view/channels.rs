//! The channels that somebody wants to look at. There is no list of all channels of a process:
//! a library that keeps one decides for its users what strangers may see, and keeps alive what
//! should end. A view holds its channels weakly and is told of each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{sync::mpsc, time::Instant};

use super::{ChannelSnapshot, ConnectionSnapshot, SubchannelSnapshot, snapshot};
use crate::{Channel, channel::Shared, driver::Command};

/// The most channels that one [`ChannelView::page`] has.
pub const PAGE_MAX: usize = 100;

/// Channels under observation, for [`super::JsonService`] and `evenkeel-channelz`. Cheap to clone;
/// clones show the same channels. A channel whose last handle is dropped vanishes from it.
#[derive(Clone, Default)]
pub struct ChannelView {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Default)]
struct Entries {
    by_id: BTreeMap<u64, Entry>,
    /// The number of entries at which those of dropped channels are swept out.
    sweep_at: usize,
}

#[derive(Clone)]
struct Entry {
    shared: Weak<Shared>,
    /// Held by handles only, where `shared` is the driver's, too.
    handles: mpsc::WeakSender<Command>,
}

/// A part of a view, in the order of ids.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The channels.
    pub channels: Vec<ChannelSnapshot>,
    /// No channel follows.
    pub end: bool,
}

impl ChannelView {
    /// A view of these channels.
    pub fn new<'a>(channels: impl IntoIterator<Item = &'a Channel>) -> Self {
        let view = Self::default();
        channels.into_iter().for_each(|channel| view.add(channel));
        view
    }

    /// Shows one more channel; one that is shown already stays as it is.
    pub fn add(&self, channel: &Channel) {
        let handles = channel.handle.commands.downgrade();
        let entry = Entry { shared: Arc::downgrade(channel.shared()), handles };
        let mut entries = self.lock();
        entries.by_id.insert(channel.shared().id, entry);
        if entries.by_id.len() > entries.sweep_at {
            entries.by_id.retain(|_, entry| entry.get().is_some());
            entries.sweep_at = 2 * entries.by_id.len() + PAGE_MAX;
        }
    }

    /// The channel with this id.
    pub fn get(&self, id: u64) -> Option<ChannelSnapshot> {
        let entry = self.lock().by_id.get(&id)?.clone();
        entry.get().map(|shared| snapshot(&shared))
    }

    /// Up to `max` channels, and no more than [`PAGE_MAX`], whose id is at least `start_id`.
    pub fn page(&self, start_id: u64, max: usize) -> Page {
        let max = max.min(PAGE_MAX);
        let mut alive = self.alive(start_id);
        let end = alive.len() <= max;
        alive.truncate(max);
        Page { channels: alive.iter().map(|shared| snapshot(shared)).collect(), end }
    }

    /// The subchannel with this id, of whichever channel.
    pub fn subchannel(&self, id: u64) -> Option<SubchannelSnapshot> {
        let now = Instant::now();
        self.alive(0).iter().find_map(|shared| shared.board.find_subchannel(id, now))
    }

    /// The connection with this id, of whichever channel.
    pub fn connection(&self, id: u64) -> Option<ConnectionSnapshot> {
        let now = Instant::now();
        self.alive(0).iter().find_map(|shared| shared.board.find_connection(id, now))
    }

    fn alive(&self, start_id: u64) -> Vec<Arc<Shared>> {
        self.lock().by_id.range(start_id..).filter_map(|(_, entry)| entry.get()).collect()
    }

    /// No code that holds this lock can panic; should it ever, the map is whole all the same.
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn get(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade().filter(|_| self.handles.strong_count() > 0)
    }
}

impl std::fmt::Debug for ChannelView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChannelView").field("channels", &self.alive(0).len()).finish()
    }
}
