//! The request body on its way out. A body that is whole at its first poll (every unary call) is
//! sent from the caller's task; any other gets a pump task of its own. What was sent is kept until
//! the response begins, within limits, so that a lost attempt can be repeated.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use evenkeel_proto::framing::MessageBytes;
use futures_util::task::AtomicWaker;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::AbortHandle,
};

use super::{metered::Sent, replay::Claim};
use crate::{
    channel::Shared,
    edge::{RequestBody, Status},
};

/// Streams that may wait for a pump: one is in use, the next replaces it.
const STREAMS_MAX: usize = 2;

/// Messages that are kept, and their bytes on the channel's account.
struct Kept {
    claim: Claim,
    /// The first message apart from the rest: most calls have no other, and so need no list.
    first: Option<Bytes>,
    rest: Vec<Bytes>,
    /// Everything so far is here. Once false, the call is committed to its attempt.
    whole: bool,
}

impl Kept {
    fn new(claim: Claim) -> Self {
        Self { claim, first: None, rest: Vec::new(), whole: true }
    }

    fn frames(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.rest)
    }

    /// Keeps one more frame if the limits allow it. False when they don't, now or earlier: then
    /// nothing is complete any more, and the caller lets go of the rest.
    fn keep(&mut self, frame: &Bytes) -> bool {
        if !self.whole {
            return false;
        }
        self.whole = self.claim.grow(frame.len());
        if self.whole {
            match self.first {
                None => self.first = Some(frame.clone()),
                Some(_) => self.rest.push(frame.clone()),
            }
        }
        self.whole
    }

    /// Lets go of everything, and returns it for those who have yet to send it.
    fn release(&mut self) -> impl Iterator<Item = Bytes> + use<> {
        self.whole = false;
        self.claim.release();
        self.first.take().into_iter().chain(mem::take(&mut self.rest))
    }
}

/// What the call's future and its pump tell each other.
pub(crate) struct PumpState {
    /// Set by the call when the response began: nothing needs to be kept any more.
    committed: AtomicBool,
    /// Whom to wake then.
    pump: AtomicWaker,
    /// Set by the pump when it no longer has everything that it sent.
    gave_up: AtomicBool,
    /// Why the pump ended its stream: the request body's own error, say.
    error: OnceLock<Status>,
    /// Bytes of messages that went out on the present stream, where they are counted.
    pub(super) sent: AtomicU64,
}

impl PumpState {
    /// Ready when the response began while something is still kept.
    fn poll_committed(&self, cx: &mut Context<'_>, keeps: bool) -> Poll<()> {
        let is_committed = || keeps && self.committed.load(Ordering::Acquire);
        if is_committed() {
            return Poll::Ready(());
        }
        if keeps {
            self.pump.register(cx.waker());
            if is_committed() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// A pump task; it ends with this handle.
pub(crate) struct Pump {
    state: Arc<PumpState>,
    streams: mpsc::Sender<SendStream<Bytes>>,
    task: AbortHandle,
}

impl Pump {
    /// The response began.
    pub(crate) fn commit(&self) {
        self.state.committed.store(true, Ordering::Release);
        self.state.pump.wake();
    }

    /// Why the pump reset the stream: the request body's own error, say.
    pub(crate) fn error(&self) -> Option<&Status> {
        self.state.error.get()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A call's request body.
pub(crate) enum Outgoing {
    /// Not looked at yet.
    Unread(RequestBody),
    /// Read to its end at the first poll.
    Whole(Whole),
    /// Still being made by the caller.
    Pumped(Pump),
}

/// See [`Outgoing::Whole`].
pub(crate) struct Whole {
    kept: Kept,
    /// Frames that were read and could not be kept; gone after the first attempt.
    once: Vec<Bytes>,
}

impl Outgoing {
    /// Reads what is there. A body that does not end at once goes to a pump.
    pub(crate) fn read(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Arc<Shared>,
    ) -> Result<(), Status> {
        let Self::Unread(body) = self else { return Ok(()) };
        let (mut kept, mut once) = (Kept::new(shared.replay.claim()), Vec::new());
        let ended = loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => break false,
                Poll::Ready(None) => break true,
                Poll::Ready(Some(Err(status))) => return Err(status),
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if !kept.keep(&data) {
                        // One more poll tells whether this was the last message. A longer body
                        // must not be read ahead of the server's window.
                        let second = !once.is_empty();
                        once.extend(kept.release());
                        once.push(data);
                        if second {
                            break false;
                        }
                    }
                }
            }
        };
        let body = mem::replace(body, RequestBody::empty());
        *self = if ended {
            Self::Whole(Whole { kept, once })
        } else {
            Self::Pumped(spawn(body, kept, once, shared))
        };
        Ok(())
    }

    /// Whether the body could be sent once more.
    pub(crate) fn can_repeat(&self) -> bool {
        match self {
            Self::Unread(_) => true,
            Self::Whole(whole) => whole.kept.whole,
            Self::Pumped(pump) => !pump.state.gave_up.load(Ordering::Acquire),
        }
    }

    /// True when there is nothing to send: HEADERS end the stream.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Whole(w) if w.kept.first.is_none() && w.once.is_empty())
    }

    /// What the next attempt sends, for who counts it.
    pub(crate) fn to_send(&self) -> Sent {
        match self {
            Self::Unread(_) => Sent::Whole(0),
            Self::Whole(Whole { kept, once }) => {
                let mut bytes = MessageBytes::default();
                kept.frames().chain(once).for_each(|frame| {
                    bytes.add(frame);
                });
                Sent::Whole(bytes.total())
            }
            Self::Pumped(pump) => Sent::Pumped(pump.state.clone()),
        }
    }

    /// Sends the body, from its start, on an attempt's stream.
    ///
    /// # Errors
    ///
    /// The pump did not come round to the streams before this one, so nobody would send.
    pub(crate) fn send(&mut self, mut stream: SendStream<Bytes>) -> Result<(), Status> {
        match self {
            Self::Unread(_) => {}
            Self::Pumped(pump) => {
                if let Err(TrySendError::Full(_)) = pump.streams.try_send(stream) {
                    return Err(Status::unavailable(
                        "the request body is not read as fast as connections are lost",
                    ));
                }
                // A pump that has ended needs no stream: its error tells why.
            }
            Self::Whole(whole) => {
                let once = mem::take(&mut whole.once);
                let mut frames = whole.kept.frames().cloned().chain(once).peekable();
                while let Some(frame) = frames.next() {
                    if stream.send_data(frame, frames.peek().is_none()).is_err() {
                        break; // the stream's own error, which comes up in its response
                    }
                }
            }
        }
        Ok(())
    }

    /// The response began: no repeat will come. Returns the pump, which runs on.
    pub(crate) fn commit(self) -> Option<Pump> {
        match self {
            Self::Pumped(pump) => {
                pump.commit();
                Some(pump)
            }
            Self::Unread(_) | Self::Whole(_) => None,
        }
    }
}

fn spawn(body: RequestBody, kept: Kept, once: Vec<Bytes>, shared: &Arc<Shared>) -> Pump {
    let state = Arc::new(PumpState {
        committed: AtomicBool::new(false),
        pump: AtomicWaker::new(),
        gave_up: AtomicBool::new(!kept.whole),
        error: OnceLock::new(),
        sent: AtomicU64::new(0),
    });
    let sizes = shared.defaults.meter.is_some().then(MessageBytes::default);
    let (streams, receiver) = mpsc::channel(STREAMS_MAX);
    let (ended, state_of_work) = (false, state.clone());
    let work = PumpWork { body, kept, once, ended, sizes, state: state_of_work, streams: receiver };
    let task = shared.runtime.spawn(work.run()).abort_handle();
    Pump { state, streams, task }
}

struct PumpWork {
    body: RequestBody,
    kept: Kept,
    once: Vec<Bytes>,
    ended: bool,
    /// Of the present stream, where they are counted.
    sizes: Option<MessageBytes>,
    state: Arc<PumpState>,
    streams: mpsc::Receiver<SendStream<Bytes>>,
}

/// What a pump does next.
enum Next {
    Broken,
    Committed,
    Frame(Option<Result<Frame<Bytes>, Status>>),
}

impl PumpWork {
    /// Serves one stream after the other, until the call is over and drops the pump.
    async fn run(mut self) {
        let mut first = true;
        // The latest stream is kept to the end: dropping it before its end would reset it.
        let mut current = None;
        loop {
            let next = poll_fn(|cx| match self.streams.poll_recv(cx) {
                Poll::Pending => self.state.poll_committed(cx, self.kept.whole).map(|()| None),
                Poll::Ready(next) => Poll::Ready(Some(next)),
            });
            let Some(next) = next.await else {
                self.let_go();
                continue;
            };
            let Some(next) = next else { return };
            let stream = current.insert(next);
            if !first && !self.kept.whole {
                // It was sent when what we had kept was still whole, and a frame came in between.
                let text = "the attempt was lost, and more of the request was sent than is kept";
                return self.give_up(stream, Status::unavailable(text));
            }
            first = false;
            if let Err(status) = self.serve(stream).await {
                return self.give_up(stream, status);
            }
        }
    }

    fn give_up(&self, stream: &mut SendStream<Bytes>, status: Status) {
        self.state.error.set(status).ok();
        stream.send_reset(Reason::CANCEL);
    }

    /// Sends everything on one stream, until all is sent or the stream is broken. Fails with the
    /// request body.
    async fn serve(&mut self, stream: &mut SendStream<Bytes>) -> Result<(), Status> {
        let kept: Vec<Bytes> =
            self.kept.frames().cloned().chain(mem::take(&mut self.once)).collect();
        self.sizes = self.sizes.map(|_| MessageBytes::default());
        for frame in kept {
            self.count(&frame);
            if !send(stream, frame).await {
                return Ok(());
            }
        }
        while !self.ended {
            let next = poll_fn(|cx| {
                if self.state.poll_committed(cx, self.kept.whole).is_ready() {
                    return Poll::Ready(Next::Committed);
                }
                if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
                    return Poll::Ready(Next::Frame(frame));
                }
                // While there is something to send, sending tells as well.
                stream.poll_reset(cx).map(|_| Next::Broken)
            });
            match next.await {
                Next::Broken => return Ok(()),
                Next::Committed => self.let_go(),
                Next::Frame(None) => self.ended = true,
                Next::Frame(Some(frame)) => {
                    let Ok(data) = frame?.into_data() else { continue };
                    if !self.kept.keep(&data) {
                        self.let_go();
                    }
                    self.count(&data);
                    if !send(stream, data).await {
                        return Ok(());
                    }
                }
            }
        }
        // An error here is the stream's, and reaches the call by its response.
        let _ = stream.send_data(Bytes::new(), true);
        Ok(())
    }

    fn count(&mut self, data: &[u8]) {
        if let Some(sizes) = &mut self.sizes {
            self.state.sent.store(sizes.add(data), Ordering::Relaxed);
        }
    }

    fn let_go(&mut self) {
        self.state.gave_up.store(true, Ordering::Release);
        drop(self.kept.release());
    }
}

/// Sends one frame when the server's window is open. False when the stream is broken.
async fn send(stream: &mut SendStream<Bytes>, data: Bytes) -> bool {
    // One byte of window is enough to hand over all of it: then the connection's task goes on by
    // itself whenever the server opens the window further, without waking this task for each
    // piece. What h2 holds beyond the window is at most this one frame.
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
    }
    stream.send_data(data, false).is_ok()
}
