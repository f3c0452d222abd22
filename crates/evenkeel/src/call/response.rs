//! The response's body: what the server sends, the call's deadline, and what has to happen once
//! when it ends.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use evenkeel_core::CallOutcome;
use h2::RecvStream;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{ending::CallEnding, failure, feedback::Feedback, outgoing::Pump, retry::Throttle};
use crate::{
    edge::{self, Code, Status},
    transport::StreamSlot,
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Bytes that a reader may take before h2 hears of it. h2 tells the server only of half a window,
/// and each word to h2 takes its lock.
const UNRELEASED_BYTES_MAX: usize = 16 * 1024;

/// What a call holds on to until its last byte. The stream is part of it: h2 takes a stream for
/// open as long as somebody has it, and a caller may keep a response that it has read to its end.
pub(crate) struct Held {
    pub(crate) stream: RecvStream,
    pub(crate) slot: StreamSlot,
    pub(crate) feedback: Feedback,
    pub(crate) ending: CallEnding,
    pub(crate) pump: Option<Pump>,
    pub(crate) throttle: Option<Arc<Throttle>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
}

/// The body of a response. Dropping it before its end cancels the call.
pub struct ResponseBody {
    held: Option<Held>,
    /// Made only when the body has to wait: most responses arrive in one piece.
    timer: Option<Pin<Box<Sleep>>>,
    has_status: bool,
    /// The head was all there is.
    ended: bool,
    /// Data frames so far; stops counting at 2.
    frames: u8,
    data_ended: bool,
    /// Bytes handed to the reader that h2 was not told of.
    unreleased: usize,
}

impl ResponseBody {
    /// The body of a response whose head has a `grpc-status` already, or not.
    pub(crate) fn new(held: Held, has_status: bool, ended: bool) -> Self {
        let (held, timer) = (Some(held), None);
        Self { held, timer, has_status, ended, frames: 0, data_ended: false, unreleased: 0 }
    }

    fn finish(&mut self, outcome: CallOutcome, code: Code) {
        if let Some(mut held) = self.held.take() {
            held.feedback.finish(outcome);
            held.ending.finish(code);
            if outcome == CallOutcome::Finished(Some(0)) {
                held.slot.succeed();
                if let Some(throttle) = held.throttle {
                    throttle.success();
                }
            }
        }
    }

    fn broken(&mut self, error: &h2::Error) -> Status {
        let status = match &self.held {
            Some(Held { pump: Some(pump), .. }) if pump.error().is_some() => {
                pump.error().cloned().unwrap_or_else(|| Status::internal("request body failed"))
            }
            Some(held) => failure::status(error, &held.slot.transport),
            None => Status::internal(format!("the response was read after its end: {error}")),
        };
        self.finish(CallOutcome::Failed, status.code());
        status
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(Held { stream, ending, .. }) = &mut self.held else { return Poll::Ready(None) };
        // Behind the first message of most calls there is nothing but their trailers.
        if self.frames == 1
            && !self.data_ended
            && let Poll::Ready(trailers) = stream.poll_trailers(cx)
        {
            return Poll::Ready(self.trailers(trailers));
        }
        if !self.data_ended {
            match stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.frames = self.frames.saturating_add(1).min(2);
                    self.unreleased += data.len();
                    ending.received(&data);
                    self.release(UNRELEASED_BYTES_MAX);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(self.broken(&error))));
                }
                Poll::Ready(None) => self.data_ended = true,
                Poll::Pending => {
                    self.release(1);
                    return Poll::Pending;
                }
            }
        }
        let Some(Held { stream, .. }) = &mut self.held else { return Poll::Ready(None) };
        let trailers = ready!(stream.poll_trailers(cx));
        Poll::Ready(self.trailers(trailers))
    }

    /// Tells h2 what was handed on, from so many bytes: that is what frees the window. So a slow
    /// reader slows the server, and does not fill our memory. A stream that ends needs no telling.
    fn release(&mut self, min: usize) {
        if self.unreleased >= min
            && let Some(Held { stream, .. }) = &mut self.held
        {
            let bytes = std::mem::take(&mut self.unreleased);
            // Fails only on a stream that is gone, whose error the next poll brings.
            let _ = stream.flow_control().release_capacity(bytes);
        }
    }

    /// The end, with or without trailers.
    fn trailers(
        &mut self,
        trailers: Result<Option<HeaderMap>, h2::Error>,
    ) -> Option<Result<Frame<Bytes>, Status>> {
        self.data_ended = true;
        match trailers {
            Ok(trailers) => {
                let status = trailers.as_ref().and_then(grpc_status);
                if status.is_none() && !self.has_status {
                    return Some(Err(self.without_status()));
                }
                self.finish(CallOutcome::Finished(status), edge::code_of(status));
                trailers.map(|t| Ok(Frame::trailers(t)))
            }
            Err(error) => Some(Err(self.broken(&error))),
        }
    }

    /// A stream that ends cleanly and says nothing of success is what a proxy leaves of a call.
    fn without_status(&mut self) -> Status {
        let address = self.held.as_ref().map(|h| h.slot.transport.address.to_string());
        self.finish(CallOutcome::Finished(None), Code::Unknown);
        let address = address.unwrap_or_default();
        Status::unknown(format!("{address}: expected trailers with grpc-status, got none"))
    }

    /// A stream that always has something to say must not outlive its deadline either.
    fn is_late(&mut self) -> bool {
        let deadline = self.held.as_ref().and_then(|held| held.deadline);
        self.frames > 0 && deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let Some(held) = &self.held else { return Poll::Pending };
        let (Some(deadline), Some(timeout)) = (held.deadline, held.timeout) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(timer.as_mut().poll(cx));
        let waited_for = failure::waiting_for(&held.slot.transport.address);
        self.finish(CallOutcome::Failed, Code::DeadlineExceeded);
        Poll::Ready(failure::deadline_exceeded(timeout, &waited_for))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if (this.data_ended || !this.is_late())
            && let Poll::Ready(frame) = this.poll_inner(cx)
        {
            return Poll::Ready(frame);
        }
        this.poll_deadline(cx).map(|status| Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        // Not what h2 says: to ask it takes its lock, and the next poll tells as well.
        self.ended || self.held.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody").field("ended", &self.held.is_none()).finish()
    }
}

/// The `grpc-status` in headers or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
