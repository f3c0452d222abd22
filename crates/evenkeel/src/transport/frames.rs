//! Reads HTTP/2 frame headers out of a byte stream that comes in pieces (RFC 9113 section 4.1).
//!
//! h2 does not tell three things that a load balancer has to know: that the server's first
//! SETTINGS came, where GOAWAY drew the line, and which requests never reached the socket. All
//! three are in the frame headers, so a walk over them beside h2 is enough.

/// Frame types that somebody asks about.
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const GOAWAY: u8 = 0x7;

/// The flag of a SETTINGS frame that only acknowledges.
pub(crate) const FLAG_ACK: u8 = 0x1;

/// Bytes of a payload that are kept; SETTINGS and GOAWAY say what matters in fewer.
const PAYLOAD_KEPT_MAX: usize = 256;
const HEADER_LEN: usize = 9;

/// One frame, complete except for what its payload has beyond [`PAYLOAD_KEPT_MAX`].
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream_id: u32,
    /// Empty unless the walker was asked to keep payloads of this kind.
    pub(crate) payload: &'a [u8],
}

/// Where in the byte stream we are.
pub(crate) struct Walker {
    keep: &'static [u8],
    /// Bytes to pass over before the next header: a preface, or a payload nobody wants.
    skip: usize,
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// Payload bytes still to come of the frame that is being kept.
    wanted: usize,
    payload: Vec<u8>,
}

impl Walker {
    /// A walker that passes over `preface_len` bytes and keeps the payloads of these frame kinds.
    pub(crate) fn new(preface_len: usize, keep: &'static [u8]) -> Self {
        Self {
            keep,
            skip: preface_len,
            header: [0; HEADER_LEN],
            header_len: 0,
            wanted: 0,
            payload: Vec::new(),
        }
    }

    /// Goes on by `bytes` and reports each frame: one that is kept when its payload is complete,
    /// any other when its header is.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(Frame<'_>)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                bytes = &bytes[take(&mut self.skip, bytes.len())..];
            } else if self.wanted > 0 {
                let n = take(&mut self.wanted, bytes.len());
                let room = PAYLOAD_KEPT_MAX.saturating_sub(self.payload.len());
                self.payload.extend_from_slice(&bytes[..n.min(room)]);
                bytes = &bytes[n..];
                if self.wanted == 0 {
                    self.report(&mut on_frame);
                }
            } else {
                let n = (HEADER_LEN - self.header_len).min(bytes.len());
                self.header[self.header_len..self.header_len + n].copy_from_slice(&bytes[..n]);
                self.header_len += n;
                bytes = &bytes[n..];
                if self.header_len == HEADER_LEN {
                    self.header_complete(&mut on_frame);
                }
            }
        }
    }

    fn header_complete(&mut self, on_frame: &mut impl FnMut(Frame<'_>)) {
        self.header_len = 0;
        let h = &self.header;
        let len = usize::from(h[0]) << 16 | usize::from(h[1]) << 8 | usize::from(h[2]);
        if self.keep.contains(&h[3]) && len > 0 {
            self.wanted = len;
        } else {
            self.skip = len;
            self.report(on_frame);
        }
    }

    fn report(&mut self, on_frame: &mut impl FnMut(Frame<'_>)) {
        let h = &self.header;
        let stream_id = u32::from_be_bytes([h[5], h[6], h[7], h[8]]) & 0x7fff_ffff;
        on_frame(Frame { kind: h[3], flags: h[4], stream_id, payload: &self.payload });
        self.payload.clear();
    }
}

/// Takes as much of `left` as `available` allows and returns it.
fn take(left: &mut usize, available: usize) -> usize {
    let n = (*left).min(available);
    *left -= n;
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    type Seen = Vec<(u8, u8, u32, Vec<u8>)>;

    fn walk(bytes: &[u8], piece: usize) -> Seen {
        let mut walker = Walker::new(3, &[SETTINGS, GOAWAY]);
        let mut seen = Vec::new();
        for piece in bytes.chunks(piece) {
            walker.feed(piece, |f| {
                seen.push((f.kind, f.flags, f.stream_id, f.payload.to_vec()));
            });
        }
        seen
    }

    #[test]
    fn finds_every_frame_however_the_bytes_are_cut() {
        let mut bytes = b"PRI".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 10]));
        bytes.extend(frame(SETTINGS, FLAG_ACK, 0, &[]));
        bytes.extend(frame(HEADERS, 4, 0x8000_0005, &[1; 300]));
        bytes.extend(frame(GOAWAY, 0, 0, &[7; 1000]));
        bytes.extend(frame(0, 1, 5, b"data"));
        let want: Seen = vec![
            (SETTINGS, 0, 0, vec![0, 3, 0, 0, 0, 10]),
            (SETTINGS, FLAG_ACK, 0, vec![]),
            (HEADERS, 4, 5, vec![]),
            (GOAWAY, 0, 0, vec![7; PAYLOAD_KEPT_MAX]),
            (0, 1, 5, vec![]),
        ];
        for piece in [1, 2, 7, 9, 64, bytes.len()] {
            assert_eq!(walk(&bytes, piece), want, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_header_that_is_not_complete_is_not_a_frame() {
        let bytes = [b"PRI".to_vec(), frame(HEADERS, 0, 1, &[])].concat();
        assert!(walk(&bytes[..bytes.len() - 1], 4).is_empty());
    }
}
