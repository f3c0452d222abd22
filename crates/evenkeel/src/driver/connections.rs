//! The driver between the engine's subchannels and their connections: it starts them, hears how
//! they end, and remembers those that were of no use.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use evenkeel_core::{Address, Status, SubchannelId, observe::Event};
use tokio::task::AbortHandle;

use super::{Driver, DriverOptions};
use crate::{
    connector::Secure,
    transport::{Connection, ConnectionEvent, End, EventKind, Transport},
};

/// The longest keepalive time that `too_many_pings` leads to.
const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// Useless connections in a row after which a subchannel has to back off. The first is forgiven: a
/// server that restarts may hang up once, and is there again at once.
const USELESS_MAX: u32 = 2;

/// The connection of one subchannel, as the driver keeps it.
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) generation: u32,
    pub(super) task: AbortHandle,
    pub(super) transport: Option<Arc<Transport>>,
}

/// Connections of one subchannel, the latest ones in a row, that were of no use.
pub(super) struct Useless {
    generation: u32,
    count: u32,
    ended_at_ns: u64,
    /// Why the latest one ended, until the subchannel has backed off for it.
    owed: Option<String>,
}

impl Driver {
    pub(super) fn connect(&mut self, id: SubchannelId, address: Address) {
        if let Some(status) = self.back_off(id, &address) {
            return self.engine.connect_failed(self.shared.now_ns(), id, status);
        }
        let secure = match self.secure_for(id) {
            Ok(secure) => secure,
            Err(reason) => {
                let status = Status::unavailable(format!("cannot connect to {address}: {reason}"));
                return self.engine.connect_failed(self.shared.now_ns(), id, status);
            }
        };
        let number = self.next_number;
        self.next_number += 1;
        self.addresses.insert(number, address.clone());
        let connection = Connection {
            id,
            number,
            address,
            options: self.options.transport,
            connector: self.options.connector.clone(),
            secure,
            queue: self.shared.queue.clone(),
            events: self.events.clone(),
            cut: self.cut.subscribe(),
        };
        let task = self.connections.spawn_on(connection.run(), &self.options.runtime);
        let link = Link { number, generation: id.generation, task, transport: None };
        self.links.insert(id.index, link);
    }

    /// What secures a subchannel's connection: for a balancer, under its own name.
    fn secure_for(&mut self, id: SubchannelId) -> Result<Option<Arc<dyn Secure>>, String> {
        let Some(secure) = &self.options.secure else { return Ok(None) };
        match self.engine.server_name(id) {
            Some(name) => secure.named(&name).map(Some),
            None => Ok(Some(secure.clone())),
        }
    }

    pub(super) fn disconnect(&mut self, id: SubchannelId) {
        self.useless.remove(&id.index);
        let Some(link) = self.unlink(id) else { return };
        if link.transport.is_some() {
            // It drains: the connection ends when no snapshot and no call has it any more.
            self.links_changed = true;
            self.shared.board.drains(link.number);
        } else {
            self.addresses.remove(&link.number);
            link.task.abort();
        }
    }

    fn unlink(&mut self, id: SubchannelId) -> Option<Link> {
        let link = self.links.remove(&id.index)?;
        self.idleness.let_go(link.transport.as_ref().map_or(0, |t| t.seen.calls_sent()));
        Some(link)
    }

    pub(super) fn connection_event(&mut self, event: ConnectionEvent) {
        let ConnectionEvent { id, number, .. } = event;
        record_end(&self.options, &self.addresses, &event);
        self.shared.board.connection(&event);
        if matches!(event.kind, EventKind::Failed(_) | EventKind::Closed { .. }) {
            self.addresses.remove(&number);
        }
        if let EventKind::TooManyPings = event.kind {
            self.slow_down_keepalive();
        }
        let now = self.shared.now_ns();
        let Some(link) = self.links.get_mut(&id.index).filter(|link| link.number == number) else {
            return; // an older connection of this subchannel, or of one that is gone
        };
        match event.kind {
            EventKind::Ready(transport) => {
                link.transport = Some(transport);
                self.links_changed = true;
                self.engine.connected(now, id);
            }
            EventKind::Failed(status) => {
                self.unlink(id);
                self.engine.connect_failed(now, id, status);
            }
            EventKind::Draining { end } | EventKind::Closed { end, .. } => {
                self.unlink(id);
                self.links_changed = true;
                self.note_use(id, end);
                self.engine.disconnected(now, id);
            }
            // Said above, whichever connection is the subchannel's now.
            EventKind::TooManyPings => {}
        }
    }

    /// Why the next attempt has to wait although the last one made a READY connection. The engine's
    /// backoff starts anew with each of those, so a server that greets and hangs up would be
    /// connected to as fast as the network allows.
    fn back_off(&mut self, id: SubchannelId, address: &Address) -> Option<Status> {
        let now = self.shared.now_ns();
        let useless = self.useless.get_mut(&id.index)?;
        let recent = now.saturating_sub(useless.ended_at_ns) < self.options.backoff.initial_ns;
        if useless.generation != id.generation || useless.count < USELESS_MAX || !recent {
            return None;
        }
        let (count, reason) = (useless.count, useless.owed.take()?);
        Some(Status::unavailable(format!(
            "{address} hung up {count} times in a row before it answered a call: {reason}"
        )))
    }

    fn note_use(&mut self, id: SubchannelId, end: End) {
        if !end.useless {
            self.useless.remove(&id.index);
            return;
        }
        let generation = id.generation;
        let before = self.useless.remove(&id.index).filter(|u| u.generation == generation);
        let count = before.map_or(1, |u| u.count.saturating_add(1));
        let (ended_at_ns, owed) = (self.shared.now_ns(), Some(end.reason));
        self.useless.insert(id.index, Useless { generation, count, ended_at_ns, owed });
    }

    /// gRFC A8: a server that says `too_many_pings` gets half as many.
    fn slow_down_keepalive(&mut self) {
        if let Some(keepalive) = &mut self.options.transport.keepalive {
            keepalive.time = (keepalive.time * 2).min(KEEPALIVE_TIME_MAX);
            tracing::warn!(
                target = %self.options.target, time = ?keepalive.time,
                "the server says too_many_pings; the keepalive time is doubled"
            );
        }
    }
}

/// Tells observers of a drain or an end, also when the driver has long forgotten the subchannel.
pub(super) fn record_end(
    options: &DriverOptions,
    addresses: &BTreeMap<u64, Address>,
    event: &ConnectionEvent,
) {
    let Some(address) = addresses.get(&event.number) else { return };
    match &event.kind {
        EventKind::Draining { .. } => options.recorder.record(&Event::Draining { address }),
        EventKind::Closed { streams_open, end } => {
            let (reason, streams_open) = (end.reason.as_str(), u64::from(*streams_open));
            options.recorder.record(&Event::Disconnected { address, reason, streams_open });
        }
        EventKind::Ready(_) | EventKind::Failed(_) | EventKind::TooManyPings => {}
    }
}
