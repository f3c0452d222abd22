//! A socket that watches what passes through it: see `frames` for why.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{self, Walker};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`
const CLIENT_PREFACE_LEN: usize = 24;
/// SETTINGS_MAX_CONCURRENT_STREAMS
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const NO_GOAWAY: u64 = u64::MAX;

/// Keeps what one side writes all the time away from what the other reads all the time.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What the tap saw. Written on the connection's task, read by calls.
pub(crate) struct Seen {
    settings: AtomicBool,
    max_streams: AtomicU32,
    max_streams_changed: AtomicBool,
    /// Last stream id of the latest GOAWAY, or [`NO_GOAWAY`].
    goaway: AtomicU64,
    retired: AtomicBool,
    too_many_pings: AtomicBool,
    served: AtomicBool,
    /// Written with each write and read of the connection.
    progress: Apart<Progress>,
    /// Written with each call's beginning and end.
    streams: Apart<Streams>,
    /// Of the open streams, and of all there were, those that are the channel's own and no calls.
    own_open: AtomicU32,
    own_sent: AtomicU32,
    /// How many calls were open when the socket ended.
    open_at_end: OnceLock<u32>,
    first_bytes: OnceLock<[u8; 9]>,
    end_reason: OnceLock<String>,
}

#[derive(Default)]
struct Streams {
    /// Those that are open now.
    open: AtomicU32,
    /// Calls whose last word was OK.
    succeeded: AtomicU64,
}

#[derive(Default)]
struct Progress {
    highest_headers: AtomicU32,
    read_count: AtomicU64,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            settings: AtomicBool::new(false),
            max_streams: AtomicU32::new(u32::MAX),
            max_streams_changed: AtomicBool::new(false),
            goaway: AtomicU64::new(NO_GOAWAY),
            retired: AtomicBool::new(false),
            too_many_pings: AtomicBool::new(false),
            served: AtomicBool::new(false),
            progress: Apart::default(),
            streams: Apart::default(),
            own_open: AtomicU32::new(0),
            own_sent: AtomicU32::new(0),
            open_at_end: OnceLock::new(),
            first_bytes: OnceLock::new(),
            end_reason: OnceLock::new(),
        }
    }
}

impl Seen {
    /// The server's first SETTINGS came.
    pub(crate) fn settings(&self) -> bool {
        self.settings.load(Ordering::Acquire)
    }

    /// GOAWAY came: no new stream may be opened.
    pub(crate) fn goaway(&self) -> bool {
        self.goaway.load(Ordering::Acquire) != NO_GOAWAY
    }

    /// We want no new stream on this connection, as if the server had sent GOAWAY.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// See [`Seen::retire`].
    pub(crate) fn retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// The server said that it never processed this stream.
    pub(crate) fn unprocessed(&self, stream_id: u32) -> bool {
        let last = self.goaway.load(Ordering::Acquire);
        last != NO_GOAWAY && u64::from(stream_id) > last
    }

    /// The request never reached the socket.
    pub(crate) fn never_written(&self, stream_id: u32) -> bool {
        stream_id > self.progress.0.highest_headers.load(Ordering::Acquire)
    }

    /// Grows with each call that is sent. A stream of the channel's own counts from when it is
    /// opened, which is a moment before it is sent.
    pub(crate) fn calls_sent(&self) -> u32 {
        // A client's stream ids are odd.
        let sent = self.progress.0.highest_headers.load(Ordering::Relaxed).div_ceil(2);
        sent.saturating_sub(self.own_sent.load(Ordering::Relaxed))
    }

    /// The server complained about our keepalive (gRFC A8).
    pub(crate) fn too_many_pings(&self) -> bool {
        self.too_many_pings.load(Ordering::Relaxed)
    }

    /// Grows whenever bytes arrive.
    pub(crate) fn read_count(&self) -> u64 {
        self.progress.0.read_count.load(Ordering::Relaxed)
    }

    /// The server answered at least one call.
    pub(crate) fn served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// New streams can be opened, as far as anybody knows.
    pub(crate) fn is_usable(&self) -> bool {
        !self.goaway() && !self.retired() && self.end_reason().is_none()
    }

    /// Takes one of the streams that the server allows, if one is free. Counting up first and down
    /// again when it was too many would make a free stream look taken to a third call.
    pub(crate) fn try_open(&self) -> bool {
        let max = self.max_streams.load(Ordering::SeqCst);
        let more = |open: u32| (open < max).then_some(open + 1);
        self.streams.0.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Gives back what [`Seen::try_open`] took.
    pub(crate) fn close_one(&self) {
        self.streams.0.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// False when the server lowered its limit under what is open.
    pub(crate) fn is_within_limit(&self) -> bool {
        self.open() <= self.max_streams.load(Ordering::SeqCst)
    }

    /// True once after each change of the server's limit.
    pub(crate) fn take_max_streams_changed(&self) -> bool {
        self.max_streams_changed.load(Ordering::Relaxed)
            && self.max_streams_changed.swap(false, Ordering::AcqRel)
    }

    /// Streams that are held open.
    pub(crate) fn open(&self) -> u32 {
        self.streams.0.open.load(Ordering::SeqCst)
    }

    /// How many streams the server allows at once, if it set a limit.
    pub(crate) fn max_streams(&self) -> Option<u32> {
        Some(self.max_streams.load(Ordering::Relaxed)).filter(|max| *max != u32::MAX)
    }

    /// A call ended with OK. To be told before its slot is dropped, see `view::board`.
    pub(crate) fn succeed(&self) {
        self.streams.0.succeeded.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls that ended with OK.
    pub(crate) fn succeeded(&self) -> u64 {
        self.streams.0.succeeded.load(Ordering::Relaxed)
    }

    /// Streams that calls hold open.
    pub(crate) fn calls_open(&self) -> u32 {
        self.open().saturating_sub(self.own_open.load(Ordering::SeqCst))
    }

    /// One of the open streams is not a call's but the channel's own.
    pub(crate) fn begin_own(&self) {
        self.own_open.fetch_add(1, Ordering::SeqCst);
        self.own_sent.fetch_add(1, Ordering::Relaxed);
    }

    /// See [`Seen::begin_own`].
    pub(crate) fn end_own(&self) {
        self.own_open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Calls that were open when the socket ended. Counted before h2 learns of the end, so that
    /// no call that fails by it is missing.
    pub(crate) fn open_at_end(&self) -> u32 {
        self.open_at_end.get().copied().unwrap_or_else(|| self.calls_open())
    }

    /// Why the connection ended; the first reason stays.
    pub(crate) fn end(&self, reason: impl FnOnce() -> String) {
        self.open_at_end.get_or_init(|| self.calls_open());
        self.end_reason.get_or_init(reason);
    }

    /// The connection ended when all of its streams had: calls that have yet to read what came are
    /// not open any more.
    pub(crate) fn end_unused(&self, reason: &str) {
        self.open_at_end.get_or_init(|| 0);
        self.end_reason.get_or_init(|| reason.to_owned());
    }

    /// See [`Seen::end`].
    pub(crate) fn end_reason(&self) -> Option<&str> {
        self.end_reason.get().map(String::as_str)
    }

    /// What the server's first bytes say when they are not HTTP/2.
    pub(crate) fn not_http2(&self) -> Option<&'static str> {
        match self.first_bytes.get()? {
            b if b.starts_with(b"HTTP/1.") => Some("the server answered in HTTP/1"),
            [0x15 | 0x16, 0x03, ..] => Some("the server answered in TLS"),
            b if b[3] != frames::SETTINGS => Some("the server's answer is not HTTP/2"),
            _ => None,
        }
    }

    fn saw_read(&self, frame: &frames::Frame<'_>) {
        match frame.kind {
            frames::SETTINGS if frame.flags & frames::FLAG_ACK == 0 => {
                for entry in frame.payload.chunks_exact(6) {
                    if u16::from_be_bytes([entry[0], entry[1]]) == MAX_CONCURRENT_STREAMS {
                        let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
                        self.max_streams.store(value, Ordering::SeqCst);
                        self.max_streams_changed.store(true, Ordering::Release);
                    }
                }
                self.settings.store(true, Ordering::Release);
            }
            // One load for each response; a store for the first one only.
            frames::HEADERS if !self.served() => self.served.store(true, Ordering::Relaxed),
            frames::GOAWAY => {
                if let Some([a, b, c, d]) = frame.payload.first_chunk() {
                    let last = u32::from_be_bytes([*a, *b, *c, *d]) & 0x7fff_ffff;
                    self.goaway.store(u64::from(last), Ordering::Release);
                }
                if frame.payload.get(8..).is_some_and(|debug| debug == b"too_many_pings") {
                    self.too_many_pings.store(true, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

pin_project_lite::pin_project! {
    /// See the module's head.
    pub(crate) struct Tap<I> {
        #[pin]
        io: I,
        seen: std::sync::Arc<Seen>,
        read: Walker,
        written: Walker,
        first: Vec<u8>,
    }
}

impl<I> Tap<I> {
    pub(crate) fn new(io: I, seen: std::sync::Arc<Seen>) -> Self {
        Self {
            io,
            seen,
            read: Walker::new(0, &[frames::SETTINGS, frames::GOAWAY]),
            written: Walker::new(CLIENT_PREFACE_LEN, &[]),
            first: Vec::new(),
        }
    }
}

fn note_written(walker: &mut Walker, seen: &Seen, bytes: &[u8]) {
    walker.feed(bytes, |frame| {
        if frame.kind == frames::HEADERS {
            seen.progress.0.highest_headers.fetch_max(frame.stream_id, Ordering::AcqRel);
        }
    });
}

impl<I: AsyncRead> AsyncRead for Tap<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        if let Err(e) = ready!(this.io.poll_read(cx, buf)) {
            this.seen.end(|| format!("connection lost: {e}"));
            return Poll::Ready(Err(e));
        }
        let bytes = &buf.filled()[before..];
        if bytes.is_empty() && buf.remaining() > 0 {
            this.seen.end(|| "the server closed the connection".into());
            return Poll::Ready(Ok(()));
        }
        this.seen.progress.0.read_count.fetch_add(1, Ordering::Relaxed);
        if this.first.len() < 9 {
            this.first.extend(bytes.iter().take(9 - this.first.len()));
            if let Some(first) = this.first.first_chunk() {
                this.seen.first_bytes.get_or_init(|| *first);
            }
        }
        let seen = this.seen;
        this.read.feed(bytes, |frame| seen.saw_read(&frame));
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite> AsyncWrite for Tap<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let result = match bufs {
            [one] => ready!(this.io.poll_write(cx, one)),
            _ => ready!(this.io.poll_write_vectored(cx, bufs)),
        };
        match &result {
            Ok(n) => {
                let mut left = *n;
                for buf in bufs {
                    let taken = left.min(buf.len());
                    note_written(this.written, this.seen, &buf[..taken]);
                    left -= taken;
                }
            }
            Err(e) => this.seen.end(|| format!("connection lost: {e}")),
        }
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}
