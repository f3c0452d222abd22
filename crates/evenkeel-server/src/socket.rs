//! The socket under hyper: sees every frame, and ends the connection when its client breaks a limit
//! or keeps the server waiting. hyper can neither be told to send ENHANCE_YOUR_CALM nor asked for
//! its socket, so the GOAWAY is written here, between two of hyper's frames. And it ends hyper's
//! turn: left alone, hyper takes up all that a client can send before any other connection runs.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::{
    config::{Settings, TURN_BYTES_MAX, TURN_FRAMES_MAX},
    frames::{self, PREFACE_BYTES, Scanner},
    goaway::{self, ENHANCE_YOUR_CALM},
    meter::Meter,
    observe::Event,
    secure::Transport,
    streams::Streams,
};

/// What the connection's task and its socket, which hyper holds, know of each other.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    greeted: AtomicBool,
    broken: OnceLock<Event>,
    /// Frames and bytes of this turn.
    turn_frames: AtomicUsize,
    turn_bytes: AtomicUsize,
    turn_begins: AtomicBool,
}

impl Facts {
    /// The connection's task is polled: hyper may read again.
    pub(crate) fn begin_turn(&self) {
        self.turn_frames.store(0, Ordering::Relaxed);
        self.turn_bytes.store(0, Ordering::Relaxed);
        self.turn_begins.store(true, Ordering::Relaxed);
    }

    /// Whether the connection has read its share and it is the others' turn.
    fn turn_is_over(&self) -> bool {
        self.turn_frames.load(Ordering::Relaxed) >= TURN_FRAMES_MAX
            || self.turn_bytes.load(Ordering::Relaxed) >= TURN_BYTES_MAX
    }

    /// Whether HTTP/2's preface came; hyper does not tell when its handshake is over.
    pub(crate) fn greeted(&self) -> bool {
        self.greeted.load(Ordering::Relaxed)
    }

    /// Why the connection can't go on, when it is the client's fault.
    pub(crate) fn broken(&self) -> Option<Event> {
        self.broken.get().copied()
    }
}

/// A socket, TCP or TLS over it, that counts frames and waits.
pub(crate) struct Socket {
    transport: Transport,
    facts: Arc<Facts>,
    streams: Streams,
    /// Streams that h2 refused, as far as they are counted.
    refused: u64,
    incoming: Scanner,
    outgoing: Scanner,
    meter: Meter,
    frame_wait: Wait,
    write_wait: Wait,
    response_wait: Wait,
}

impl Socket {
    pub(crate) fn new(
        transport: Transport,
        settings: &Settings,
        streams: &Streams,
    ) -> (Self, Arc<Facts>) {
        let facts = Arc::<Facts>::default();
        let socket = Self {
            transport,
            facts: Arc::clone(&facts),
            streams: streams.clone(),
            refused: 0,
            incoming: Scanner::new(PREFACE_BYTES),
            outgoing: Scanner::new(0),
            meter: Meter::new(settings.max_pings_per_second, settings.max_resets_per_second),
            frame_wait: Wait::new(settings.handshake_timeout),
            write_wait: Wait::new(settings.max_write_stall),
            response_wait: Wait::new(settings.max_response_stall),
        };
        (socket, facts)
    }

    fn received(&mut self, bytes: &[u8]) -> Result<(), Event> {
        let Self { incoming, meter, streams, .. } = self;
        let mut frames = 0;
        let result = incoming.scan(bytes, |head| {
            frames += 1;
            meter.received(head, |event| streams.record(event))
        });
        // Only this task writes.
        self.facts.turn_frames.fetch_add(frames, Ordering::Relaxed);
        self.facts.turn_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        result?;
        if !self.facts.greeted() && self.incoming.greeted() {
            self.facts.greeted.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Counts the streams that h2 refused, of which it tells nobody. When a turn begins, hyper has
    /// taken up all others that came before it.
    fn count_refused(&mut self) {
        if !self.facts.turn_begins.swap(false, Ordering::Relaxed)
            || self.incoming.unfinished().is_some()
        {
            return;
        }
        let refused = self.meter.requested().saturating_sub(self.streams.opened());
        while self.refused < refused {
            self.refused += 1;
            self.streams.record(Event::StreamRefused);
        }
    }

    /// Nothing can be read: is the client allowed to be silent?
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Result<(), Event> {
        // Before its preface the connection has a timeout of its own.
        let unfinished = self.incoming.unfinished().filter(|_| self.facts.greeted());
        if self.frame_wait.is_over(cx, unfinished) {
            return Err(Event::FrameStalled);
        }
        // A response whose task is done and which is not on the wire waits for window inside h2,
        // where nobody watches over it. With nothing to read, all streams have been taken up.
        let waits = unfinished.is_none() && self.meter.open() > self.streams.open();
        if self.response_wait.is_over(cx, waits.then_some(self.meter.ended())) {
            return Err(Event::ResponseStalled);
        }
        Ok(())
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Self { outgoing, meter, facts, streams, .. } = self;
        let result = outgoing.scan(bytes, |head| {
            meter.sent(head);
            if head.ends_stream() {
                streams.answer();
            }
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(()) = result;
        if let Some(event) = outgoing.goaway().and_then(|(code, data)| goaway::event(code, data)) {
            // The first reason counts.
            let _ = facts.broken.set(event);
        }
    }

    /// Ends the connection: the error goes through hyper to the connection's task.
    fn refuse(&mut self, event: Event) -> io::Error {
        let _ = self.facts.broken.set(event);
        if self.outgoing.at_boundary() {
            let text = goaway::debug_data(event);
            let frame = frames::goaway(self.meter.last_stream(), ENHANCE_YOUR_CALM, text);
            self.transport.try_write(&frame);
        }
        io::Error::other(event.name())
    }

    fn after_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let blocked = result.is_pending().then(|| self.transport.written());
        if self.write_wait.is_over(cx, blocked) {
            return Poll::Ready(Err(self.refuse(Event::WriteStalled)));
        }
        result
    }

    /// A write that TLS took over is no progress: it may wait there.
    fn after_handing_over(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if result.is_ready() && self.transport.keeps_bytes() {
            return result;
        }
        self.after_write(cx, result)
    }

    /// TLS hands on what it has when it is flushed; TCP itself has nothing to flush.
    fn after_flush(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        if self.transport.keeps_bytes() { self.after_write(cx, result) } else { result }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.count_refused();
        if self.facts.turn_is_over() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.transport).poll_read(cx, buffer);
        let limits = match &result {
            Poll::Ready(Ok(())) => self.received(&buffer.filled()[before..]),
            Poll::Ready(Err(_)) => Ok(()),
            Poll::Pending => self.poll_silence(cx),
        };
        match limits {
            Ok(()) => result,
            Err(event) => Poll::Ready(Err(self.refuse(event))),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = result {
            self.sent(&bytes[..written]);
        }
        self.after_handing_over(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(mut written)) = result {
            for slice in slices {
                let part = written.min(slice.len());
                self.sent(&slice[..part]);
                written -= part;
            }
        }
        self.after_handing_over(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_flush(cx);
        self.after_flush(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_shutdown(cx);
        self.after_flush(cx, result)
    }
}

/// Measures how long one thing is waited for. Its timer is made at the first wait and then kept.
struct Wait {
    limit: Duration,
    what: Option<u64>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    fn new(limit: Duration) -> Self {
        Self { limit, what: None, timer: None }
    }

    /// Whether the same thing is waited for longer than the limit; wakes the task when it is.
    fn is_over(&mut self, cx: &mut Context<'_>, what: Option<u64>) -> bool {
        let changed = self.what != what;
        self.what = what;
        if what.is_none() {
            return false;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if changed {
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}
