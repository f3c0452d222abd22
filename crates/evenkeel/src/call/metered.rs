//! What a call's meter is told, gathered while the call is under way. One value that goes with the
//! call from its first poll to its last byte, so that every way to end passes it; without a meter
//! it is not there.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use evenkeel_proto::framing::MessageBytes;
use tokio::time::Instant;

use super::outgoing::PumpState;
use crate::{
    edge::Code,
    meter::{AttemptEnd, CallEnd, CallMeter},
};

/// A call that is counted.
pub(crate) struct Metered {
    meter: Arc<dyn CallMeter>,
    method: u32,
    began: Instant,
    phase: Phase,
    retries: u32,
    transparent_retries: u32,
    retry_delay: Duration,
    sent: Sent,
    received: MessageBytes,
}

enum Phase {
    /// An attempt is under way since then.
    Attempt(Instant),
    /// The retry policy waits since then.
    Between(Instant),
}

/// What an attempt sends.
pub(crate) enum Sent {
    /// So many bytes, all at once.
    Whole(u64),
    /// What the pump says.
    Pumped(Arc<PumpState>),
}

impl Metered {
    /// The call and its first attempt begin.
    pub(crate) fn begin(meter: &Arc<dyn CallMeter>, path: &str, now: Instant) -> Self {
        let method = meter.call_started(path);
        meter.attempt_started(method);
        Self {
            meter: meter.clone(),
            method,
            began: now,
            phase: Phase::Attempt(now),
            retries: 0,
            transparent_retries: 0,
            retry_delay: Duration::ZERO,
            sent: Sent::Whole(0),
            received: MessageBytes::default(),
        }
    }

    /// The attempt is about to be sent.
    pub(crate) fn sends(&mut self, sent: Sent) {
        if let Sent::Pumped(pump) = &sent {
            pump.sent.store(0, Ordering::Relaxed);
        }
        self.sent = sent;
    }

    pub(crate) fn received(&mut self, data: &[u8]) {
        self.received.add(data);
    }

    /// The server never processed the attempt, and another begins.
    pub(crate) fn lost(&mut self) {
        self.transparent_retries += 1;
        let now = Instant::now();
        self.end_attempt(Code::Unavailable, now);
        self.begin_attempt(now);
    }

    /// The attempt failed, and the retry policy waits before the next.
    pub(crate) fn failed(&mut self, code: Code) {
        self.retries += 1;
        let now = Instant::now();
        self.end_attempt(code, now);
        self.phase = Phase::Between(now);
    }

    /// The wait is over.
    pub(crate) fn again(&mut self) {
        let now = Instant::now();
        self.end_wait(now);
        self.begin_attempt(now);
    }

    /// The call is over.
    pub(crate) fn end(mut self, code: Code) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        if self.retries == 0 && self.transparent_retries == 0 {
            return self.meter.ended(self.method, &self.attempt_end(code, took));
        }
        self.end_attempt(code, now);
        self.end_wait(now);
        let Self { retries, transparent_retries, retry_delay, .. } = self;
        let end = CallEnd { code, took, retries, transparent_retries, retry_delay };
        self.meter.call_ended(self.method, &end);
    }

    fn begin_attempt(&mut self, now: Instant) {
        self.sent = Sent::Whole(0);
        self.received = MessageBytes::default();
        self.phase = Phase::Attempt(now);
        self.meter.attempt_started(self.method);
    }

    fn end_attempt(&mut self, code: Code, now: Instant) {
        if let Phase::Attempt(since) = self.phase {
            let took = now.saturating_duration_since(since);
            self.meter.attempt_ended(self.method, &self.attempt_end(code, took));
        }
    }

    fn attempt_end(&self, code: Code, took: Duration) -> AttemptEnd {
        let sent_bytes = match &self.sent {
            Sent::Whole(bytes) => *bytes,
            Sent::Pumped(pump) => pump.sent.load(Ordering::Relaxed),
        };
        AttemptEnd { code, took, sent_bytes, received_bytes: self.received.total() }
    }

    fn end_wait(&mut self, now: Instant) {
        if let Phase::Between(since) = self.phase {
            self.retry_delay += now.saturating_duration_since(since);
        }
    }
}
