//! What is counted of a process's servers: their calls (gRFC A66), and the events that they count
//! themselves. A client may send any path, so a method has numbers of its own only after a service
//! has answered for it.

use std::sync::{Arc, Mutex, PoisonError};

use evenkeel::core::Code;
use evenkeel_server::{CallEnd, CallMeter, ServerStats};

use super::{
    family::{Families, Labels},
    instruments as names,
    methods::{Ended, Methods, OTHER_METHOD, Room},
};

/// Servers of a process whose events are shown.
const SERVERS_MAX: usize = 64;

/// The numbers of all servers of the process.
pub(crate) struct Servers {
    methods: Methods,
    events: Mutex<Vec<ServerStats>>,
}

impl Servers {
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self { methods: Methods::new(room), events: Mutex::default() }
    }

    /// From now on these events are shown as well.
    pub(crate) fn watch(&self, events: ServerStats) {
        let mut watched = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.len() < SERVERS_MAX {
            watched.push(events);
        }
    }

    pub(super) fn collect(&self, out: &mut Families) {
        for method in self.methods.all().filter(|method| method.started() > 0) {
            let labels: Labels<'_> = &[("grpc.method", &method.name)];
            out.count(&names::SERVER_STARTED, labels, method.started());
            for (status, Ended { duration, sent, received }) in method.ended() {
                let labels = &[labels[0], ("grpc.status", status)];
                out.distribution(&names::SERVER_SENT, labels, sent);
                out.distribution(&names::SERVER_RECEIVED, labels, received);
                out.distribution(&names::SERVER_DURATION, labels, duration);
            }
        }
        let watched = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((first, others)) = watched.split_first() else { return };
        for (event, count) in first.counters() {
            let more = others.iter().flat_map(ServerStats::counters);
            let more = more.filter(|(name, _)| *name == event).map(|(_, count)| count);
            out.count(&names::SERVER_EVENTS, &[("event", event)], count + more.sum::<u64>());
        }
    }
}

impl CallMeter for Servers {
    fn started(&self, path: &str) -> Option<u32> {
        let method = self.methods.find(path)?;
        self.methods.get(method).start();
        Some(method)
    }

    fn known(&self, path: &str) -> u32 {
        let method = self.methods.number(path);
        self.methods.get(method).start();
        method
    }

    fn ended(&self, method: Option<u32>, end: &CallEnd) {
        let method = method.unwrap_or_else(|| {
            self.methods.get(OTHER_METHOD).start();
            OTHER_METHOD
        });
        // Without a status the client is gone, or has reset the stream.
        let ends = self.methods.ends(method, end.status.unwrap_or(Code::Cancelled as u8));
        ends.record(end.took, end.sent_bytes, end.received_bytes);
    }
}
