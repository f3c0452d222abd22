//! How many frames of each kind a client may send. h2 limits resets before a stream is taken up,
//! CONTINUATION and DATA; it answers PING, SETTINGS and PRIORITY, and resets of streams that were
//! taken up, for as long as they come. Here each kind has a limit for one second, and real work (a
//! response, a call) gives allowance back, so that a busy client never meets one.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use crate::{
    config::{OTHER_FRAMES_PER_SECOND_MAX, SETTINGS_PER_SECOND_MAX, WINDOW_UPDATES_PER_SECOND_MAX},
    frames::{
        ACK, CONTINUATION, DATA, GOAWAY, HEADERS, Head, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
    observe::Event,
};

/// The time that limits hold for.
const PERIOD: Duration = Duration::from_secs(1);
/// WINDOW_UPDATEs that one DATA frame from the server, or one new call, may bring: clients send one
/// for the connection and one for the stream, some of them in small steps (Envoy allows 10, too).
const WINDOW_UPDATES_FOR_A_FRAME: u32 = 10;

/// A count that starts again after a period. The clock is read only at the limit.
#[derive(Debug)]
struct Window {
    limit: u32,
    count: u32,
    since: Instant,
}

impl Window {
    fn new(limit: u32, now: Instant) -> Self {
        Self { limit, count: 0, since: now }
    }

    /// Counts one; `false` when it is one too many.
    fn take(&mut self) -> bool {
        self.count += 1;
        if self.count <= self.limit {
            return true;
        }
        let now = Instant::now();
        let over = now.duration_since(self.since) < PERIOD;
        if !over {
            *self = Self { count: 1, ..Self::new(self.limit, now) };
        }
        !over
    }

    fn give_back(&mut self, count: u32) {
        self.count = self.count.saturating_sub(count);
    }
}

/// The frames of one connection.
#[derive(Debug)]
pub(crate) struct Meter {
    pings: Window,
    settings: Window,
    resets: Window,
    window_updates: Window,
    others: Window,
    /// The highest stream that the client opened.
    last_stream: u32,
    /// Streams that the client asked for.
    requested: u64,
    /// Those whose response is not whole on the wire, and how many have ended.
    open: HashSet<u32>,
    ended: u64,
    /// After GOAWAY h2 ignores some streams without a word.
    goaway: bool,
}

impl Meter {
    pub(crate) fn new(pings: u32, resets: u32) -> Self {
        let window = |limit| Window::new(limit, Instant::now());
        Self {
            pings: window(pings),
            settings: window(SETTINGS_PER_SECOND_MAX),
            resets: window(resets),
            window_updates: window(WINDOW_UPDATES_PER_SECOND_MAX),
            others: window(OTHER_FRAMES_PER_SECOND_MAX),
            last_stream: 0,
            requested: 0,
            open: HashSet::new(),
            ended: 0,
            goaway: false,
        }
    }

    pub(crate) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    pub(crate) fn requested(&self) -> u64 {
        self.requested
    }

    /// Streams whose response is not whole on the wire.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Streams that have ended, by whichever side.
    pub(crate) fn ended(&self) -> u64 {
        self.ended
    }

    fn end(&mut self, stream: u32) {
        self.ended += u64::from(self.open.remove(&stream));
    }

    /// Counts a frame from the client; says which limit it breaks. `note` is told what is counted
    /// for all connections.
    pub(crate) fn received(&mut self, head: Head, note: impl Fn(Event)) -> Result<(), Event> {
        let (window, abuse) = match head.kind {
            HEADERS if head.stream > self.last_stream => {
                self.last_stream = head.stream;
                self.requested += 1;
                if !self.goaway {
                    self.open.insert(head.stream);
                }
                self.window_updates.give_back(WINDOW_UPDATES_FOR_A_FRAME);
                note(Event::StreamRequested);
                return Ok(());
            }
            // h2 has limits for these, by size; an unexpected acknowledgement ends the connection.
            DATA | HEADERS | CONTINUATION => return Ok(()),
            SETTINGS if head.flags & ACK != 0 => return Ok(()),
            RST_STREAM => {
                note(Event::StreamReset);
                self.end(head.stream);
                (&mut self.resets, Event::AbuseResets)
            }
            // With acknowledgements of pings that nobody sent.
            PING => (&mut self.pings, Event::AbusePings),
            SETTINGS => (&mut self.settings, Event::AbuseSettings),
            WINDOW_UPDATE => (&mut self.window_updates, Event::AbuseWindowUpdates),
            _ => (&mut self.others, Event::AbuseOtherFrames),
        };
        if window.take() { Ok(()) } else { Err(abuse) }
    }

    /// Gives allowance back for a frame to the client.
    pub(crate) fn sent(&mut self, head: Head) {
        if matches!(head.kind, DATA | HEADERS) {
            // Clients that estimate bandwidth send a PING behind what they receive.
            self.pings.count = 0;
        }
        if head.kind == DATA {
            self.window_updates.give_back(WINDOW_UPDATES_FOR_A_FRAME);
        }
        if head.ends_stream() {
            self.resets.give_back(1);
        }
        if head.ends_stream() || head.kind == RST_STREAM {
            self.end(head.stream);
        }
        self.goaway |= head.kind == GOAWAY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::END_STREAM;

    const PRIORITY: u8 = 2;
    const LIMIT: u32 = 10;

    fn head(kind: u8) -> Head {
        Head { kind, flags: 0, stream: 0 }
    }

    /// How many of these frames are taken at once, of at most `max`.
    fn taken(meter: &mut Meter, kind: u8, max: u32) -> u32 {
        (0..max).take_while(|_| meter.received(head(kind), |_| ()).is_ok()).count() as u32
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_has_its_limit() {
        let cases = [
            (PING, LIMIT, Event::AbusePings),
            (RST_STREAM, LIMIT, Event::AbuseResets),
            (SETTINGS, SETTINGS_PER_SECOND_MAX, Event::AbuseSettings),
            (WINDOW_UPDATE, WINDOW_UPDATES_PER_SECOND_MAX, Event::AbuseWindowUpdates),
            (PRIORITY, OTHER_FRAMES_PER_SECOND_MAX, Event::AbuseOtherFrames),
            (0xee, OTHER_FRAMES_PER_SECOND_MAX, Event::AbuseOtherFrames),
        ];
        for (kind, limit, abuse) in cases {
            let mut meter = Meter::new(LIMIT, LIMIT);
            assert_eq!(taken(&mut meter, kind, limit + 5), limit, "kind {kind}");
            assert_eq!(meter.received(head(kind), |_| ()), Err(abuse));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_holds_for_a_second() {
        let mut meter = Meter::new(LIMIT, LIMIT);
        for _ in 0..100 {
            assert_eq!(taken(&mut meter, PING, LIMIT), LIMIT);
            tokio::time::advance(PERIOD).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn responses_give_pings_and_resets_back() {
        let mut meter = Meter::new(LIMIT, LIMIT);
        for _ in 0..100 {
            assert_eq!(taken(&mut meter, PING, LIMIT), LIMIT);
            assert_eq!(taken(&mut meter, RST_STREAM, 1), 1);
            meter.sent(head(DATA));
            meter.sent(Head { flags: END_STREAM, ..head(HEADERS) });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn data_and_calls_give_window_updates_back() {
        let mut meter = Meter::new(LIMIT, LIMIT);
        for call in 0..WINDOW_UPDATES_PER_SECOND_MAX {
            assert_eq!(taken(&mut meter, WINDOW_UPDATE, 20), 20);
            meter.sent(head(DATA));
            let open = Head { stream: 2 * call + 1, ..head(HEADERS) };
            meter.received(open, |_| ()).expect("no limit of ours");
        }
        assert_eq!(meter.last_stream(), 2 * WINDOW_UPDATES_PER_SECOND_MAX - 1);
        assert_eq!(meter.requested(), u64::from(WINDOW_UPDATES_PER_SECOND_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn knows_the_streams_whose_response_is_not_whole() {
        let mut meter = Meter::new(LIMIT, LIMIT);
        let on = |kind, flags, stream| Head { kind, flags, stream };
        let receive = |meter: &mut Meter, head| meter.received(head, |_| ()).expect("few");
        for stream in [1, 3, 5, 7] {
            receive(&mut meter, on(HEADERS, END_STREAM, stream));
        }
        assert_eq!((meter.open(), meter.ended()), (4, 0));
        meter.sent(on(HEADERS, 0, 1));
        meter.sent(on(DATA, 0, 1));
        assert_eq!((meter.open(), meter.ended()), (4, 0));
        meter.sent(on(HEADERS, END_STREAM, 1));
        meter.sent(on(RST_STREAM, 0, 3));
        receive(&mut meter, on(RST_STREAM, 0, 5));
        // Once each, also where both sides end a stream.
        receive(&mut meter, on(RST_STREAM, 0, 3));
        assert_eq!((meter.open(), meter.ended()), (1, 3));
        meter.sent(on(GOAWAY, 0, 0));
        receive(&mut meter, on(HEADERS, END_STREAM, 9));
        assert_eq!((meter.open(), meter.requested()), (1, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_their_bodies_have_no_limit_here() {
        let mut meter = Meter::new(1, 1);
        for kind in [DATA, HEADERS, CONTINUATION] {
            assert_eq!(taken(&mut meter, kind, 100_000), 100_000);
        }
    }
}
