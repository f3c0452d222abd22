//! HTTP/2 frame by frame, for what an HTTP/2 library does by itself and a test must not: answering
//! PING, keeping back frames, opening streams after a GOAWAY.

use std::{net::SocketAddr, sync::LazyLock};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{SAY_HELLO, framed, hello, within};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The 32-bit number at `offset` of the payload.
    pub(crate) fn number(&self, offset: usize) -> u32 {
        u32::from_be_bytes(self.payload[offset..offset + 4].try_into().expect("four bytes"))
    }

    /// The settings of a SETTINGS frame.
    pub(crate) fn settings(&self) -> Vec<(u16, u32)> {
        let pairs = self.payload.chunks(6);
        pairs
            .map(|pair| {
                let id = u16::from_be_bytes([pair[0], pair[1]]);
                (id, u32::from_be_bytes(pair[2..6].try_into().expect("four bytes")))
            })
            .collect()
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The HEADERS of a call.
pub(crate) fn request_headers(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request_block())
}

/// The header block of a call, as literals that HPACK does not index.
pub(crate) fn request_block() -> Vec<u8> {
    // Made once: attackers send it a hundred thousand times.
    static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", SAY_HELLO),
            (":authority", "greeter.test"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        fields.iter().flat_map(|(name, value)| literal(0, name, value)).collect()
    });
    BLOCK.clone()
}

/// A header field as a literal; `form` 0x40 has HPACK remember it, 0 does not (RFC 7541, 6.2).
pub(crate) fn literal(form: u8, name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![form];
    for text in [name, value] {
        // A length of 127 and more goes on in pieces of seven bits.
        match text.len() {
            length @ 0..127 => field.push(length as u8),
            length => {
                field.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    field.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                field.push(rest as u8);
            }
        }
        field.extend_from_slice(text.as_bytes());
    }
    field
}

/// A SETTINGS frame.
pub(crate) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = pairs
        .iter()
        .flat_map(|(id, value)| [id.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()].concat())
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// The DATA of a greeting.
pub(crate) fn request_data(stream: u32, name: &str) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, &framed(&hello(name)))
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that does nothing by itself.
pub(crate) struct Frames {
    pub(crate) socket: TcpStream,
}

impl Frames {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[]).await
    }

    /// Connects and sends these settings.
    pub(crate) async fn connect_with(address: SocketAddr, pairs: &[(u16, u32)]) -> Self {
        let mut frames =
            Self { socket: within(TcpStream::connect(address)).await.expect("a connection") };
        frames.send(PREFACE).await;
        frames.send(&settings(pairs)).await;
        frames
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within(self.socket.write_all(bytes)).await.expect("sent");
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within(self.socket.read_exact(&mut head)).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        within(self.socket.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().expect("four bytes"));
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Skips to the next frame of this kind, flags and stream.
    pub(crate) async fn find(
        &mut self,
        kind: u8,
        stream: u32,
        accept: impl Fn(&Frame) -> bool,
    ) -> Frame {
        while let Some(frame) = self.next().await {
            if frame.kind == kind && frame.stream == stream && accept(&frame) {
                return frame;
            }
        }
        panic!("the connection ended without a frame of kind {kind} on stream {stream}");
    }
}
