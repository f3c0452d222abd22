//! The end of a driver: what is said last, and what is waited for.

use std::time::Duration;

use evenkeel_core::{ConnectivityState, Output, Status, observe::Event};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use super::{Driver, connections::record_end};
use crate::{transport::ConnectionEvent, watching::GOODBYE};

impl Driver {
    /// The end: resolvers stop, connections drain until their last stream ends, or `grace` is over.
    /// A balancer hears of the last calls when they are over, and has [`GOODBYE`] to take it.
    pub(super) async fn close(
        mut self,
        done: Option<(Duration, oneshot::Sender<()>)>,
        mut events: mpsc::Receiver<ConnectionEvent>,
    ) {
        self.resolver_task.abort_all();
        self.inbox.vacate();
        self.watches.stop_listening();
        let status = Status::unavailable("the channel was shut down");
        self.shared.close(&status);
        self.shared.board.close();
        self.options.recorder.record(&Event::ChannelState(ConnectivityState::Shutdown));
        let links = std::mem::take(&mut self.links).into_values();
        links.filter(|link| link.transport.is_none()).for_each(|link| link.task.abort());
        let Some((grace, tell)) = done else {
            // The connections end by themselves when their last stream does.
            self.connections.detach_all();
            drop(events);
            self.last_words();
            return self.watches.all_over().await;
        };
        // Ends with the last connection; unlike a point in time, `sleep` takes any length.
        let mut grace = std::pin::pin!(sleep(grace));
        let mut talks = true;
        while !self.connections.is_empty() {
            // Only the balancer's connection is left: all calls are over.
            if talks && self.connections.len() <= self.watches.len() {
                talks = false;
                self.last_words();
                // Also when the grace is over by now: without this the next turn would cut it off.
                let goodbye = grace.deadline().max(Instant::now() + GOODBYE);
                grace.as_mut().reset(goodbye);
            }
            let cut = *self.cut.borrow();
            tokio::select! {
                _ = self.connections.join_next() => {}
                Some(event) = events.recv() => record_end(&self.options, &self.addresses, &event),
                () = self.watches.all_over(), if self.watches.len() > 0 => {}
                () = &mut grace, if !cut => {
                    if std::mem::take(&mut talks) && self.watches.len() > 0 {
                        self.last_words();
                        // Ends with the connections, or when a balancer took too long.
                        grace.set(sleep(GOODBYE));
                    } else {
                        self.cut.send_replace(true);
                    }
                }
            }
        }
        while let Ok(event) = events.try_recv() {
            record_end(&self.options, &self.addresses, &event);
        }
        tell.send(()).ok();
    }

    /// Says to balancers what is left to say, and ends their streams.
    fn last_words(&mut self) {
        self.engine.shutdown(self.shared.now_ns());
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::WatchSend { id, message } => self.watches.send(id, message),
                Output::Unwatch { id } => self.watches.stop(id),
                _ => {}
            }
        }
    }
}
