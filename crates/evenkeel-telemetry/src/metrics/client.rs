//! What is counted of the channels to one target: their calls and attempts (gRFC A66, A96).
//! Channels with the same target share it, as two lines with the same labels would contradict each
//! other.

use std::sync::Arc;

use evenkeel::{AttemptEnd, CallEnd, CallMeter};

use super::{
    channel::ChannelNumbers,
    family::{Families, Labels},
    instruments as names,
    methods::{Ended, Method, Methods, Room, ns},
};

/// The numbers of one target.
pub(crate) struct Client {
    pub(super) target: Arc<str>,
    methods: Methods,
    pub(super) channels: ChannelNumbers,
}

impl Client {
    pub(super) fn new(target: &str, room: Arc<Room>) -> Self {
        let methods = Methods::new(room);
        Self { target: target.into(), methods, channels: ChannelNumbers::default() }
    }

    pub(super) fn collect(&self, out: &mut Families) {
        for method in self.methods.all().filter(|method| method.started() > 0) {
            self.collect_method(method, out);
        }
        self.channels.collect(&self.target, out);
    }

    fn collect_method(&self, method: &Method, out: &mut Families) {
        let labels: Labels<'_> = &[("grpc.method", &method.name), ("grpc.target", &self.target)];
        out.count(&names::ATTEMPT_STARTED, labels, method.started());
        for (status, Ended { duration, sent, received }) in method.ended() {
            let labels = &[labels[0], labels[1], ("grpc.status", status)];
            out.distribution(&names::ATTEMPT_DURATION, labels, duration);
            out.distribution(&names::ATTEMPT_SENT, labels, sent);
            out.distribution(&names::ATTEMPT_RECEIVED, labels, received);
        }
        for (status, calls) in method.calls() {
            let labels = &[labels[0], labels[1], ("grpc.status", status)];
            out.distribution(&names::CALL_DURATION, labels, calls);
        }
        if let Some(retries) = method.retries.get() {
            out.distribution(&names::CALL_RETRIES, labels, retries.by_policy.read(0));
            let transparent = retries.transparent.read(0);
            out.distribution(&names::CALL_TRANSPARENT_RETRIES, labels, transparent);
            out.distribution(&names::CALL_RETRY_DELAY, labels, retries.delay.read(0));
        }
    }
}

impl CallMeter for Client {
    fn call_started(&self, path: &str) -> u32 {
        // The paths of a client are its program's, not a stranger's.
        self.methods.number(path)
    }

    fn attempt_started(&self, method: u32) {
        self.methods.get(method).start();
    }

    fn attempt_ended(&self, method: u32, end: &AttemptEnd) {
        let attempts = self.methods.attempts(method, end.code as u8);
        attempts.record(end.took, end.sent_bytes, end.received_bytes);
    }

    fn ended(&self, method: u32, end: &AttemptEnd) {
        // One row for both, the attempt and its call.
        let ends = self.methods.ends(method, end.code as u8);
        ends.record(end.took, end.sent_bytes, end.received_bytes);
    }

    fn call_ended(&self, method: u32, end: &CallEnd) {
        self.methods.calls(method, end.code as u8).record([ns(end.took)]);
        if end.retries > 0 || end.transparent_retries > 0 {
            let retries = self.methods.get(method).retries();
            if end.retries > 0 {
                retries.by_policy.record([end.retries.into()]);
                retries.delay.record([ns(end.retry_delay)]);
            }
            if end.transparent_retries > 0 {
                retries.transparent.record([end.transparent_retries.into()]);
            }
        }
    }
}
