//! Finds the frames in a stream of HTTP/2 bytes: kinds, flags and streams, and why it said GOAWAY.
//! hyper has no hook for frames; what abuses a server most cheaply (PING, SETTINGS, RST_STREAM)
//! never reaches a service, and what h2 closes a connection for is not in its error.

/// The length of HTTP/2's client connection preface (RFC 9113, 3.4).
pub(crate) const PREFACE_BYTES: usize = 24;
/// The length of a frame's head (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
/// What is kept of a GOAWAY: last stream, code and debug data; h2's longest is 25 bytes.
const GOAWAY_BYTES_MAX: usize = 64;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame's head, without its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    fn parse(bytes: [u8; HEAD_BYTES]) -> (Self, usize) {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        // The highest bit is reserved.
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        (Self { kind, flags, stream }, length)
    }

    /// Whether this frame ends its sender's side of a stream.
    pub(crate) fn ends_stream(self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// One direction of a connection; keeps where it is in a frame, and the last GOAWAY.
#[derive(Debug)]
pub(crate) struct Scanner {
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    /// HEADERS came without END_HEADERS: only CONTINUATION may follow.
    in_header_block: bool,
    /// Messages that began: frames, but not the CONTINUATION of a header block.
    begun: u64,
    in_goaway: bool,
    goaway: Vec<u8>,
}

impl Scanner {
    /// `preface_bytes` come before the first frame.
    pub(crate) fn new(preface_bytes: usize) -> Self {
        Self {
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            skip: preface_bytes,
            in_header_block: false,
            begun: 0,
            in_goaway: false,
            goaway: Vec::new(),
        }
    }

    /// Whether all bytes so far are whole frames.
    pub(crate) fn at_boundary(&self) -> bool {
        self.head_bytes == 0 && self.skip == 0
    }

    /// Whether the preface is behind.
    pub(crate) fn greeted(&self) -> bool {
        self.begun > 0 || self.skip == 0
    }

    /// The frame or header block that the sender owes the rest of; each has another number.
    pub(crate) fn unfinished(&self) -> Option<u64> {
        (self.in_header_block || !self.at_boundary()).then_some(self.begun)
    }

    /// Code and debug data of the last GOAWAY, once it is whole.
    pub(crate) fn goaway(&self) -> Option<(u32, &[u8])> {
        let (fixed, debug_data) = self.goaway.split_at_checked(8)?;
        let code = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        self.at_boundary().then_some((code, debug_data))
    }

    /// Calls `each` with every head that `bytes` complete, until it fails.
    pub(crate) fn scan<E>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Head) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let skipped = self.skip.min(bytes.len());
            if self.in_goaway {
                let room = GOAWAY_BYTES_MAX.saturating_sub(self.goaway.len());
                self.goaway.extend_from_slice(&bytes[..skipped.min(room)]);
            }
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(());
            }
            let taken = (HEAD_BYTES - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                let (head, length) = Head::parse(self.head);
                self.skip = length;
                self.begun += u64::from(head.kind != CONTINUATION);
                self.in_goaway = head.kind == GOAWAY;
                if self.in_goaway {
                    self.goaway.clear();
                }
                if matches!(head.kind, HEADERS | CONTINUATION) {
                    self.in_header_block = head.flags & END_HEADERS == 0;
                }
                each(head)?;
            }
        }
    }
}

/// A whole GOAWAY frame (RFC 9113, 6.8).
pub(crate) fn goaway(last_stream: u32, code: u32, debug_data: &str) -> Vec<u8> {
    let length = (8 + debug_data.len()) as u32;
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([GOAWAY, 0, 0, 0, 0, 0]);
    bytes.extend(last_stream.to_be_bytes());
    bytes.extend(code.to_be_bytes());
    bytes.extend_from_slice(debug_data.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn scan(scanner: &mut Scanner, bytes: &[u8], heads: &mut Vec<Head>) {
        let result = scanner.scan(bytes, |head| {
            heads.push(head);
            Ok::<_, Infallible>(())
        });
        let Ok(()) = result;
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = vec![b'P'; PREFACE_BYTES];
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        bytes.extend(frame(HEADERS, 5, 1, &[0; 300]));
        bytes.extend(frame(PING, ACK, 0, &[0; 8]));
        let mut whole = Vec::new();
        scan(&mut Scanner::new(PREFACE_BYTES), &bytes, &mut whole);
        let kinds: Vec<_> = whole.iter().map(|head| (head.kind, head.stream)).collect();
        assert_eq!(kinds, [(SETTINGS, 0), (HEADERS, 1), (PING, 0)]);
        for size in 1..bytes.len() {
            let mut scanner = Scanner::new(PREFACE_BYTES);
            let mut heads = Vec::new();
            for piece in bytes.chunks(size) {
                scan(&mut scanner, piece, &mut heads);
            }
            assert_eq!(heads, whole, "in pieces of {size}");
            assert!(scanner.at_boundary());
        }
    }

    #[test]
    fn a_header_block_is_unfinished_until_its_last_continuation() {
        let mut scanner = Scanner::new(0);
        let mut heads = Vec::new();
        scan(&mut scanner, &frame(HEADERS, 0, 1, b"x"), &mut heads);
        assert!(scanner.at_boundary());
        let block = scanner.unfinished().expect("no END_HEADERS");
        scan(&mut scanner, &frame(CONTINUATION, 0, 1, b"x"), &mut heads);
        assert_eq!(scanner.unfinished(), Some(block));
        scan(&mut scanner, &frame(CONTINUATION, END_HEADERS, 1, b"x"), &mut heads);
        assert_eq!(scanner.unfinished(), None);
        scan(&mut scanner, &frame(DATA, 0, 1, b"abc")[..10], &mut heads);
        assert!(scanner.unfinished().is_some_and(|next| next != block));
    }

    #[test]
    fn a_goaway_says_why_once_it_is_whole() {
        let bytes = goaway(7, 11, "too_many_pings");
        let mut scanner = Scanner::new(0);
        let mut heads = Vec::new();
        scan(&mut scanner, &goaway(0, 0, &"x".repeat(1000)), &mut heads);
        assert_eq!(scanner.goaway().expect("whole").1.len(), GOAWAY_BYTES_MAX - 8);
        for byte in &bytes {
            scan(&mut scanner, &[*byte], &mut heads);
            let whole = heads.len() == 2 && scanner.at_boundary();
            assert_eq!(scanner.goaway() == Some((11, &b"too_many_pings"[..])), whole);
        }
        assert_eq!(heads[1], Head { kind: GOAWAY, flags: 0, stream: 0 });
        assert_eq!(bytes[9..17], [0, 0, 0, 7, 0, 0, 0, 11]);
        scan(&mut scanner, &frame(PING, 0, 0, &[0; 8]), &mut heads);
        assert_eq!(scanner.goaway(), Some((11, &b"too_many_pings"[..])));
    }
}
