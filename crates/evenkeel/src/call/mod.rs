//! One call, on its caller's task: read the body, pick, take a slot, send, wait for the response.
//! There is no hop to another task and no lock but h2's own; a call that has to wait is woken by
//! the next snapshot, a free slot or its deadline.

mod ending;
mod failure;
mod feedback;
mod head;
mod metered;
mod outgoing;
mod pinned;
mod replay;
mod request;
mod response;
mod retry;
mod waiting;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ending::CallEnding;
use evenkeel_core::{
    CallOutcome, ConnectivityState, Dropped, Pick, PickArgs, PickResult, observe::Event,
};
use failure::Lost;
use feedback::{Feedback, Why, run_layers};
use h2::client::ResponseFuture;
use http::Response;
use outgoing::Outgoing;
use pin_project_lite::pin_project;
pub(crate) use pinned::Pinned;
pub(crate) use replay::ReplayAccount;
use request::Call;
pub use response::ResponseBody;
use response::{Held, grpc_status};
pub(crate) use retry::CallConfig;
use retry::{Pushback, Retries};
use tokio::time::{Instant, Sleep, sleep_until};
use waiting::{WaitFor, Waiting, Woken};

use crate::{
    Backend, Channel,
    channel::{Shared, Snapshot},
    edge::{self, RequestBody, Status},
    layers::AttemptKind,
    transport::StreamSlot,
    view::InBackoff,
};

/// HTTP/2 has 2^30 stream ids per connection; one that nears the end is drained and replaced.
const STREAM_ID_RETIRE: u32 = (1 << 31) - (1 << 16);

/// How often a call is sent again because GOAWAY said that it was not processed. gRFC A6 has 1; but
/// where connections live for a moment, one call can meet the end of two in a row (ADR 0020).
const UNPROCESSED_RETRIES_MAX: u32 = 5;

/// One attempt that was sent.
struct Attempt {
    response: ResponseFuture,
    stream_id: u32,
    slot: StreamSlot,
    feedback: Feedback,
}

enum Stage {
    /// Not polled yet, or refused before it began.
    New(Option<Status>),
    /// To be picked and sent; with the time if it was just read.
    Pick(Option<Instant>),
    /// Waiting to pick again.
    Wait,
    /// Sent.
    Sent(Attempt),
    /// Waiting to be sent again, by the retry policy.
    Backoff {
        wait: Pin<Box<Sleep>>,
        _counted: InBackoff,
    },
    Done,
}

pin_project! {
    /// A call under way. Dropping it cancels the call.
    #[must_use = "a call does nothing until it is polled"]
    pub struct CallFuture {
        channel: Channel,
        stage: Stage,
        call: Option<Call>,
        body: Option<Outgoing>,
        unprocessed: u32,
        retries: Retries,
        kind: AttemptKind,
        ending: CallEnding,
        // A slot that was handed to this call when it waited.
        offered: Option<StreamSlot>,
        #[pin]
        deadline: Option<Sleep>,
        // Boxed, as the future is moved about and most calls do not wait.
        waiting: Option<Pin<Box<Waiting>>>,
    }
}

impl CallFuture {
    pub(crate) fn new(channel: Channel, request: http::Request<RequestBody>) -> Self {
        let (mut parts, body) = request.into_parts();
        let mut ending = CallEnding::default();
        let defaults = &channel.shared().defaults;
        let call = ending.begin(&defaults.call_layers, &mut parts);
        let (call, refused) = match call.and_then(|()| Call::new(parts, defaults)) {
            Ok(call) => (Some(call), None),
            Err(status) => (None, Some(status)),
        };
        Self {
            channel,
            stage: Stage::New(refused),
            call,
            body: Some(Outgoing::Unread(body)),
            unprocessed: 0,
            retries: Retries::default(),
            kind: AttemptKind::First,
            ending,
            offered: None,
            deadline: None,
            waiting: None,
        }
    }

    fn poll_steps(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResponseBody>, Status>> {
        loop {
            let mut this = self.as_mut().project();
            match this.stage {
                Stage::New(refused) => {
                    if let Some(status) = refused.take() {
                        return Poll::Ready(Err(status));
                    }
                    let now = Instant::now();
                    if let Some(call) = this.call {
                        call.begin(now);
                        let meter = this.channel.shared().defaults.meter.as_ref();
                        this.ending.meter(meter, call.path(), now);
                        this.deadline.set(call.deadline().map(sleep_until));
                    }
                    if let Some(body) = this.body {
                        body.read(cx, this.channel.shared())?;
                    }
                    *this.stage = Stage::Pick(Some(now));
                }
                Stage::Pick(now) => {
                    let now = now.take().unwrap_or_else(Instant::now);
                    self.as_mut().pick(now)?;
                }
                Stage::Wait => {
                    let Some(waiting) = this.waiting else { continue };
                    if let Woken::Slot(slot) = ready!(waiting.as_mut().poll(cx)) {
                        *this.offered = Some(slot);
                    }
                    // Not to be sent any more when the deadline passed at the same time.
                    if this.deadline.as_pin_mut().is_some_and(|d| d.poll(cx).is_ready()) {
                        return Poll::Ready(Err(self.deadline_exceeded()));
                    }
                    *this.stage = Stage::Pick(None);
                }
                Stage::Sent(attempt) => {
                    let result = ready!(Pin::new(&mut attempt.response).poll(cx));
                    let Stage::Sent(attempt) = std::mem::replace(this.stage, Stage::Done) else {
                        continue;
                    };
                    match result {
                        Ok(response) => {
                            if let Some(response) = self.as_mut().responded(attempt, response)? {
                                return Poll::Ready(Ok(response));
                            }
                        }
                        Err(error) => self.as_mut().lost(attempt, &error)?,
                    }
                }
                Stage::Backoff { wait, .. } => {
                    ready!(wait.as_mut().poll(cx));
                    this.ending.attempt_again();
                    *this.stage = Stage::Pick(None);
                }
                Stage::Done => return Poll::Ready(Err(Status::internal("polled after its end"))),
            }
        }
    }

    /// Picks and sends, or waits. It listens before it looks once more, so that nothing that
    /// happens in between is missed: the first time round the call comes back here, the second
    /// time it waits.
    fn pick(self: Pin<&mut Self>, now: Instant) -> Result<(), Status> {
        let mut this = self.project();
        let (Some(call), Some(body)) = (this.call.as_mut(), this.body.as_mut()) else {
            return Err(Status::internal("a call without its request"));
        };
        let shared = this.channel.shared();
        let snapshot = shared.snapshot.load();
        if let Some(config) = snapshot.config.method(call.path())
            && call.configure(config)
        {
            this.deadline.set(call.deadline().map(sleep_until));
        }
        this.retries.throttle = snapshot.config.throttle().cloned();
        let (retries, kind) = (this.retries.count, *this.kind);
        let waited = |waiting: &Pin<Box<Waiting>>| now.saturating_duration_since(waiting.since());
        let queued = this.waiting.as_ref().map_or(Duration::ZERO, waited);
        let (offered, ending) = (&mut *this.offered, &mut *this.ending);
        let sending = Sending { call, body, offered, ending, retries, kind, now, queued };
        let wait_for = match pick(shared, &snapshot, sending)? {
            Picked::Sent(attempt) => {
                *this.stage = Stage::Sent(attempt);
                // In this order, so that a slot that is left over goes to a call that waits.
                *this.waiting = None;
                *this.offered = None;
                return Ok(());
            }
            Picked::Wait(wait_for) => wait_for,
        };
        if snapshot.state == ConnectivityState::Idle {
            this.channel.connect();
        }
        drop(snapshot);
        if this.waiting.is_none() {
            *this.waiting = Some(Box::pin(Waiting::begin(shared, now)?));
        }
        if let Some(waiting) = this.waiting
            && waiting.as_mut().arm(wait_for, this.offered.take())
        {
            *this.stage = Stage::Wait;
        }
        Ok(())
    }

    /// The response began: the call is committed to this attempt, unless all there is is an error
    /// that the retry policy repeats. Then there is no response yet.
    fn responded(
        mut self: Pin<&mut Self>,
        attempt: Attempt,
        response: Response<h2::RecvStream>,
    ) -> Result<Option<Response<ResponseBody>>, Status> {
        let Attempt { slot, mut feedback, .. } = attempt;
        let (mut parts, stream) = response.into_parts();
        let status = grpc_status(&parts.headers);
        if status.is_none()
            && let Some(error) = head::refuse(&parts, &slot.transport.address)
        {
            feedback.finish(CallOutcome::Finished(None));
            let pushback = Pushback::of(&parts.headers);
            let again = self.again(error.code() as u8, pushback, &slot);
            return if again { Ok(None) } else { Err(error) };
        }
        // Without a status in its head a response that ends at once is one without trailers, which
        // its body finds out: to ask h2 takes its lock.
        let ended = status.is_some() && stream.is_end_stream();
        if ended {
            feedback.finish(CallOutcome::Finished(status));
            if status == Some(0) {
                slot.succeed();
            } else if let Some(code) = status
                && self.as_mut().again(code, Pushback::of(&parts.headers), &slot)
            {
                return Ok(None);
            }
        }
        let this = self.project();
        let mut ending = std::mem::take(this.ending);
        if ended {
            ending.finish(edge::code_of(status));
        }
        if let Some(call) = this.call.as_mut() {
            let mut extensions = std::mem::take(&mut call.extensions);
            extensions.clear();
            extensions.insert(Backend { address: slot.transport.address.clone() });
            parts.extensions = extensions;
        }
        let held = Held {
            stream,
            slot,
            feedback,
            pump: this.body.take().and_then(Outgoing::commit),
            ending,
            throttle: this.retries.throttle.take(),
            timeout: this.call.as_ref().and_then(|c| c.timeout),
            deadline: this.call.as_ref().and_then(Call::deadline),
        };
        Ok(Some(Response::from_parts(parts, ResponseBody::new(held, status.is_some(), ended))))
    }

    /// Whether the retry policy repeats an attempt that ended with `code`. If so, the call waits.
    fn again(self: Pin<&mut Self>, code: u8, pushback: Pushback, slot: &StreamSlot) -> bool {
        let this = self.project();
        let shared = this.channel.shared();
        let (Some(call), Some(body)) = (this.call.as_ref(), this.body.as_ref()) else {
            return false;
        };
        let config = &shared.snapshot.load().config;
        let random = fastrand::u64(..);
        let wait = this.retries.next(config, call.path(), code, pushback, random);
        let (address, attempt) = (&slot.transport.address, this.retries.count);
        if std::mem::take(&mut this.retries.is_throttled) {
            shared.recorder.record(&Event::RetryThrottled { address });
        }
        let Some(wait) = wait.filter(|_| body.can_repeat()) else { return false };
        shared.recorder.record(&Event::Retry { address, attempt });
        *this.kind = AttemptKind::Retry;
        this.ending.attempt_failed(edge::code_of(Some(code)));
        let wait = Box::pin(sleep_until(Instant::now() + wait));
        *this.stage = Stage::Backoff { wait, _counted: InBackoff::begin(shared) };
        true
    }

    /// The attempt broke before its response: again if that is safe (gRFC A6), else the error.
    fn lost(
        mut self: Pin<&mut Self>,
        mut attempt: Attempt,
        error: &h2::Error,
    ) -> Result<(), Status> {
        let this = self.as_mut().project();
        let transport = &attempt.slot.transport;
        if let Some(Outgoing::Pumped(pump)) = &this.body
            && let Some(status) = pump.error()
        {
            attempt.feedback.finish(CallOutcome::Cancelled);
            return Err(status.clone());
        }
        let lost = failure::classify(error, transport, attempt.stream_id);
        let is_safe = match lost {
            Lost::NeverWritten => true,
            Lost::Refused => *this.unprocessed == 0,
            Lost::Unprocessed => *this.unprocessed < UNPROCESSED_RETRIES_MAX,
            Lost::Failed(_) => false,
        };
        if is_safe && this.body.as_ref().is_some_and(Outgoing::can_repeat) {
            attempt.feedback.finish(CallOutcome::NotSent);
            this.ending.attempt_lost();
            let event = Event::TransparentRetry { address: &transport.address };
            this.channel.shared().recorder.record(&event);
            let is_counted = !matches!(lost, Lost::NeverWritten);
            *this.unprocessed += u32::from(is_counted);
            this.channel.shared().counts.transparent_retry(is_counted);
            *this.kind = AttemptKind::TransparentRetry;
            *this.stage = Stage::Pick(None);
            return Ok(());
        }
        let (status, outcome) = match lost {
            Lost::Failed(status) => (status, CallOutcome::Failed),
            Lost::NeverWritten | Lost::Refused | Lost::Unprocessed => {
                (failure::status(error, transport), CallOutcome::NotSent)
            }
        };
        attempt.feedback.finish(outcome);
        let again = self.again(status.code() as u8, Pushback::None, &attempt.slot);
        if again { Ok(()) } else { Err(status) }
    }

    fn deadline_exceeded(&self) -> Status {
        let shared = self.channel.shared();
        let waited_for = match (&self.stage, &self.waiting) {
            (Stage::Sent(attempt), _) => failure::waiting_for(&attempt.slot.transport.address),
            (Stage::Backoff { .. }, _) => "while waiting to try again".to_owned(),
            (_, Some(waiting)) => waiting.to_string(),
            _ => format!("while waiting for a connection to {}", shared.target),
        };
        let timeout = self.call.as_ref().and_then(|c| c.timeout).unwrap_or_default();
        failure::deadline_exceeded(timeout, &waited_for)
    }
}

impl Future for CallFuture {
    type Output = Result<Response<ResponseBody>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = self.as_mut().poll_steps(cx) {
            let this = self.project();
            if result.is_err() && !matches!(this.stage, Stage::Done) {
                this.channel.shared().counts.failed_unsent();
            }
            *this.stage = Stage::Done;
            *this.waiting = None;
            *this.offered = None;
            if let Err(status) = &result {
                this.ending.finish(status.code());
            }
            return Poll::Ready(result);
        }
        if let Some(deadline) = self.as_mut().project().deadline.as_pin_mut() {
            ready!(deadline.poll(cx));
            let status = self.deadline_exceeded();
            let this = self.project();
            match std::mem::replace(this.stage, Stage::Done) {
                Stage::Sent(mut attempt) => attempt.feedback.finish(CallOutcome::Failed),
                _ => this.channel.shared().counts.failed_unsent(),
            }
            this.ending.finish(status.code());
            return Poll::Ready(Err(status));
        }
        Poll::Pending
    }
}

enum Picked {
    Sent(Attempt),
    Wait(WaitFor),
}

/// What is to be sent, and with what.
struct Sending<'a> {
    call: &'a mut Call,
    body: &'a mut Outgoing,
    offered: &'a mut Option<StreamSlot>,
    ending: &'a mut CallEnding,
    retries: u32,
    kind: AttemptKind,
    now: Instant,
    /// How long it waited for this attempt.
    queued: Duration,
}

fn pick(shared: &Shared, snapshot: &Snapshot, sending: Sending<'_>) -> Result<Picked, Status> {
    let Sending { call, body, offered, ending, retries, kind, now, queued } = sending;
    let mut wait_for = WaitFor::Picker(None);
    // Without a free slot the next pick may have one; after as many as there are connections, all
    // are taken.
    for _ in 0..snapshot.transports.len().max(1) {
        call.restore();
        let mut args = PickArgs::new(call.path(), &call.headers, shared.ns(now), fastrand::u64(..));
        args.routing_key = call.routing_key.as_deref();
        let pick = match snapshot.picker.pick(&args) {
            PickResult::Complete(pick) => pick,
            PickResult::Queue => return Ok(Picked::Wait(WaitFor::Picker(None))),
            PickResult::Fail(status) if call.wait_for_ready && !shared.is_closed() => {
                return Ok(Picked::Wait(WaitFor::Picker(Some(status))));
            }
            PickResult::Fail(status) => {
                return Err(edge::status_of_target(&shared.target, &status));
            }
            PickResult::Drop(Dropped { status, category }) => {
                shared.recorder.record(&Event::Dropped { category: &category });
                return Err(edge::status_of_target(&shared.target, &status));
            }
        };
        let Pick { subchannel, metadata, on_complete } = pick;
        let mut feedback = Feedback::new(on_complete);
        let Some(transport) = snapshot.transport(subchannel) else {
            feedback.finish(CallOutcome::Void);
            continue; // it just ended; the next snapshot is without it
        };
        let own = offered.take_if(|slot| Arc::ptr_eq(&slot.transport, transport));
        let Some(slot) = own.or_else(|| StreamSlot::take(transport)) else {
            feedback.finish(CallOutcome::Void);
            wait_for = WaitFor::Slot;
            continue;
        };
        let mut request = call.attempt(metadata, retries, now);
        feedback.start();
        let (all, own) = (&shared.defaults.attempt_layers, ending.attempt_layers());
        if !(all.is_empty() && own.is_empty()) {
            let (layers, backend) = (all.iter().chain(own), &transport.address);
            let why = Why { subchannel, retries, kind, queued };
            run_layers(layers, snapshot, call, backend, &mut request, &mut feedback, why)?;
        }
        transport.names.leave(request.headers_mut());
        let (response, stream) = match transport.sender().send_request(request, body.is_empty()) {
            Ok(sent) => sent,
            Err(error) if error.is_io() || error.is_go_away() || error.reason().is_some() => {
                // It just ended, though nobody saw it yet.
                transport.seen.retire();
                feedback.finish(CallOutcome::NotSent);
                continue;
            }
            Err(error) => {
                feedback.finish(CallOutcome::NotSent);
                return Err(Status::internal(format!("the request can't be sent: {error}")));
            }
        };
        let stream_id = response.stream_id().as_u32();
        if stream_id > STREAM_ID_RETIRE {
            transport.seen.retire();
        }
        ending.sends(body);
        body.send(stream)?;
        return Ok(Picked::Sent(Attempt { response, stream_id, slot, feedback }));
    }
    Ok(Picked::Wait(wait_for))
}
